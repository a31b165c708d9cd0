//! How many runs of a session there may be at a time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pajamas_plugin_api::{Cancel, Result};

/// How long a cancel flag may go unnoticed by who waits.
const INTERVAL: Duration = Duration::from_millis(10);

/// Lends what a run has for itself to as many runs as there are such lanes, in no particular order. Those who wait still hear
/// their cancel flag.
pub(crate) struct Gate<T> {
    lanes: Vec<T>,
    free: Mutex<Vec<usize>>,
    freed: Condvar,
}

impl<T> Gate<T> {
    /// Lets one run through for each lane, of which there is at least one.
    pub(crate) fn new(lanes: Vec<T>) -> Self {
        Self { free: Mutex::new((0..lanes.len()).collect()), lanes, freed: Condvar::new() }
    }

    /// Waits for the turn, which lasts until the result is dropped.
    ///
    /// # Errors
    /// `cancelled`.
    pub(crate) fn enter(&self, cancel: &Cancel) -> Result<Turn<'_, T>> {
        cancel.check()?;
        // Nothing under this lock leaves the list half-changed: a panic elsewhere does not spoil it.
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(at) = free.pop() {
                return Ok(Turn { gate: self, at });
            }
            free = self.freed.wait_timeout(free, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
            cancel.check()?;
        }
    }
}

/// The right to run in a lane.
pub(crate) struct Turn<'a, T> {
    gate: &'a Gate<T>,
    at: usize,
}

impl<T> Turn<'_, T> {
    /// What was lent.
    pub(crate) fn lane(&self) -> &T {
        &self.gate.lanes[self.at]
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.gate.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.at);
        self.gate.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use pajamas_plugin_api::codes;

    use super::*;

    #[test]
    fn as_many_are_let_through_as_there_are_lanes_and_the_cancelled_go() {
        let gate = Gate::new(vec!['a', 'b']);
        let (one, other) = (gate.enter(&Cancel::new()).unwrap(), gate.enter(&Cancel::new()).unwrap());
        assert_ne!(one.lane(), other.lane());
        let flag = Cancel::new();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.enter(&flag).map(drop).unwrap_err().code);
            flag.cancel();
            assert_eq!(waiting.join().unwrap(), codes::CANCELLED);
        });
        let freed = *one.lane();
        drop(one);
        assert_eq!(*gate.enter(&Cancel::new()).unwrap().lane(), freed);
        drop(other);
    }
}
