//! A session: from the first request for it until its memory is free again.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{Bytes, Keep};

/// Where a session is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// What it needs is being found out.
    Sizing,
    /// It waits for its memory.
    Queued {
        /// What it needs.
        needs: Bytes,
        /// Since when it waits.
        since: Duration,
        /// Sessions whose memory has to be free first, whatever the ledger says.
        after: BTreeSet<u64>,
    },
    /// It has its memory, and is being loaded.
    Loading,
    /// Requests can use it.
    Ready,
    /// It falls asleep.
    Dozing,
    /// It holds its weights, and none of what a request needs beside them.
    Asleep,
    /// It sleeps, and waits for the memory that it needs awake.
    Called {
        /// Since when it waits.
        since: Duration,
    },
    /// It has that memory, and wakes up.
    Waking,
    /// The requests that use it are its last.
    Retired,
    /// It is being freed.
    Unloading,
}

/// At how many requests a session works at the same time.
#[derive(Debug)]
pub(super) struct Slots {
    /// As it was loaded.
    pub(super) full: u32,
    /// At this moment.
    pub(super) now: u32,
    /// As many as its backend makes of it now.
    pub(super) to: Option<u32>,
    /// It would not give back as many as were asked for.
    pub(super) stiff: bool,
    /// What each of them holds.
    pub(super) each: Bytes,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) model: String,
    pub(super) phase: Phase,
    /// Who waits for it to be loaded, by ticket.
    pub(super) waiters: BTreeSet<u64>,
    /// The ticket that it was begun for: its place in the line for memory.
    pub(super) place: u64,
    /// Nobody wants it loaded any more: its end will be told.
    pub(super) stopped: bool,
    /// Loading it failed for want of memory, and is tried once more.
    pub(super) again: bool,
    /// Others wait for its memory: no new request gets it.
    pub(super) closing: bool,
    /// Requests that use it.
    pub(super) in_flight: usize,
    /// When its load was begun.
    pub(super) begun: Duration,
    /// When a request last began or ended to.
    pub(super) used: Duration,
    /// How long loading it took.
    pub(super) cost: Duration,
    /// What it would hold asleep, where it can sleep.
    pub(super) asleep: Option<Bytes>,
    /// What it held when it fell asleep, and will hold again.
    pub(super) awake: Bytes,
    /// How long waking it took, once it has slept.
    pub(super) wake: Option<Duration>,
    /// It would not sleep, and is not asked to again before a request used it.
    pub(super) restless: bool,
    /// Its slots, where their number can be changed.
    pub(super) slots: Option<Slots>,
    /// Its backend puts it to sleep, wakes it or changes its slots at this moment: it cannot be freed.
    pub(super) turning: bool,
    /// What the latest request that had a wish wishes.
    pub(super) keep: Option<Keep>,
    /// What it was measured to take when it was loaded, where nothing else was loaded or freed meanwhile.
    pub(super) grew: Option<Bytes>,
    /// Whether something else was.
    pub(super) disturbed: bool,
}

impl Session {
    pub(super) fn new(model: String, place: u64, now: Duration) -> Self {
        Self {
            model,
            phase: Phase::Sizing,
            waiters: BTreeSet::from([place]),
            place,
            stopped: false,
            again: false,
            closing: false,
            in_flight: 0,
            begun: now,
            used: now,
            cost: Duration::ZERO,
            asleep: None,
            awake: Bytes::new(),
            wake: None,
            restless: false,
            slots: None,
            turning: false,
            keep: None,
            grew: None,
            disturbed: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// In memory, and no request uses it.
    pub(super) fn is_idle(&self) -> bool {
        self.is_ready() && self.in_flight == 0 && !self.turning
    }

    /// Whether its backend changes its slots.
    pub(super) fn is_resized(&self) -> bool {
        self.turning && self.slots.as_ref().is_some_and(|slots| slots.to.is_some())
    }

    /// Whether it waits for memory, or will in a moment.
    pub(super) fn is_in_line(&self) -> bool {
        matches!(self.phase, Phase::Sizing | Phase::Queued { .. } | Phase::Called { .. })
    }

    /// Asleep or on the way there or back: its weights are in memory, and no request can use it.
    pub(super) fn sleeps(&self) -> bool {
        matches!(self.phase, Phase::Dozing | Phase::Asleep | Phase::Called { .. } | Phase::Waking)
    }

    /// Whether it sleeps and waits for memory.
    pub(super) fn is_called(&self) -> bool {
        matches!(self.phase, Phase::Called { .. })
    }

    /// In memory, and new requests get it, at once or when it is awake.
    pub(super) fn is_kept(&self) -> bool {
        self.is_ready() || self.sleeps()
    }

    /// In memory, and nobody uses it or waits for it.
    pub(super) fn is_spare(&self) -> bool {
        self.is_idle() || self.phase == Phase::Asleep
    }

    /// Whether memory moves for it now, so that what is measured meanwhile is not another's alone.
    pub(super) fn moves(&self) -> bool {
        self.turning || matches!(self.phase, Phase::Loading | Phase::Unloading)
    }

    /// When it goes for want of requests, if its model has that `ttl`.
    pub(super) fn due(&self, ttl: Option<Duration>) -> Option<Duration> {
        let stays = match self.keep {
            Some(Keep::Always) => None,
            Some(Keep::For(time)) => Some(time),
            None => ttl,
        };
        stays.filter(|_| self.is_spare()).map(|time| self.used.saturating_add(time))
    }
}
