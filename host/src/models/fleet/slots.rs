//! Fewer slots: a session in use gives back the room of requests that it does not work at, while others need it, and takes it again
//! when it is free. Its requests go on; what it had in its caches is computed again, as after a sleep.

use super::ledger::more;
use super::session::{Session, Slots};
use super::{Bytes, Effect, Fleet};

impl Slots {
    /// What so many slots hold.
    fn of(&self, slots: u32) -> Bytes {
        let times = |(device, each): (&String, &u64)| (device.clone(), each.saturating_mul(u64::from(slots)));
        self.each.iter().map(times).collect()
    }

    /// What is missing to all of them.
    pub(super) fn given(&self) -> Bytes {
        self.of(self.full - self.now)
    }

    /// What comes back by what its backend does now.
    pub(super) fn coming(&self) -> Bytes {
        self.of(self.to.map_or(0, |to| self.now.saturating_sub(to)))
    }
}

impl Session {
    /// What comes back when it goes on with as many slots as it has requests; `None` when nothing does.
    pub(super) fn surplus(&self) -> Option<Bytes> {
        let slots = self.slots.as_ref().filter(|_| self.is_ready() && !self.turning && self.in_flight > 0)?;
        let unused = slots.now.checked_sub(self.requests()).filter(|unused| *unused > 0 && !slots.stiff)?;
        Some(slots.of(unused))
    }

    /// It has other requests than before.
    pub(super) fn stirs(&mut self) {
        self.restless = false;
        if let Some(slots) = &mut self.slots {
            slots.stiff = false;
        }
    }

    fn requests(&self) -> u32 {
        u32::try_from(self.in_flight).unwrap_or(u32::MAX)
    }
}

impl Fleet {
    pub(super) fn can_resize(&mut self, session: u64, slots: u32, each: Bytes) {
        if let Some(loading) = self.sessions.get_mut(&session) {
            loading.slots = Some(Slots { full: slots, now: slots, to: None, stiff: false, each });
        }
    }

    /// Has a session in use go on with no more slots than it has requests.
    pub(super) fn narrow(&mut self, session: u64) {
        let Some(busy) = self.sessions.get_mut(&session).filter(|s| s.surplus().is_some()) else { return };
        let requests = busy.requests();
        self.resize(session, requests);
        if let Some(busy) = self.sessions.get_mut(&session) {
            // What comes back when it is freed is less by then.
            busy.grew = None;
        }
    }

    /// Gives sessions their slots back that have more requests than slots, or none, when nobody waits for the memory.
    pub(super) fn widen(&mut self) {
        let wants = |s: &Session| {
            let slots =
                s.slots.as_ref().filter(|slots| slots.now < slots.full && s.is_ready() && !s.turning)?;
            (s.in_flight == 0 || s.requests() > slots.now).then(|| (slots.full, slots.given()))
        };
        let narrow: Vec<_> =
            self.sessions.iter().filter_map(|(id, session)| Some((*id, wants(session)?))).collect();
        // Looked at last: after nearly every event there is none.
        if narrow.is_empty() || self.sessions.values().any(Session::is_in_line) {
            return;
        }
        for (session, (full, given)) in narrow {
            if self.ledger.missing(&given).is_empty() {
                let held = self.ledger.holding(session).cloned().unwrap_or_default();
                self.ledger.hold(session, more(&held, &given));
                self.resize(session, full);
            }
        }
    }

    fn resize(&mut self, session: u64, to: u32) {
        let Some(resized) = self.sessions.get_mut(&session) else { return };
        let Some(slots) = &mut resized.slots else { return };
        (slots.to, resized.turning) = (Some(to), true);
        self.effects.push(Effect::Resize { session, slots: to });
        self.disturb(session);
    }

    pub(super) fn resized(&mut self, session: u64, now: u32, bytes: Bytes) {
        let Some(resized) = self.sessions.get_mut(&session).filter(|s| s.is_resized()) else {
            return;
        };
        resized.turning = false;
        if let Some(slots) = &mut resized.slots {
            // One that works at more than is known here is not asked again before something is different.
            slots.stiff = slots.to.take().is_some_and(|to| now != to);
            slots.now = now.min(slots.full);
        }
        let leaves = !resized.is_ready();
        self.ledger.hold(session, bytes);
        if leaves {
            self.free(session);
        }
    }

    /// What a session holds with all of its slots.
    pub(super) fn whole(&self, session: u64) -> Bytes {
        let held = self.ledger.holding(session).cloned().unwrap_or_default();
        let slots = self.sessions.get(&session).and_then(|s| s.slots.as_ref());
        slots.map_or_else(|| held.clone(), |slots| more(&held, &slots.given()))
    }
}
