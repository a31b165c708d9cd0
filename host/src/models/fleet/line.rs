//! The line for memory: who is loaded next, and who gives way for that.
//!
//! First come, first served, on each device, loads and sessions that are to wake alike. Who finds room takes it; otherwise
//! idle sessions give way, by falling asleep or by going, and those in use by giving up slots, as few and as cheap ones as will do;
//! otherwise it waits for requests to end. While it waits, sessions in memory go on serving who
//! comes, but only for a while: then those that have to make room take no new request, so that a large model that
//! needs the memory of several small ones has its turn, too.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evict::{Candidate, Way, choose};
use super::ledger::less;
use super::record::Rest;
use super::session::{Phase, Session, Slots};
use super::{Bytes, Effect, Fleet};
use crate::error::Error;

/// How long requests for sessions in memory still go first when another model waits for their room. Shorter makes models
/// take turns more often, and each turn is a load.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What waking is guessed to take of the time of a load, until it was timed.
const WAKE_SHARE: u32 = 10;
/// What computing the beginnings again is guessed to take that a session has in its caches: they are lost when it goes, and
/// when it falls asleep.
const CACHES: Duration = Duration::from_millis(50);

/// Who waits in the line, for what.
struct Wish {
    /// What it needs beyond what it holds.
    needs: Bytes,
    /// What it would hold then.
    whole: Bytes,
    since: Duration,
    place: u64,
    /// Whether others have to be gone first, whatever the ledger says.
    waits: bool,
}

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
            .filter(|(_, session)| matches!(session.phase, Phase::Queued { .. } | Phase::Called { .. }))
            .map(|(id, session)| (session.place, *id))
            .collect();
        line.sort_unstable();
        let mut closing = BTreeSet::new();
        // Devices that somebody further ahead waits for.
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for (_, session) in line {
            let Some(mut wish) = self.wish(session) else { continue };
            wish.waits |= wish.needs.keys().any(|device| taken.contains(device));
            match self.room(session, &wish, &mut closing) {
                Room::Now if self.sessions.get(&session).is_some_and(Session::is_called) => {
                    self.wake(session)
                }
                Room::Now => self.load(session, wish.needs),
                Room::Never(error) => self.give_up(session, &error),
                Room::Later => {
                    taken.extend(wish.needs.into_keys().filter(|device| self.ledger.is_limited(device)))
                }
            }
        }
        for (id, session) in &mut self.sessions {
            session.closing = closing.contains(id);
        }
    }

    /// What a session in the line waits for; `None` when it is there no more.
    fn wish(&self, session: u64) -> Option<Wish> {
        let waiting = self.sessions.get(&session)?;
        let place = waiting.place;
        match &waiting.phase {
            Phase::Queued { needs, since, after } => {
                let waits = after.iter().any(|id| self.sessions.contains_key(id));
                Some(Wish { needs: needs.clone(), whole: needs.clone(), since: *since, place, waits })
            }
            Phase::Called { since } => {
                let whole = waiting.awake.clone();
                let needs = less(&whole, self.ledger.holding(session)?);
                Some(Wish { needs, whole, since: *since, place, waits: false })
            }
            _ => None,
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

    fn room(&mut self, session: u64, wish: &Wish, closing: &mut BTreeSet<u64>) -> Room {
        let model = self.sessions.get(&session).map_or("", |session| &session.model);
        if let Some(error) = self.ledger.refusal(model, &wish.whole, &self.fixed(session)) {
            return Room::Never(error);
        }
        if wish.waits {
            return Room::Later;
        }
        let mut missing = self.ledger.missing(&wish.needs);
        if missing.is_empty() {
            return Room::Now;
        }
        self.less_leaving(&mut missing);
        // Two that sleep, and wait to wake, would wait for each other: the one further ahead has the other's weights.
        let spare = |s: &Session| s.is_spare() || (s.is_called() && s.place > wish.place);
        if let Some(enough) = choose(&missing, &self.soft(spare)) {
            enough.into_iter().for_each(|(id, way)| self.give_way(id, way));
        } else if self.now >= wish.since.saturating_add(PATIENCE)
            && let Some(enough) = choose(&missing, &self.candidates(|s| s.is_ready() || spare(s)))
        {
            let shut = |id: &u64| self.sessions.get(id).is_some_and(|s| s.in_flight > 0 || s.closing);
            closing.extend(enough.into_iter().map(|(id, _)| id).filter(shut));
        }
        Room::Later
    }

    fn give_way(&mut self, session: u64, way: Way) {
        match way {
            Way::Narrow => self.narrow(session),
            Way::Sleep => self.doze(session),
            Way::Go => self.retire(session),
        }
    }

    /// What is on its way out will be free without anybody else giving way.
    fn less_leaving(&self, needs: &mut Bytes) {
        for (id, session) in &self.sessions {
            let Some(held) = self.ledger.holding(*id) else { continue };
            let leaves = match session.phase {
                Phase::Retired | Phase::Unloading => held.clone(),
                Phase::Ready if session.turning => {
                    session.slots.as_ref().map_or_else(Bytes::new, Slots::coming)
                }
                Phase::Dozing => session.asleep.as_ref().map_or_else(Bytes::new, |asleep| less(held, asleep)),
                _ => continue,
            };
            for (device, bytes) in leaves {
                if let Some(need) = needs.get_mut(&device) {
                    *need = need.saturating_sub(bytes);
                }
            }
        }
    }

    /// Sessions that may give way, of those that are `so`: each by going, and by falling asleep where it can.
    fn candidates(&self, so: impl Fn(&Session) -> bool) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (id, session) in self.sessions.iter().filter(|(_, s)| so(s) && !self.is_pinned(&s.model)) {
            let wanted = session.in_flight > 0 || !session.waiters.is_empty();
            let bytes = self.ledger.holding(*id).cloned().unwrap_or_default();
            let caches = if session.is_ready() && session.asleep.is_some() { CACHES } else { Duration::ZERO };
            let goes = Candidate {
                session: *id,
                way: Way::Go,
                bytes,
                idle: if wanted { Duration::ZERO } else { self.now.saturating_sub(session.used) },
                cost: session.cost.saturating_add(caches),
                leaving: session.closing,
            };
            if let Some(asleep) = session.asleep.as_ref().filter(|_| session.is_ready() && !session.restless)
            {
                let wake = session.wake.unwrap_or(session.cost / WAKE_SHARE).min(session.cost);
                let (bytes, cost) = (less(&goes.bytes, asleep), wake.saturating_add(caches));
                candidates.push(Candidate { way: Way::Sleep, bytes, cost, ..goes.clone() });
            }
            candidates.push(goes);
        }
        candidates
    }

    /// Sessions that may give way, of those that are `so`, and those in use by giving up slots.
    fn soft(&self, so: impl Fn(&Session) -> bool) -> Vec<Candidate> {
        let mut soft = self.candidates(so);
        soft.extend(self.narrowing());
        soft
    }

    /// Sessions in use that may go on with fewer slots.
    fn narrowing(&self) -> impl Iterator<Item = Candidate> {
        let may = self.sessions.iter().filter(|(_, session)| !self.is_pinned(&session.model));
        let narrow = |(id, session): (&u64, &Session)| {
            Some(Candidate {
                session: *id,
                way: Way::Narrow,
                bytes: session.surplus()?,
                idle: Duration::ZERO,
                cost: (session.cost / WAKE_SHARE).saturating_add(CACHES),
                leaving: session.closing,
            })
        };
        may.filter_map(narrow)
    }

    /// What is held by sessions that do not give way, other than this one.
    fn fixed(&self, but: u64) -> Bytes {
        let mut fixed = Bytes::new();
        for (id, session) in self.sessions.iter().filter(|(id, session)| **id != but && session.is_kept()) {
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
        let soft = self.soft(Session::is_spare);
        let all = || going(&soft, &excess).map(|session| (session, Way::Go)).collect();
        let gone: Vec<(u64, Way)> = choose(&excess, &soft).unwrap_or_else(all);
        gone.into_iter().for_each(|(session, way)| self.give_way(session, way));
    }

    /// A device has less room than the ledger says: the idle sessions there go, and then the load is tried once more. Says
    /// whether there were any.
    pub(super) fn make_room(&mut self, session: u64) -> bool {
        let Some(needs) = self.ledger.holding(session).cloned() else { return false };
        let idle: Vec<u64> = going(&self.candidates(Session::is_spare), &needs).collect();
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
        let fixed = self.fixed(session);
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
            Phase::Queued { since, .. } | Phase::Called { since } => {
                Some(since.saturating_add(PATIENCE)).filter(|due| *due > self.now)
            }
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

/// The sessions that hold something on these devices and may go.
fn going<'c>(candidates: &'c [Candidate], devices: &'c Bytes) -> impl Iterator<Item = u64> + 'c {
    let holds = |one: &&Candidate| one.bytes.keys().any(|device| devices.contains_key(device));
    candidates.iter().filter(|one| one.way == Way::Go).filter(holds).map(|one| one.session)
}
