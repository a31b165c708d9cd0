//! The line for memory: who is loaded next, and who gives way for that.
//!
//! First come, first served, on each device. A load that finds room takes it; otherwise idle sessions give way, as few and
//! as cheap ones as will do; otherwise it waits for requests to end. While it waits, sessions in memory go on serving who
//! comes, but only for a while: then those that have to make room take no new request, so that a large model that
//! needs the memory of several small ones has its turn, too.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evict::{Candidate, choose};
use super::record::Rest;
use super::session::{Phase, Session};
use super::{Bytes, Effect, Fleet};
use crate::error::Error;

/// How long requests for sessions in memory still go first when another model waits for their room. Shorter makes models
/// take turns more often, and each turn is a load.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of a load that waits.
enum Room {
    /// There is room.
    Now,
    /// There will be.
    Later,
    /// There cannot be.
    Never(Error),
}

impl Fleet {
    /// Goes through the line.
    pub(super) fn admit(&mut self) {
        let mut line: Vec<(u64, u64)> = self
            .sessions
            .iter()
            .filter(|(_, session)| matches!(session.phase, Phase::Queued { .. }))
            .map(|(id, session)| (session.place, *id))
            .collect();
        line.sort_unstable();
        let mut closing = BTreeSet::new();
        // Devices that somebody further ahead waits for.
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for (_, session) in line {
            let Some(Phase::Queued { needs, since, after }) =
                self.sessions.get(&session).map(|s| s.phase.clone())
            else {
                continue;
            };
            let behind = needs.keys().any(|device| taken.contains(device));
            let waits = after.iter().any(|id| self.sessions.contains_key(id));
            match self.room(session, &needs, since, behind || waits, &mut closing) {
                Room::Now => self.load(session, needs),
                Room::Never(error) => self.give_up(session, &error),
                Room::Later => {
                    taken.extend(needs.into_keys().filter(|device| self.ledger.is_limited(device)))
                }
            }
        }
        for (id, session) in &mut self.sessions {
            session.closing = closing.contains(id);
        }
    }

    fn load(&mut self, session: u64, bytes: Bytes) {
        if let Some(admitted) = self.sessions.get_mut(&session) {
            (admitted.phase, admitted.begun) = (Phase::Loading, self.now);
            self.ledger.hold(session, bytes);
            self.effects.push(Effect::Load { session });
            self.disturb(session);
        }
    }

    fn room(
        &mut self,
        session: u64,
        needs: &Bytes,
        since: Duration,
        waits: bool,
        closing: &mut BTreeSet<u64>,
    ) -> Room {
        let model = self.sessions.get(&session).map_or("", |session| &session.model);
        if let Some(error) = self.ledger.refusal(model, needs, &self.fixed()) {
            return Room::Never(error);
        }
        if waits {
            return Room::Later;
        }
        let mut missing = self.ledger.missing(needs);
        if missing.is_empty() {
            return Room::Now;
        }
        self.less_leaving(&mut missing);
        if let Some(enough) = choose(&missing, &self.candidates(Session::is_idle)) {
            enough.into_iter().for_each(|id| self.retire(id));
        } else if self.now >= since.saturating_add(PATIENCE)
            && let Some(enough) = choose(&missing, &self.candidates(Session::is_ready))
        {
            let shut = |id: &u64| self.sessions.get(id).is_some_and(|s| s.in_flight > 0 || s.closing);
            closing.extend(enough.into_iter().filter(shut));
        }
        Room::Later
    }

    /// What is on its way out will be free without anybody else giving way.
    fn less_leaving(&self, needs: &mut Bytes) {
        let leaves = |session: &Session| matches!(session.phase, Phase::Retired | Phase::Unloading);
        for (id, _) in self.sessions.iter().filter(|(_, session)| leaves(session)) {
            for (device, bytes) in self.ledger.holding(*id).into_iter().flatten() {
                if let Some(need) = needs.get_mut(device) {
                    *need = need.saturating_sub(*bytes);
                }
            }
        }
    }

    /// Sessions that may give way, of those that are `so`.
    fn candidates(&self, so: impl Fn(&Session) -> bool) -> Vec<Candidate> {
        let candidate = |(id, session): (&u64, &Session)| Candidate {
            session: *id,
            bytes: self.ledger.holding(*id).cloned().unwrap_or_default(),
            idle: if session.in_flight > 0 { Duration::ZERO } else { self.now.saturating_sub(session.used) },
            cost: session.cost,
            leaving: session.closing,
        };
        self.sessions
            .iter()
            .filter(|(_, session)| so(session) && !self.is_pinned(&session.model))
            .map(candidate)
            .collect()
    }

    /// What is held by sessions that do not give way.
    fn fixed(&self) -> Bytes {
        let mut fixed = Bytes::new();
        for (id, session) in self.sessions.iter().filter(|(_, session)| session.is_ready()) {
            if self.is_pinned(&session.model) {
                for (device, bytes) in self.ledger.holding(*id).into_iter().flatten() {
                    let held = fixed.entry(device.clone()).or_default();
                    *held = bytes.saturating_add(*held);
                }
            }
        }
        fixed
    }

    /// Lets idle sessions go until every device is within its limit, as far as they are enough.
    pub(super) fn shrink(&mut self) {
        let mut excess = self.ledger.excess();
        self.less_leaving(&mut excess);
        excess.retain(|_, over| *over > 0);
        let idle = self.candidates(Session::is_idle);
        let all = || {
            let holds = |one: &&Candidate| one.bytes.keys().any(|device| excess.contains_key(device));
            idle.iter().filter(holds).map(|one| one.session).collect()
        };
        let gone: Vec<u64> = choose(&excess, &idle).unwrap_or_else(all);
        gone.into_iter().for_each(|session| self.retire(session));
    }

    /// A device has less room than the ledger says: the idle sessions there go, and then the load is tried once more. Says
    /// whether there were any.
    pub(super) fn make_room(&mut self, session: u64) -> bool {
        let Some(needs) = self.ledger.holding(session).cloned() else { return false };
        let holds = |one: &Candidate| one.bytes.keys().any(|device| needs.contains_key(device));
        let idle: Vec<u64> =
            self.candidates(Session::is_idle).into_iter().filter(holds).map(|one| one.session).collect();
        if idle.is_empty() {
            return false;
        }
        self.ledger.release(session);
        let now = self.now;
        if let Some(short) = self.sessions.get_mut(&session) {
            short.again = true;
            short.phase = Phase::Queued { needs, since: now, after: idle.iter().copied().collect() };
        }
        idle.into_iter().for_each(|id| self.retire(id));
        true
    }

    /// A device's own refusal, with what the ledger knows of it.
    pub(super) fn with_numbers(&self, session: u64, error: Error) -> Error {
        let fixed = self.fixed();
        let words =
            self.sessions.get(&session).zip(self.ledger.holding(session)).and_then(|(lost, needs)| {
                let device = needs.keys().max_by_key(|device| needs.get(*device))?;
                Some(self.ledger.numbers(&lost.model, device, needs, &fixed))
            });
        match words {
            Some(words) => Error::new("out-of-memory", format!("{}; {words}", error.message())).help(
                "the device has less room than its size says: lower `memory.limit`, or free what others hold",
            ),
            None => error,
        }
    }

    /// When something happens by itself: [`Event::Tick`](super::Event::Tick) is due then.
    pub fn next(&self) -> Option<Duration> {
        let patience = |session: &Session| match session.phase {
            Phase::Queued { since, .. } => Some(since.saturating_add(PATIENCE)).filter(|due| *due > self.now),
            _ => None,
        };
        let rests =
            self.parked.keys().filter_map(|model| match self.records.get(model)?.rest(model, self.now)? {
                Rest::Until(until) => Some(until),
                Rest::Refused(_) => None,
            });
        let sessions =
            self.sessions.values().flat_map(|session| [self.due(session), patience(session)]).flatten();
        sessions.chain(rests).min()
    }
}
