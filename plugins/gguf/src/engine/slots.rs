//! Fewer slots, or all of them again: another worker goes on with contexts of that size. What was in work is put back into its queue
//! and computed again there, as when the cache has no room for it: it only takes longer.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use pajamas_plugin_api::{Result, SlotsInfo, Slotted};

use super::Order;
use super::sleep::{Door, Life};
use super::work::Work;
use super::worker::Worker;

impl Life {
    /// Goes on with so many slots where there is memory for them, otherwise with as many as before; `None` at the end.
    pub(super) fn resize(
        &self,
        slots: u32,
        works: Vec<Work>,
        reply: &Sender<Result<u32>>,
    ) -> Option<Worker<'_>> {
        let before = self.counters.slots.load(Ordering::Relaxed);
        self.rests();
        let made = self.wake(slots).map(|worker| (worker, slots));
        // Who no longer listens needs no answer.
        match made.or_else(|_| self.wake(before).map(|worker| (worker, before))) {
            Ok((mut worker, slots)) => {
                works.into_iter().for_each(|work| worker.take(work));
                let _ = reply.send(Ok(slots));
                Some(worker)
            }
            Err(error) => {
                works.into_iter().for_each(|work| self.refuse(work, error.clone()));
                let _ = reply.send(Err(error));
                self.sleep()
            }
        }
    }
}

/// Where the number of slots is changed, from any thread.
pub(crate) struct Rack {
    pub(super) door: Door,
    pub(super) info: SlotsInfo,
}

impl Slotted for Rack {
    fn describe(&self) -> SlotsInfo {
        self.info.clone()
    }

    fn resize(&self, slots: u32) -> Result<u32> {
        self.door.ask(|reply| Order::Resize(slots, reply))?
    }
}
