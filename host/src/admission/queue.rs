//! The requests of one model: those that it has, and those that wait for it. Pure: the time is given, in milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use super::line::Line;

/// How much the latest request counts in the average: the last ten or so matter.
const WEIGHT: f64 = 0.2;
/// Requests that a model has beside those that run in it, so that it does not wait for the next one.
const AHEAD: u32 = 1;

/// Those of one model.
#[derive(Debug, Default)]
pub struct Queue {
    /// All of them, those that wait included.
    inside: u32,
    /// How many the model works on at the same time, as far as the latest that came knew; 0 when none did.
    slots: u32,
    /// Those that the model has.
    given: u32,
    line: Line,
    /// Those whose turn came, and who do not know it yet.
    called: BTreeSet<u64>,
    next: u64,
    /// Seconds that a request takes, waiting included, averaged over the latest.
    seconds: f64,
}

/// As many are inside as may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Full {
    /// Seconds that a request takes, waiting included, averaged over the latest.
    pub seconds: f64,
}

impl Queue {
    /// One more comes, for a model that works on `slots` at the same time (0 when that is not known: then it gets all at
    /// once), and gets a number. It has to [`leave`](Self::leave) whatever becomes of it.
    ///
    /// # Errors
    /// [`Full`] when `most` are inside.
    pub fn enter(&mut self, slots: u32, priority: i32, key: &str, most: u32, now: u64) -> Result<u64, Full> {
        if self.inside >= most {
            return Err(Full { seconds: self.seconds });
        }
        self.inside += 1;
        let number = self.next;
        self.next += 1;
        self.line.push(number, priority, key, now);
        if slots > 0 {
            self.slots = slots;
        }
        self.call(now);
        Ok(number)
    }

    /// Whether the turn of this one came; says so once.
    pub fn has_called(&mut self, number: u64) -> bool {
        self.called.remove(&number)
    }

    /// The first whose turn came and who was not told; told now.
    pub fn next_called(&mut self) -> Option<u64> {
        self.called.pop_first()
    }

    /// One leaves that came so many seconds ago; `given` if it knew that its turn had come. Says whether the turn of
    /// others came.
    pub fn leave(&mut self, number: u64, given: bool, seconds: f64, now: u64) -> bool {
        self.inside = self.inside.saturating_sub(1);
        // Its turn may have come while it left.
        if given || self.called.remove(&number) {
            self.given = self.given.saturating_sub(1);
        } else {
            self.line.remove(number);
        }
        if given {
            self.seconds += WEIGHT * (seconds - self.seconds);
        }
        self.call(now)
    }

    /// All inside: those that the model has and those that wait.
    pub fn inside(&self) -> u32 {
        self.inside
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many wait of each key.
    pub fn by_key(&self) -> BTreeMap<String, usize> {
        self.line.by_key()
    }

    /// Calls those for whom there is a place. Says whether there were any.
    fn call(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.slots == 0 || self.given < self.slots.saturating_add(AHEAD) {
            let Some(number) = self.line.next(now) else { break };
            self.given += 1;
            self.called.insert(number);
            any = true;
        }
        any
    }
}
