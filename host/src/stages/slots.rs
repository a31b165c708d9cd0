//! How many instances there may be at a time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pajamas_plugin_api::Cancel;

use crate::Result;

/// How often a run that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// Places for instances. Runs beyond them wait: each may take much memory, and more of them than cores get nothing done
/// sooner.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many places.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), freed: Condvar::new() })
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `cancelled`.
    pub fn take(self: &Arc<Self>, cancel: &Cancel) -> Result<Slot> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            cancel.check()?;
            free = self.freed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Ok(Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_place_waits_for_one_or_is_cancelled() {
        let slots = Slots::new(1);
        let held = slots.take(&Cancel::new()).unwrap();
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert_eq!(slots.take(&cancelled).unwrap_err().code(), "cancelled");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| slots.take(&Cancel::new()).is_ok());
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }
}
