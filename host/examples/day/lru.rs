//! The baseline: whoever was not used for longest gives way. All else is as the host's fleet does it: first come, first
//! served for memory; who waits is not refused; what is in use is never freed; and when the models in memory would be used
//! for ever, those that have to go take no new request after the same patience.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pajamas::error::Error;
use pajamas::models::State;
use pajamas::models::fleet::{Effect, Event};

use crate::keeper::Keeper;

/// As the fleet's.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is in memory, who waits, and who was used when.
#[derive(Debug, Default)]
pub struct Lru {
    budget: u64,
    now: Duration,
    latest: u64,
    sessions: BTreeMap<u64, Session>,
    /// Those for whom there is no session: by ticket, the model.
    parked: BTreeMap<u64, String>,
    loads: BTreeMap<String, (u64, Duration)>,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Session {
    model: String,
    phase: Phase,
    bytes: u64,
    waiters: BTreeSet<u64>,
    in_flight: usize,
    used: Duration,
    /// Others wait for its memory: no new request gets it.
    closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sizing,
    /// Since when it waits for memory.
    Queued(Duration),
    Loading,
    Stopped,
    Ready,
    Freeing,
}

impl Phase {
    fn holds(self) -> bool {
        matches!(self, Self::Loading | Self::Stopped | Self::Ready | Self::Freeing)
    }
}

impl Lru {
    /// Nothing in so many bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, ..Self::default() }
    }

    /// The session that requests for a model get or wait for.
    fn current(&mut self, model: &str) -> Option<(u64, &mut Session)> {
        let takes = |session: &Session| !matches!(session.phase, Phase::Stopped | Phase::Freeing);
        let mut sessions = self.sessions.iter_mut().map(|(id, session)| (*id, session));
        sessions.find(|(_, session)| session.model == model && takes(session))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Asked { ticket, model, .. } => {
                self.parked.insert(ticket, model);
            }
            Event::Cancelled { ticket } => self.cancel(ticket),
            Event::Estimated { session, bytes } => {
                let now = self.now;
                if let Some(sized) = self.sessions.get_mut(&session) {
                    sized.phase = Phase::Queued(now);
                    sized.bytes = bytes.values().sum();
                }
            }
            Event::Loaded { session, took, .. } => self.loaded(session, took),
            // Only loads that were stopped fail here.
            Event::Failed { session, .. } | Event::Unloaded { session, .. } => {
                self.sessions.remove(&session);
            }
            Event::Left { session } => {
                if let Some(used) = self.sessions.get_mut(&session) {
                    used.in_flight -= 1;
                    used.used = self.now;
                }
            }
            _ => {}
        }
    }

    fn loaded(&mut self, session: u64, took: Duration) {
        let Some(ready) = self.sessions.get_mut(&session) else { return };
        (ready.phase, ready.used) = (Phase::Ready, self.now);
        let loads = self.loads.entry(ready.model.clone()).or_default();
        *loads = (loads.0 + 1, took);
        for ticket in std::mem::take(&mut ready.waiters) {
            ready.in_flight += 1;
            self.effects.push(Effect::Grant { ticket, session });
        }
    }

    fn cancel(&mut self, ticket: u64) {
        let error = Error::new("cancelled", "the request was cancelled");
        if self.parked.remove(&ticket).is_some() {
            return self.effects.push(Effect::Refuse { ticket, error });
        }
        let waits = self.sessions.iter_mut().find(|(_, session)| session.waiters.contains(&ticket));
        let Some((id, session)) = waits else { return };
        let id = *id;
        session.waiters.remove(&ticket);
        self.effects.push(Effect::Refuse { ticket, error });
        if session.waiters.is_empty() {
            self.effects.push(Effect::Stop { session: id });
            match session.phase {
                Phase::Loading => session.phase = Phase::Stopped,
                _ => {
                    self.sessions.remove(&id);
                }
            }
        }
    }

    /// Gives those without a session one that is ready, a place behind a load, or a new one.
    fn place(&mut self) {
        for (ticket, model) in std::mem::take(&mut self.parked) {
            let now = self.now;
            match self.current(&model) {
                Some((_, session)) if session.phase == Phase::Ready && session.closing => {
                    self.parked.insert(ticket, model);
                }
                Some((id, session)) if session.phase == Phase::Ready => {
                    session.in_flight += 1;
                    session.used = now;
                    self.effects.push(Effect::Grant { ticket, session: id });
                }
                Some((_, session)) => {
                    session.waiters.insert(ticket);
                }
                None => {
                    self.latest += 1;
                    let session = self.latest;
                    let new = Session {
                        model,
                        phase: Phase::Sizing,
                        bytes: 0,
                        waiters: BTreeSet::from([ticket]),
                        in_flight: 0,
                        used: now,
                        closing: false,
                    };
                    self.sessions.insert(session, new);
                    self.effects.push(Effect::Begin { session, ticket });
                }
            }
        }
    }

    /// Goes through the line for memory: who came first is first.
    fn admit(&mut self) {
        self.sessions.values_mut().for_each(|session| session.closing = false);
        let queued: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, s)| matches!(s.phase, Phase::Queued(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in queued {
            if !self.room(id) {
                break;
            }
        }
    }

    /// Begins a load if there is room, and otherwise sees to it that there will be.
    fn room(&mut self, id: u64) -> bool {
        let Some(Phase::Queued(since)) = self.sessions.get(&id).map(|session| session.phase) else {
            return true;
        };
        let needs = self.sessions[&id].bytes;
        let sum = |phase: fn(Phase) -> bool| -> u64 {
            self.sessions.values().filter(|session| phase(session.phase)).map(|session| session.bytes).sum()
        };
        let missing = (sum(Phase::holds) + needs).saturating_sub(self.budget);
        if missing == 0 {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.phase = Phase::Loading;
            }
            self.effects.push(Effect::Load { session: id });
            return true;
        }
        let missing = missing.saturating_sub(sum(|phase| phase == Phase::Freeing));
        if let Some(enough) = self.oldest(missing, |session| session.in_flight == 0) {
            for gone in enough {
                if let Some(session) = self.sessions.get_mut(&gone) {
                    session.phase = Phase::Freeing;
                }
                self.effects.push(Effect::Unload { session: gone });
            }
        } else if self.now >= since + PATIENCE {
            for gone in self.oldest(missing, |_| true).unwrap_or_default() {
                if let Some(session) = self.sessions.get_mut(&gone) {
                    session.closing = true;
                }
            }
        }
        false
    }

    /// Of the sessions that are `so` those that were not used for longest, until they are enough; without those that then
    /// turn out not to be needed, the latest used first.
    fn oldest(&self, missing: u64, so: impl Fn(&Session) -> bool) -> Option<Vec<u64>> {
        let ready = |session: &Session| session.phase == Phase::Ready && so(session);
        let mut all: Vec<(Duration, u64, u64)> = self
            .sessions
            .iter()
            .filter(|(_, session)| ready(session))
            // One in use is used now.
            .map(|(id, s)| (if s.in_flight > 0 { self.now } else { s.used }, *id, s.bytes))
            .collect();
        all.sort_unstable();
        let (mut freed, mut chosen) = (0, Vec::new());
        for one in all {
            if freed >= missing {
                break;
            }
            freed += one.2;
            chosen.push(one);
        }
        if freed < missing {
            return None;
        }
        let mut needed = Vec::new();
        for (_, id, bytes) in chosen.into_iter().rev() {
            if freed - bytes >= missing {
                freed -= bytes;
            } else {
                needed.push(id);
            }
        }
        Some(needed)
    }
}

impl Keeper for Lru {
    fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.take(event);
        // Who comes for a model in memory has it before others may have its room.
        self.place();
        self.admit();
        self.place();
        std::mem::take(&mut self.effects)
    }

    fn next(&self) -> Option<Duration> {
        let due = |session: &Session| match session.phase {
            Phase::Queued(since) => Some(since + PATIENCE).filter(|due| *due > self.now),
            _ => None,
        };
        self.sessions.values().filter_map(due).min()
    }

    fn state(&self, model: &str) -> State {
        let of = |session: &&Session| session.model == model;
        let takes = |session: &&Session| !matches!(session.phase, Phase::Stopped | Phase::Freeing);
        match self.sessions.values().filter(of).find(takes) {
            Some(session) if session.phase != Phase::Ready => State::Loading,
            Some(session) if session.in_flight > 0 => State::Busy,
            Some(_) => State::Ready,
            None if self.sessions.values().any(|session| of(&session)) => State::Unloading,
            None => State::Unloaded,
        }
    }

    fn held(&self) -> [u64; 2] {
        let sum = |so: &dyn Fn(&Session) -> bool| -> u64 {
            self.sessions.values().filter(|session| so(session)).map(|session| session.bytes).sum()
        };
        let idle = |session: &Session| session.phase == Phase::Ready && session.in_flight == 0;
        [sum(&|session| session.phase.holds()), sum(&idle)]
    }

    fn loads(&self, model: &str) -> Option<(u64, Duration)> {
        self.loads.get(model).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::bytes;

    const SECOND: Duration = Duration::from_secs(1);

    /// Carries a request for a model of so many bytes out, in no time; gives the sessions that went for it.
    fn carry_out(lru: &mut Lru, at: u32, ticket: u64, model: &str, size: u64) -> Vec<u64> {
        let asked = Event::Asked { ticket, model: model.to_owned(), generation: 0, keep: None };
        let (mut gone, mut events) = (Vec::new(), vec![asked]);
        while let Some(event) = events.pop() {
            for effect in lru.step(SECOND * at, event) {
                events.extend(match effect {
                    Effect::Begin { session, .. } => Some(Event::Estimated { session, bytes: bytes(size) }),
                    Effect::Load { session } => {
                        Some(Event::Loaded { session, bytes: bytes(size), took: SECOND, grew: bytes(0) })
                    }
                    Effect::Unload { session } => {
                        gone.push(session);
                        Some(Event::Unloaded { session, back: bytes(0), free: bytes(0) })
                    }
                    Effect::Grant { session, .. } => Some(Event::Left { session }),
                    _ => None,
                });
            }
        }
        gone
    }

    #[test]
    fn who_was_not_used_for_longest_gives_way_and_no_more_than_have_to() {
        let mut lru = Lru::new(100);
        let mut ask = |at, ticket, model, size| carry_out(&mut lru, at, ticket, model, size);
        assert_eq!(ask(0, 0, "a", 30), [0; 0]);
        assert_eq!(ask(1, 1, "b", 30), [0; 0]);
        assert_eq!(ask(2, 2, "c", 40), [0; 0]);
        assert_eq!(ask(3, 3, "a", 30), [0; 0], "it is in memory");
        assert_eq!(ask(4, 4, "d", 20), [2], "b");
        assert_eq!(ask(5, 5, "e", 50), [3], "c is enough with what b left");
        assert_eq!(lru.held(), [100, 100]);
    }

    #[test]
    fn what_is_in_use_stays_and_takes_no_new_request_once_others_have_waited() {
        let mut lru = Lru::new(100);
        let asked =
            |ticket, model: &str| Event::Asked { ticket, model: model.to_owned(), generation: 0, keep: None };
        lru.step(SECOND, asked(0, "a"));
        lru.step(SECOND, Event::Estimated { session: 1, bytes: bytes(60) });
        lru.step(SECOND, Event::Loaded { session: 1, bytes: bytes(60), took: SECOND, grew: bytes(0) });
        lru.step(SECOND, asked(1, "b"));
        assert_eq!(lru.step(SECOND, Event::Estimated { session: 2, bytes: bytes(60) }), []);
        assert_eq!(lru.step(SECOND * 2, asked(2, "a")), [Effect::Grant { ticket: 2, session: 1 }]);
        assert_eq!(lru.next(), Some(SECOND * 3));
        assert_eq!(lru.step(SECOND * 3, Event::Tick), []);
        assert_eq!(lru.step(SECOND * 3, asked(3, "a")), [], "it waits behind b");
        lru.step(SECOND * 4, Event::Left { session: 1 });
        let begins = Effect::Begin { session: 3, ticket: 3 };
        let goes = Effect::Unload { session: 1 };
        assert_eq!(lru.step(SECOND * 4, Event::Left { session: 1 }), [goes, begins]);
    }
}
