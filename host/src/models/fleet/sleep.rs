//! Sleeping: what a session holds beside its weights is given back while others need the room, and taken again when the
//! model is asked for. Asleep it is put in the line for memory like a load, and waking takes a moment where a load takes
//! seconds.

use std::time::Duration;

use super::record::is_lost;
use super::session::Phase;
use super::{Bytes, Effect, Fleet};
use crate::error::Error;

impl Fleet {
    pub(super) fn can_sleep(&mut self, session: u64, bytes: Bytes) {
        if let Some(loading) = self.sessions.get_mut(&session).filter(|s| s.phase == Phase::Loading) {
            loading.asleep = Some(bytes);
        }
    }

    /// Puts an idle session to sleep.
    pub(super) fn doze(&mut self, session: u64) {
        let awake = self.whole(session);
        let Some(idle) = self.sessions.get_mut(&session).filter(|s| s.is_idle()) else { return };
        (idle.phase, idle.turning) = (Phase::Dozing, true);
        idle.awake = awake;
        // What comes back when it is freed is less by then.
        idle.grew = None;
        self.touched.insert(idle.model.clone());
        self.effects.push(Effect::Sleep { session });
        self.disturb(session);
    }

    /// A session that sleeps is asked for: it takes its place in the line.
    pub(super) fn call(&mut self, session: u64) {
        let since = self.now;
        let Some(asleep) = self.sessions.get_mut(&session).filter(|s| s.phase == Phase::Asleep) else {
            return;
        };
        if let Some(first) = asleep.waiters.first() {
            (asleep.phase, asleep.place) = (Phase::Called { since }, *first);
        }
    }

    /// Nobody asks for it any more, or it cannot wake as things are: it sleeps on.
    pub(super) fn hush(&mut self, session: u64) {
        if let Some(called) = self.sessions.get_mut(&session).filter(|s| s.is_called()) {
            called.phase = Phase::Asleep;
        }
    }

    pub(super) fn wake(&mut self, session: u64) {
        let Some(called) = self.sessions.get_mut(&session) else { return };
        (called.phase, called.turning) = (Phase::Waking, true);
        self.ledger.hold(session, called.awake.clone());
        self.effects.push(Effect::Wake { session });
        self.disturb(session);
    }

    pub(super) fn slept(&mut self, session: u64, bytes: Bytes) {
        if self.turned(session, &Phase::Dozing, Phase::Asleep) {
            self.ledger.hold(session, bytes);
            self.call(session);
        }
    }

    pub(super) fn restless(&mut self, session: u64) {
        if !self.turned(session, &Phase::Dozing, Phase::Ready) {
            return;
        }
        let Some(awake) = self.sessions.get_mut(&session) else { return };
        awake.restless = true;
        for ticket in std::mem::take(&mut awake.waiters) {
            self.grant(ticket, session);
        }
    }

    pub(super) fn woken(&mut self, session: u64, bytes: Bytes, took: Duration) {
        if !self.turned(session, &Phase::Waking, Phase::Ready) {
            return;
        }
        let now = self.now;
        let Some(ready) = self.sessions.get_mut(&session) else { return };
        (ready.wake, ready.used) = (Some(took), now);
        if let Some(slots) = &mut ready.slots {
            slots.now = slots.full;
        }
        let waiters = std::mem::take(&mut ready.waiters);
        self.records.entry(ready.model.clone()).or_default().woken(took);
        self.ledger.hold(session, bytes);
        for ticket in waiters {
            self.grant(ticket, session);
        }
        // It may hold more than before.
        self.shrink();
    }

    /// Its backend could not put it to sleep, wake it or change its slots: what it is in now nobody knows, and who waits for it has it
    /// loaded anew.
    pub(super) fn not_turned(&mut self, session: u64, error: &Error) {
        let Some(lost) = self.sessions.get_mut(&session) else { return };
        lost.turning = false;
        if lost.phase == Phase::Retired {
            return self.free(session);
        }
        if is_lost(error) {
            self.records.entry(lost.model.clone()).or_default().broke(error, self.now);
        }
        self.retire(session);
    }

    /// Its backend is done, and it goes on to the next phase; one that nobody wants any more is freed. Says whether it
    /// goes on.
    fn turned(&mut self, session: u64, from: &Phase, to: Phase) -> bool {
        let Some(turned) = self.sessions.get_mut(&session).filter(|s| s.turning) else { return false };
        if turned.phase == Phase::Retired {
            turned.turning = false;
            self.free(session);
            return false;
        }
        if turned.phase != *from {
            return false;
        }
        (turned.phase, turned.turning) = (to, false);
        self.touched.insert(turned.model.clone());
        true
    }
}
