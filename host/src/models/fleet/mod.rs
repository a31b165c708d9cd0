//! One state machine owns what the models of a host are doing: which are loaded, who uses them, who waits for which, who
//! holds how much memory, and who gives way.
//!
//! It is pure. [`Fleet::step`] is told the time and what happened, and says what has to be done; it has no clock, no lock
//! and no thread, and asks nobody. The store around it carries out what it says and tells it how that ended. Whatever is
//! said in whatever order, no memory is promised twice, no session is freed while a request uses it, and every ticket is
//! answered once: granted, refused, or sent to ask again.

mod asks;
mod event;
mod evict;
mod ledger;
mod line;
mod look;
mod record;
mod session;
mod sleep;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use event::{Bytes, Effect, Event, Keep};
pub use ledger::{DeviceUse, by_device};
use ledger::{Ledger, most};
use record::Record;
pub use record::is_lost;
use session::{Phase, Session};

use super::status::Change;
use crate::config;
use crate::error::Error;

/// The state of all models of a host.
#[derive(Debug, Default)]
pub struct Fleet {
    /// The latest moment that was told: a clock that goes backwards is not followed.
    now: Duration,
    /// The number of the latest session.
    latest: u64,
    records: BTreeMap<String, Record>,
    sessions: BTreeMap<u64, Session>,
    /// Everybody who waits, by ticket: the first first.
    waiting: BTreeMap<u64, Waiting>,
    /// Those of them for whom nothing is loaded yet, by model.
    parked: BTreeMap<String, BTreeSet<u64>>,
    ledger: Ledger,
    /// Models whose state may be another.
    touched: BTreeSet<String>,
    effects: Vec<Effect>,
}

/// Who waits for what.
#[derive(Debug)]
struct Waiting {
    model: String,
    keep: Option<Keep>,
    /// The session that is loaded for it.
    session: Option<u64>,
}

impl Fleet {
    /// No models yet.
    pub fn new(limits: config::Memory) -> Self {
        Self { ledger: Ledger::new(limits), ..Self::default() }
    }

    /// Something happened at `now`, counted from any moment that stays the same: says what has to be done, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.take(event);
        self.expire();
        self.admit();
        self.widen();
        self.unpark();
        self.tell();
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Asked { ticket, model, generation, keep } => self.ask(ticket, model, generation, keep),
            Event::Cancelled { ticket } => self.cancel(ticket),
            Event::Estimated { session, bytes } => self.estimated(session, bytes),
            Event::CanSleep { session, bytes } => self.can_sleep(session, bytes),
            Event::CanResize { session, slots, each } => self.can_resize(session, slots, each),
            Event::Loaded { session, bytes, took, grew } => self.loaded(session, bytes, took, grew),
            Event::Slept { session, bytes } => self.slept(session, bytes),
            Event::Restless { session } => self.restless(session),
            Event::Woken { session, bytes, took } => self.woken(session, bytes, took),
            Event::Resized { session, slots, bytes } => self.resized(session, slots, bytes),
            Event::Failed { session, error } => self.failed(session, error),
            Event::Left { session } => self.left(session),
            Event::Broke { session, error } => self.broke(session, &error),
            Event::Unloaded { session, back, free } => self.unloaded(session, &back, free),
            Event::Unload { model } => self.let_go(&model),
            Event::Outdate { models, generation } => {
                models.into_iter().for_each(|model| self.outdate(model, generation));
            }
            Event::Forgive { model } => self.forgive(&model),
            Event::Pin { model, pinned } => self.records.entry(model).or_default().pinned = pinned,
            Event::Ttl { ttls } => {
                self.records.values_mut().for_each(|record| record.ttl = None);
                for (model, ttl) in ttls {
                    self.records.entry(model).or_default().ttl = Some(ttl);
                }
            }
            Event::Limit { memory } => {
                self.ledger.limit(memory);
                self.shrink();
            }
            Event::Device { device, total } => self.ledger.device(device, total),
            Event::Report { free } => self.ledger.report(&free),
            Event::Tick => {}
        }
    }

    /// Nobody wants this load any more.
    fn stop(&mut self, session: u64) {
        let Some(unwanted) = self.sessions.get_mut(&session) else { return };
        if unwanted.sleeps() {
            return self.hush(session);
        }
        if !unwanted.stopped {
            unwanted.stopped = true;
            self.effects.push(Effect::Stop { session });
        }
        if let Phase::Queued { .. } = unwanted.phase {
            self.forget(session);
        }
    }

    /// A session is no more. Who waited for it has none again.
    fn forget(&mut self, session: u64) {
        let Some(gone) = self.sessions.remove(&session) else { return };
        self.ledger.release(session);
        let record = self.records.entry(gone.model.clone()).or_default();
        if record.current == Some(session) {
            record.current = None;
        }
        self.park(&gone.model, gone.waiters);
        self.touched.insert(gone.model);
    }

    /// Nothing is loaded any more for those who wait.
    fn park(&mut self, model: &str, waiters: BTreeSet<u64>) {
        for ticket in waiters {
            if let Some(waiting) = self.waiting.get_mut(&ticket) {
                waiting.session = None;
                self.parked.entry(model.to_owned()).or_default().insert(ticket);
            }
        }
    }

    fn estimated(&mut self, session: u64, bytes: Bytes) {
        let now = self.now;
        let Some(sized) = self.sessions.get_mut(&session).filter(|s| s.phase == Phase::Sizing) else {
            return;
        };
        if sized.stopped {
            // Who came since has it begun anew.
            return self.forget(session);
        }
        // What it held the last time it needs again, whatever it says.
        let held = self.records.get(&sized.model).map(|record| &record.held);
        let needs = held.map_or_else(|| bytes.clone(), |held| most(&bytes, held));
        sized.phase = Phase::Queued { needs, since: now, after: BTreeSet::new() };
    }

    fn loaded(&mut self, session: u64, bytes: Bytes, took: Duration, grew: Bytes) {
        let now = self.now;
        let Some(ready) = self.sessions.get_mut(&session).filter(|s| s.phase == Phase::Loading) else {
            return;
        };
        (ready.phase, ready.cost, ready.used) = (Phase::Ready, took, now);
        ready.grew = (!std::mem::take(&mut ready.disturbed)).then_some(grew);
        let waiters = std::mem::take(&mut ready.waiters);
        let model = ready.model.clone();
        self.ledger.hold(session, bytes.clone());
        let record = self.records.entry(model.clone()).or_default();
        record.loaded(took, bytes);
        let current = record.current == Some(session);
        self.touched.insert(model);
        if !current {
            return self.retire(session);
        }
        for ticket in waiters {
            self.grant(ticket, session);
        }
        // It may hold more than it said.
        self.shrink();
    }

    fn failed(&mut self, session: u64, error: Error) {
        let Some(lost) = self.sessions.get(&session) else { return };
        if lost.turning {
            return self.not_turned(session, &error);
        }
        if !matches!(lost.phase, Phase::Sizing | Phase::Loading) {
            return;
        }
        if lost.stopped && error.code() == "cancelled" {
            // Who came since has it begun anew.
            return self.forget(session);
        }
        let short = lost.phase == Phase::Loading && error.code() == "out-of-memory";
        if short && !lost.again && self.make_room(session) {
            return;
        }
        let error = if short { self.with_numbers(session, error) } else { error };
        self.give_up(session, &error);
    }

    /// A load goes no further, or a session cannot wake: who waits for it is told why.
    fn give_up(&mut self, session: u64, error: &Error) {
        let Some(lost) = self.sessions.get_mut(&session) else { return };
        let (model, waiters) = (lost.model.clone(), std::mem::take(&mut lost.waiters));
        let sleeps = lost.sleeps();
        if !lost.stopped && !sleeps {
            self.effects.push(Effect::Stop { session });
        }
        let record = self.records.entry(model).or_default();
        if record.current == Some(session) {
            match is_lost(error) {
                true => record.broke(error, self.now),
                false => record.failed(error, self.now),
            }
        }
        match sleeps {
            true => self.hush(session),
            false => self.forget(session),
        }
        for ticket in waiters {
            self.refuse(ticket, error.clone());
        }
    }

    fn left(&mut self, session: u64) {
        let Some(used) = self.sessions.get_mut(&session) else { return };
        used.in_flight = used.in_flight.saturating_sub(1);
        used.used = self.now;
        let last = used.in_flight == 0;
        self.touched.insert(used.model.clone());
        used.stirs();
        if last && used.phase == Phase::Retired {
            self.free(session);
        }
    }

    fn broke(&mut self, session: u64, error: &Error) {
        let Some(broken) = self.sessions.get(&session).filter(|s| s.is_ready()) else { return };
        let record = self.records.entry(broken.model.clone()).or_default();
        record.broke(error, self.now);
        self.retire(session);
    }

    fn forgive(&mut self, model: &str) {
        if let Some(record) = self.records.get_mut(model).filter(|record| record.trouble.is_some()) {
            record.trouble = None;
            self.touched.insert(model.to_owned());
        }
    }

    /// No new request gets this session; it is freed when the last one that has it ends.
    fn retire(&mut self, session: u64) {
        let Some(old) = self.sessions.get_mut(&session) else { return };
        let record = self.records.entry(old.model.clone()).or_default();
        if record.current == Some(session) {
            record.current = None;
        }
        record.leaving += 1;
        old.phase = Phase::Retired;
        let last = old.in_flight == 0;
        let (model, waiters) = (old.model.clone(), std::mem::take(&mut old.waiters));
        self.park(&model, waiters);
        self.touched.insert(model);
        if last {
            self.free(session);
        }
    }

    /// Frees a session, or leaves that to the end of what its backend does with it.
    fn free(&mut self, session: u64) {
        if let Some(unused) = self.sessions.get_mut(&session).filter(|s| !s.turning && s.in_flight == 0) {
            unused.phase = Phase::Unloading;
            self.effects.push(Effect::Unload { session });
            self.disturb(session);
        }
    }

    /// Memory begins to move for a session. What is measured for one that does at the same time says nothing.
    fn disturb(&mut self, session: u64) {
        let others: Vec<u64> =
            self.sessions.iter().filter(|(id, s)| **id != session && s.moves()).map(|(id, _)| *id).collect();
        let alone = others.is_empty();
        for id in others.into_iter().chain([session]) {
            if let Some(moving) = self.sessions.get_mut(&id) {
                moving.disturbed = !alone;
            }
        }
    }

    fn unloaded(&mut self, session: u64, back: &Bytes, free: Bytes) {
        let Some(gone) = self.sessions.get(&session).filter(|s| s.phase == Phase::Unloading) else { return };
        let record = self.records.entry(gone.model.clone()).or_default();
        record.leaving = record.leaving.saturating_sub(1);
        if let Some(took) = gone.grew.as_ref().filter(|_| !gone.disturbed)
            && let Some((device, took, back)) = record.came_back(took, back)
        {
            self.effects.push(Effect::Leaked { model: gone.model.clone(), device, took, back });
        }
        self.forget(session);
        // What others hold is what this session does not hold any more either.
        self.ledger.report(&free);
    }

    fn let_go(&mut self, model: &str) {
        let current = self.records.get(model).and_then(|record| record.current);
        if let Some(session) = current.filter(|id| self.sessions.get(id).is_some_and(Session::is_kept)) {
            self.retire(session);
        }
    }

    /// Requests that have the model keep it; those that wait for it ask again.
    fn outdate(&mut self, model: String, generation: u64) {
        let record = self.records.entry(model.clone()).or_default();
        record.outdated = generation;
        record.trouble = None;
        record.held.clear();
        let current = record.current;
        let asked: Vec<u64> =
            self.waiting.iter().filter(|(_, w)| w.model == model).map(|(ticket, _)| *ticket).collect();
        self.parked.remove(&model);
        self.touched.insert(model);
        for ticket in asked {
            self.waiting.remove(&ticket);
            self.effects.push(Effect::Again { ticket });
        }
        let Some(current) = current else { return };
        let Some(session) = self.sessions.get_mut(&current) else { return };
        session.waiters.clear();
        if session.is_kept() {
            return self.retire(current);
        }
        let model = session.model.clone();
        self.records.entry(model).or_default().current = None;
        self.stop(current);
    }

    /// Lets sessions go that no request used for as long as they stay.
    fn expire(&mut self) {
        let due = |(id, session): (&u64, &Session)| (self.due(session)? <= self.now).then_some(*id);
        let due: Vec<u64> = self.sessions.iter().filter_map(due).collect();
        for session in due {
            self.retire(session);
        }
    }

    /// When a session goes for want of requests.
    fn due(&self, session: &Session) -> Option<Duration> {
        let record = self.records.get(&session.model).filter(|record| !record.pinned)?;
        session.due(record.ttl)
    }

    fn tell(&mut self) {
        for model in std::mem::take(&mut self.touched) {
            let state = self.state(&model);
            if let Some(record) = self.records.get_mut(&model).filter(|record| record.told != state) {
                record.told = state;
                self.effects.push(Effect::Tell(Change { id: model, state }));
            }
        }
    }
}
