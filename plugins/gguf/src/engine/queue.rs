//! Requests that wait for a slot.

use std::cmp::Reverse;

use super::work::Work;

/// Who goes first: the higher priority, and among equals who came first.
pub(super) type Rank = (i32, Reverse<u64>);

/// Waiting requests, new ones and those that had to give their place to others.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Vec<Work>,
}

impl Queue {
    pub fn push(&mut self, work: Work) {
        self.waiting.push(work);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next to be served.
    pub fn first(&self) -> Option<&Work> {
        self.waiting.iter().max_by_key(|work| work.rank())
    }

    /// Takes the next to be served.
    pub fn pop(&mut self) -> Option<Work> {
        let (index, _) = self.waiting.iter().enumerate().max_by_key(|(_, work)| work.rank())?;
        Some(self.waiting.swap_remove(index))
    }

    /// Takes those that nobody wants any more.
    pub fn take_stopped(&mut self) -> Vec<Work> {
        self.waiting.extract_if(.., |work| work.stop().is_set()).collect()
    }
}
