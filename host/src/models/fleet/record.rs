//! What is remembered of a model, whether or not it is in memory.

use std::time::Duration;

use super::event::Bytes;
use crate::error::Error;
use crate::models::status::{Failure, State};

/// Panics and crashes without a good request between them after which a model is left alone until somebody loads it by
/// hand.
const BREAKS: u32 = 3;
/// How long a model rests after its second break: a request waits for that.
const REST: Duration = Duration::from_secs(1);
/// How long it rests after the second load in a row that failed; twice as long after each further one, up to the most.
/// Requests are refused meanwhile: what is wrong with a file is not mended by waiting.
const BACK_OFF: Duration = Duration::from_secs(1);
const MOST_BACK_OFF: Duration = Duration::from_secs(60);
/// What is missing after an unload and less than this may be the allocator's own.
const LEAK: u64 = 16 << 20;

/// A model's past and present.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The session that new requests get, or that is loaded for them.
    pub(super) current: Option<u64>,
    /// Sessions that are on their way out.
    pub(super) leaving: usize,
    pub(super) trouble: Option<Trouble>,
    pub(super) pinned: bool,
    pub(super) ttl: Option<Duration>,
    /// The generation of the configuration in which it last became another model.
    pub(super) outdated: u64,
    /// How often it was loaded, and how long that took the latest time.
    pub(super) loads: u64,
    pub(super) took: Duration,
    /// What it held then.
    pub(super) held: Bytes,
    /// The same of waking it.
    pub(super) wakes: u64,
    pub(super) woke: Duration,
    /// Leaks that were told, and unloads in a row after which too little came back.
    pub(super) leaks: u64,
    short: u32,
    /// The state that was told last.
    pub(super) told: State,
}

/// What went wrong.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// Loads that failed in a row.
    tries: u32,
    since: Duration,
}

/// What a request does about a model's trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// It waits until then.
    Until(Duration),
    /// It is refused.
    Refused(Error),
}

impl Record {
    pub(super) fn breaks(&self) -> u32 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.failure.breaks)
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.breaks() >= BREAKS
    }

    /// The session is lost, by a crash of a request or of the load.
    pub(super) fn broke(&mut self, error: &Error, now: Duration) {
        let breaks = self.breaks().saturating_add(1);
        self.trouble = Some(Trouble { failure: Failure::of(error, breaks), tries: 0, since: now });
    }

    /// A load failed.
    pub(super) fn failed(&mut self, error: &Error, now: Duration) {
        let before = self.trouble.as_ref().map_or(0, |trouble| trouble.tries);
        // Memory comes and goes: the next request may find some.
        let tries = if error.code() == "out-of-memory" { 0 } else { before.saturating_add(1) };
        self.trouble = Some(Trouble { failure: Failure::of(error, 0), tries, since: now });
    }

    /// It was loaded. Breaks count until a request goes well.
    pub(super) fn loaded(&mut self, took: Duration, held: Bytes) {
        (self.loads, self.took, self.held) = (self.loads + 1, took, held);
        self.came();
    }

    /// It was woken.
    pub(super) fn woken(&mut self, took: Duration) {
        (self.wakes, self.woke) = (self.wakes + 1, took);
        self.came();
    }

    fn came(&mut self) {
        if self.breaks() == 0 {
            self.trouble = None;
        }
    }

    /// What keeps it from being loaded now.
    pub(super) fn rest(&self, id: &str, now: Duration) -> Option<Rest> {
        let trouble = self.trouble.as_ref()?;
        if self.is_quarantined() {
            return Some(Rest::Refused(quarantined(id)));
        }
        let rest = match (trouble.failure.breaks, trouble.tries) {
            (0, tries @ 2..) => BACK_OFF.saturating_mul(1 << (tries - 2).min(16)).min(MOST_BACK_OFF),
            (2.., _) => REST,
            _ => return None,
        };
        let until = trouble.since.saturating_add(rest);
        let left = until.checked_sub(now).filter(|left| !left.is_zero())?;
        if trouble.failure.breaks > 0 {
            return Some(Rest::Until(until));
        }
        let Failure { code, message, .. } = &trouble.failure;
        let help =
            format!("it failed {} times in a row and is tried again in {} s", trouble.tries, seconds(left));
        Some(Rest::Refused(
            Error::new(code, message).help(help).retry_after(Duration::from_secs(seconds(left))),
        ))
    }

    /// What came back from a session that had taken so much. Tells the device where much less did, for the second time in
    /// a row.
    pub(super) fn came_back(&mut self, took: &Bytes, back: &Bytes) -> Option<(String, u64, u64)> {
        let of = |device: &String| back.get(device).copied().unwrap_or(0);
        let is_short = |took: u64, back: u64| back < took / 2 && took - back >= LEAK;
        let short = took.iter().find(|(device, took)| is_short(**took, of(device)));
        let Some((device, took)) = short else {
            self.short = 0;
            return None;
        };
        self.short = self.short.saturating_add(1);
        if self.short < 2 {
            return None;
        }
        self.leaks += 1;
        Some((device.clone(), *took, of(device)))
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// Whether an error means that the session is of no use any more.
pub fn is_lost(error: &Error) -> bool {
    matches!(error.code(), "panicked" | "session-poisoned" | "worker-crashed" | "worker-hung")
}

fn quarantined(id: &str) -> Error {
    Error::new(
        "model-quarantined",
        format!("model `{id}` panicked or crashed {BREAKS} times in a row and is not loaded again"),
    )
    .help("see the log for why; `POST /admin/models/ID/load` tries again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_wait_after_failures_doubles_and_is_bounded() {
        let mut record = Record::default();
        let error = Error::new("model-invalid", "model `m`: it is damaged");
        let mut waits = Vec::new();
        for _ in 0..10 {
            record.failed(&error, SECOND);
            waits.push(match record.rest("m", SECOND) {
                None => 0,
                Some(Rest::Refused(refused)) => {
                    assert_eq!((refused.code(), refused.message()), (error.code(), error.message()));
                    refused.wait().unwrap().as_secs()
                }
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(record.rest("m", SECOND * 61), None);
        record.loaded(SECOND, Bytes::new());
        assert_eq!(record.rest("m", SECOND), None);
    }

    #[test]
    fn a_want_of_memory_is_no_reason_to_wait() {
        let mut record = Record::default();
        for _ in 0..5 {
            record.failed(&Error::new("out-of-memory", "none left"), SECOND);
            assert_eq!(record.rest("m", SECOND), None);
        }
    }

    #[test]
    fn crashes_rest_and_then_end_in_quarantine() {
        let mut record = Record::default();
        let crash = Error::new("worker-crashed", "killed");
        record.broke(&crash, SECOND);
        assert_eq!(record.rest("m", SECOND), None);
        record.loaded(SECOND, Bytes::new());
        record.broke(&crash, SECOND);
        assert_eq!(record.rest("m", SECOND), Some(Rest::Until(SECOND * 2)));
        assert_eq!(record.rest("m", SECOND * 2), None);
        record.broke(&crash, SECOND);
        let Some(Rest::Refused(refused)) = record.rest("m", SECOND * 9999) else { panic!("it is loaded") };
        assert_eq!(refused.code(), "model-quarantined");
    }

    #[test]
    fn a_leak_is_what_stays_away_twice_in_a_row() {
        let mut record = Record::default();
        let mib = |n: u64| Bytes::from([("cpu".to_owned(), n << 20)]);
        assert_eq!(record.came_back(&mib(100), &mib(10)), None);
        assert_eq!(record.came_back(&mib(100), &mib(60)), None, "half and more is well");
        assert_eq!(record.came_back(&mib(100), &mib(10)), None);
        assert_eq!(record.came_back(&mib(100), &mib(10)), Some(("cpu".to_owned(), 100 << 20, 10 << 20)));
        assert_eq!(record.came_back(&mib(10), &mib(0)), None, "so little is the allocator's own");
        assert_eq!(record.leaks, 1);
    }
}
