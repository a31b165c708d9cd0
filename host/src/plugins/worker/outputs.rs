//! Memory that was handed to the other side, until that has read it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::shared::{Pool, Slab};

/// The pieces that this side makes, and those of them that the other side reads.
#[derive(Debug, Default)]
pub struct Written {
    pool: Pool,
    lent: Mutex<HashMap<u64, Slab>>,
}

impl Written {
    /// Pieces that are zeroed for who writes to them.
    pub fn zeroed() -> Self {
        Self { pool: Pool::zeroed(), lent: Mutex::default() }
    }

    /// Where pieces come from.
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The other side reads this one now.
    pub fn lend(&self, slab: Slab) {
        self.lent().insert(slab.id, slab);
    }

    /// The other side has read it. Gives the numbers of pieces that are not kept.
    pub fn released(&self, id: u64) -> Vec<u64> {
        let slab = self.lent().remove(&id);
        slab.map_or_else(Vec::new, |slab| self.pool.give_back(slab))
    }

    /// No panic happens while the lock is held.
    fn lent(&self) -> MutexGuard<'_, HashMap<u64, Slab>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
