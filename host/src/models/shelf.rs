//! The state behind the store's lock: what is in memory, what it holds, what went wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::status::{Change, Failure, State};
use super::store::Loaded;
use crate::config;

/// Panics and crashes without a good request between them after which a model is left alone until somebody loads it by
/// hand.
pub(super) const BREAKS: u32 = 3;
/// How long a model rests before it is loaded again, after so many of them.
const REST: [Duration; BREAKS as usize] = [Duration::ZERO, Duration::ZERO, Duration::from_secs(1)];

pub(super) enum Slot {
    Loading,
    Ready(Arc<Loaded>),
}

#[derive(Default)]
pub(super) struct Shelf {
    pub(super) slots: BTreeMap<String, Slot>,
    pub(super) ledger: Ledger,
    /// Why the latest load of a model, or its latest request, ended badly.
    pub(super) failures: BTreeMap<String, Failure>,
    /// How often each model was loaded, and how long it took the latest time.
    pub(super) loads: BTreeMap<String, (u64, Duration)>,
    /// The generation of the configuration in which a model last became another one.
    pub(super) outdated: BTreeMap<String, u64>,
    /// Told about every change of a state; those that nobody reads any more are dropped.
    pub(super) watchers: Vec<mpsc::Sender<Change>>,
    pub(super) memory: config::Memory,
    /// The memory of each device whose budget is set.
    totals: BTreeMap<String, u64>,
}

impl Shelf {
    pub(super) fn new(memory: config::Memory) -> Self {
        Self { memory, ..Self::default() }
    }

    pub(super) fn state(&self, id: &str) -> State {
        match self.slots.get(id) {
            Some(Slot::Loading) => State::Loading,
            Some(Slot::Ready(_)) if self.ledger.in_flight(id) > 0 => State::Busy,
            Some(Slot::Ready(_)) => State::Ready,
            None => match self.failures.get(id) {
                Some(failure) if failure.breaks >= BREAKS => State::Quarantined,
                Some(_) => State::Failed,
                None => State::Unloaded,
            },
        }
    }

    /// How long it still is before the model may be loaded again.
    pub(super) fn rest(&self, id: &str) -> Option<Duration> {
        let failure = self.failures.get(id)?;
        let rest = REST.get(failure.breaks as usize)?.checked_sub(Instant::now() - failure.since)?;
        Some(rest).filter(|rest| !rest.is_zero())
    }

    pub(super) fn tell(&mut self, id: &str) {
        if self.watchers.is_empty() {
            return;
        }
        let change = Change { id: id.to_owned(), state: self.state(id) };
        self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok());
    }

    /// Whether the model is no longer the one that a request of this generation of the configuration means.
    pub(super) fn is_outdated(&self, id: &str, generation: u64) -> bool {
        self.outdated.get(id).is_some_and(|since| *since > generation)
    }

    /// Whether new requests get this very model.
    pub(super) fn offers(&self, loaded: &Loaded) -> bool {
        matches!(self.slots.get(&loaded.id), Some(Slot::Ready(ready)) if ready.serial == loaded.serial)
    }

    /// Takes a model away from new requests; what it holds stays counted while others use it. To be dropped outside
    /// the lock: freeing gigabytes takes time.
    pub(super) fn take(&mut self, id: &str) -> Option<Arc<Loaded>> {
        let Some(Slot::Ready(loaded)) = self.slots.get(id) else { return None };
        let loaded = Arc::clone(loaded);
        self.slots.remove(id);
        self.ledger.retire(id, &loaded.retired());
        self.tell(id);
        Some(loaded)
    }

    /// Takes models away that the ledger let go already.
    pub(super) fn clear(&mut self, evicted: &[String]) -> Vec<Slot> {
        let slots = evicted.iter().filter_map(|id| self.slots.remove(id)).collect();
        evicted.iter().for_each(|id| self.tell(id));
        slots
    }

    /// Sets the budget of a device of so much memory.
    pub(super) fn budget(&mut self, device: &str, total: u64) {
        if total > 0 {
            self.totals.insert(device.to_owned(), total);
            self.ledger.set_budget(device, self.memory.budget(device, total));
        }
    }

    /// Sets the budgets of all devices anew, and takes the models away that have no room any more.
    pub(super) fn limit(&mut self, memory: config::Memory) -> Vec<Slot> {
        self.memory = memory;
        for (device, total) in self.totals.clone() {
            self.budget(&device, total);
        }
        let evicted = self.ledger.shrink();
        self.clear(&evicted)
    }
}
