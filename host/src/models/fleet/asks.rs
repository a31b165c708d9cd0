//! Those who ask: at once a session, a place behind a load, or a refusal; or they wait until one of these can be had.

use super::record::Rest;
use super::session::Session;
use super::{Effect, Fleet, Keep, Waiting};
use crate::error::Error;

impl Fleet {
    pub(super) fn ask(&mut self, ticket: u64, model: String, generation: u64, keep: Option<Keep>) {
        let record = self.records.entry(model.clone()).or_default();
        if record.outdated > generation {
            return self.effects.push(Effect::Again { ticket });
        }
        self.parked.entry(model.clone()).or_default().insert(ticket);
        self.waiting.insert(ticket, Waiting { model, keep, session: None });
        self.place(ticket);
    }

    /// Looks whether there is now something for those for whom nothing is loaded yet.
    pub(super) fn unpark(&mut self) {
        let able: Vec<String> = self.parked.keys().filter(|model| !self.rests(model)).cloned().collect();
        for model in able {
            for ticket in self.parked.get(&model).cloned().unwrap_or_default() {
                self.place(ticket);
            }
        }
    }

    /// Whether who asks for a model now can only wait.
    fn rests(&self, model: &str) -> bool {
        let Some(record) = self.records.get(model) else { return false };
        match record.current.and_then(|current| self.sessions.get(&current)) {
            Some(session) => session.is_ready() && session.closing,
            None => matches!(record.rest(model, self.now), Some(Rest::Until(_))),
        }
    }

    fn leave_park(&mut self, model: &str, ticket: u64) {
        if let Some(parked) = self.parked.get_mut(model) {
            parked.remove(&ticket);
            if parked.is_empty() {
                self.parked.remove(model);
            }
        }
    }

    /// Gives a ticket for which nothing is loaded yet its session, its place behind a load, or its refusal; or leaves it
    /// where it is.
    fn place(&mut self, ticket: u64) {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        let model = waiting.model.clone();
        let record = self.records.entry(model.clone()).or_default();
        if let Some(current) = record.current {
            let Some(session) = self.sessions.get_mut(&current) else { return };
            if session.is_ready() && !session.closing {
                self.grant(ticket, current);
            } else if !session.is_ready() {
                session.waiters.insert(ticket);
                waiting.session = Some(current);
                self.leave_park(&model, ticket);
                self.call(current);
            }
            return;
        }
        match record.rest(&model, self.now) {
            Some(Rest::Until(_)) => {}
            Some(Rest::Refused(error)) => self.refuse(ticket, error),
            None => self.begin(ticket, model),
        }
    }

    fn begin(&mut self, ticket: u64, model: String) {
        self.latest += 1;
        let session = self.latest;
        self.leave_park(&model, ticket);
        self.records.entry(model.clone()).or_default().current = Some(session);
        self.touched.insert(model.clone());
        self.sessions.insert(session, Session::new(model, ticket, self.now));
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.session = Some(session);
        }
        self.effects.push(Effect::Begin { session, ticket });
    }

    pub(super) fn grant(&mut self, ticket: u64, session: u64) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        self.leave_park(&waiting.model, ticket);
        if let Some(granted) = self.sessions.get_mut(&session) {
            granted.in_flight += 1;
            granted.used = self.now;
            granted.stirs();
            granted.keep = waiting.keep.or(granted.keep);
        }
        self.touched.insert(waiting.model);
        self.effects.push(Effect::Grant { ticket, session });
    }

    pub(super) fn refuse(&mut self, ticket: u64, error: Error) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            self.leave_park(&waiting.model, ticket);
            self.effects.push(Effect::Refuse { ticket, error });
        }
    }

    pub(super) fn cancel(&mut self, ticket: u64) {
        let Some(waiting) = self.waiting.get(&ticket) else { return };
        let session = waiting.session;
        self.refuse(ticket, Error::new("cancelled", "the request was cancelled"));
        let Some(session) = session else { return };
        if let Some(wanted) = self.sessions.get_mut(&session) {
            wanted.waiters.remove(&ticket);
            if wanted.waiters.is_empty() {
                self.stop(session);
            }
        }
    }
}
