//! A request's way: decided, in the queue of its model, with a ticket of the fleet, in a session, and gone. As in the host's
//! `run`, from alarm to alarm.

use std::collections::BTreeMap;
use std::time::Duration;

use pajamas::config::{Affinity, Task};
use pajamas::metrics::Took;
use pajamas::models::fleet::Event;
use pajamas::router::{Ask, Decision, Fault, decide};

use super::{Alarm, Day, Place};
use crate::machine::{DEVICE, Model, find};

/// Requests that may be inside one model: `server.max_queue` as it is built in.
const MOST: u32 = 64;

impl Day<'_> {
    pub(super) fn comes(&mut self, request: usize) {
        let timeout = u64::from(self.trace[request].timeout) * 1_000_000;
        if timeout > 0 {
            self.alarm(self.now + timeout, Alarm::TimesOut(request));
        }
        let ask = self.ask(request);
        let mut excluded: BTreeMap<&str, Fault> = BTreeMap::new();
        loop {
            let mut snapshot = self.snapshot(&excluded);
            let session = self.trace[request].session;
            let went = self.habits.get(&session).map(|model| (*model).to_owned());
            snapshot.affinity = went.into_iter().map(|model| (Affinity::Session, model)).collect();
            let decision = decide(&self.rules, &ask, &snapshot);
            let Some(model) = decision.chosen.as_deref().and_then(find) else {
                let code = decision.refused.map_or_else(|| "internal".to_owned(), |fault| fault.code);
                return self.ends(request, Some(&code));
            };
            if self.queue(request, model) {
                let ended = &mut self.outcome.ended[request];
                ended.model = model.id.to_owned();
                ended.instead_of = decision.degraded.map(|degraded| degraded.from.to_string());
                return self.call(model);
            }
            if !has_others(&decision, model) {
                return self.ends(request, Some("queue-full"));
            }
            let [code, message, help] = ["queue-full", "", ""].map(str::to_owned);
            excluded.insert(model.id, Fault { code, message, help });
        }
    }

    fn ask(&self, request: usize) -> Ask {
        let asked = &self.trace[request];
        Ask {
            tokens: asked.prompt,
            deadline: (asked.timeout > 0).then(|| u64::from(asked.timeout) * 1_000_000),
            key: Some(asked.key.clone()),
            minute: (asked.at / 60_000) as u16,
            ..Ask::new(asked.task(), Some(&asked.name))
        }
    }

    /// Whether there is a place in the model's queue.
    fn queue(&mut self, request: usize, model: &'static Model) -> bool {
        let asked = &self.trace[request];
        let slots = self.observed.of(model.id, DEVICE).1;
        let queue = self.queues.entry(model.id).or_default();
        let Ok(number) = queue.enter(slots, asked.priority, &asked.key, MOST, self.now / 1000) else {
            return false;
        };
        self.numbers.insert((model.id, number), request);
        self.jobs[request].place = Place::Queued(model, number);
        true
    }

    /// Those whose turn came ask the fleet for a session.
    fn call(&mut self, model: &'static Model) {
        while let Some(number) = self.queues.get_mut(model.id).and_then(|queue| queue.next_called()) {
            let Some(request) = self.numbers.get(&(model.id, number)).copied() else { continue };
            let ticket = self.tickets.len() as u64;
            self.tickets.push(request);
            self.jobs[request].place = Place::Leasing(model, number, ticket);
            self.tell(Event::Asked { ticket, model: model.id.to_owned(), generation: 0, keep: None });
        }
    }

    /// A request has a session.
    pub(super) fn granted(&mut self, request: usize, session: u64) {
        let Place::Leasing(model, number, _) = self.jobs[request].place else {
            // It took too long at this very moment.
            return self.tell(Event::Left { session });
        };
        if let Some((loads, took)) = self.keeper.loads(model.id)
            && self.observed.loaded(model.id, DEVICE, loads, took)
        {
            self.observed.has_slots(model.id, DEVICE, model.slots);
        }
        let asked = &self.trace[request];
        // The last token of a prompt is always computed.
        let cached = self.engines.cached(session, asked.session).min(asked.prompt.saturating_sub(1));
        let job = &mut self.jobs[request];
        job.place = Place::Running(model, number, session);
        job.fresh = asked.prompt - cached;
        let work = model.work(self.seed, request as u64, job.fresh, asked.answer);
        self.engines.enter(session, request, work);
    }

    /// A request gets no session.
    pub(super) fn refused(&mut self, request: usize, code: &str) {
        // Who took too long is gone already.
        if let Place::Leasing(model, number, _) = self.jobs[request].place {
            self.ends(request, Some(code));
            self.leaves(request, model, number, true);
        }
    }

    /// A request's answer is whole.
    pub(super) fn answered(&mut self, request: usize) {
        let Place::Running(model, number, session) = self.jobs[request].place else { return };
        let asked = &self.trace[request];
        let job = &mut self.jobs[request];
        if job.first == 0 {
            job.first = self.now;
        }
        let time = Duration::from_micros;
        let text = asked.task() == Task::Chat;
        let took = Took {
            service: time(self.now - job.begun),
            first_token: text.then(|| (job.fresh, time(job.first - job.begun))),
            decode: text.then(|| (asked.answer, time(self.now - job.first))),
        };
        self.observed.add(model.id, DEVICE, took);
        if text {
            self.habits.insert(asked.session, model.id);
            self.engines.cache(session, asked.session, asked.prompt + asked.answer);
        }
        self.ends(request, None);
        self.tell(Event::Left { session });
        self.leaves(request, model, number, true);
    }

    /// A request took as long as it may.
    pub(super) fn times_out(&mut self, request: usize) {
        let place = self.jobs[request].place;
        if !matches!(place, Place::Gone) {
            self.ends(request, Some("request-timeout"));
        }
        match place {
            Place::Coming | Place::Gone => {}
            Place::Queued(model, number) => self.leaves(request, model, number, false),
            Place::Leasing(model, number, ticket) => {
                self.tell(Event::Cancelled { ticket });
                self.leaves(request, model, number, true);
            }
            Place::Running(model, number, session) => {
                self.engines.leave(session, request);
                self.tell(Event::Left { session });
                self.leaves(request, model, number, true);
            }
        }
    }

    /// A request leaves the queue of its model.
    fn leaves(&mut self, request: usize, model: &'static Model, number: u64, given: bool) {
        let seconds = self.since(request) as f64 / 1e6;
        self.numbers.remove(&(model.id, number));
        if let Some(queue) = self.queues.get_mut(model.id) {
            queue.leave(number, given, seconds, self.now / 1000);
        }
        self.call(model);
    }

    fn ends(&mut self, request: usize, code: Option<&str>) {
        let total = self.since(request);
        let job = &mut self.jobs[request];
        job.place = Place::Gone;
        let ended = &mut self.outcome.ended[request];
        ended.times += 1;
        ended.code = code.map(str::to_owned);
        ended.first = total - self.now.saturating_sub(job.first).min(total);
        ended.total = total;
    }

    /// Microseconds since a request came.
    fn since(&self, request: usize) -> u64 {
        self.now - self.trace[request].at * 1000
    }
}

/// Whether another model could take the request.
fn has_others(decision: &Decision, chosen: &Model) -> bool {
    decision.candidates.iter().any(|one| one.model != chosen.id && one.rejected.is_none())
}
