//! What became of the requests of a day, and what it took.

use std::collections::BTreeMap;

/// How one request ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// How often: once is right.
    pub times: u32,
    /// Why it was refused, or that it took too long; `None` when it was answered.
    pub code: Option<String>,
    /// Microseconds to the first token, and to the end.
    pub first: u64,
    pub total: u64,
    /// The model that took it.
    pub model: String,
    /// The one that it takes the place of, where that is another.
    pub instead_of: Option<String>,
}

/// A day under one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Each request, in the order of the trace.
    pub ended: Vec<Ended>,
    /// Loads that were begun, and their bytes.
    pub loads: u64,
    pub loaded: u64,
    /// Sessions that gave way.
    pub evictions: u64,
    /// Bytes that models held at most, at any event, and what they may hold.
    pub peak: u64,
    pub memory: u64,
    /// Events.
    pub events: u64,
}

impl Outcome {
    /// The time below which so many of a hundred requests are, in microseconds. One that was not answered counts as one
    /// that took for ever, so that nobody looks better by refusing: `None` is for ever.
    pub fn percentile(&self, share: usize, time: impl Fn(&Ended) -> u64) -> Option<u64> {
        let of = |ended: &Ended| if ended.code.is_none() { time(ended) } else { u64::MAX };
        let mut times: Vec<u64> = self.ended.iter().map(of).collect();
        times.sort_unstable();
        let place = (times.len() * share).div_ceil(100).saturating_sub(1);
        times.get(place).copied().filter(|time| *time < u64::MAX)
    }

    /// The longest that any answer took, in microseconds.
    pub fn longest(&self) -> u64 {
        self.ended.iter().filter(|ended| ended.code.is_none()).map(|ended| ended.total).max().unwrap_or(0)
    }

    /// Requests that were not answered, by code.
    pub fn unanswered(&self) -> BTreeMap<&str, usize> {
        count(self.ended.iter().filter_map(|ended| ended.code.as_deref()))
    }

    /// Answers of a model in place of another, by both.
    pub fn degraded(&self) -> BTreeMap<(&str, &str), usize> {
        let answered = self.ended.iter().filter(|ended| ended.code.is_none());
        count(answered.filter_map(|ended| Some((ended.instead_of.as_deref()?, &*ended.model))))
    }
}

fn count<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}
