//! A day on one machine: events in the order of their times. Who chooses and who gives way is the host's own code: the
//! router's `decide`, the observations it predicts from, the queue of each model, and the fleet, told the time of day.

mod request;
mod snapshot;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use pajamas::admission::Queue;
use pajamas::metrics::Observations;
use pajamas::models::fleet::{Bytes, Effect, Event};
use pajamas::router::Rules;

use crate::engine::{Engines, Progress};
use crate::keeper::{Keeper, bytes};
use crate::machine::{FREES, Model, STOPS};
use crate::outcome::{Ended, Outcome};
use crate::policy::Policy;
use crate::trace::Request;

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Comes(usize),
    TimesOut(usize),
    Loaded(u64),
    Stopped(u64),
    Freed(u64),
    /// The fleet or an engine has something to do.
    Looks,
}

/// Where a request is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Coming,
    /// In the queue of a model, by its number there.
    Queued(&'static Model, u64),
    /// Its turn came; it has this ticket of the fleet.
    Leasing(&'static Model, u64, u64),
    /// It has this session.
    Running(&'static Model, u64, u64),
    Gone,
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Job {
    place: Place,
    /// When it got its slot, and its first token.
    begun: u64,
    first: u64,
    /// Tokens of the prompt that have to be computed.
    fresh: u32,
}

/// A load that goes on.
#[derive(Debug, Clone, Copy)]
struct Loading {
    since: u64,
    stopped: bool,
}

struct Day<'d> {
    trace: &'d [Request],
    seed: u64,
    rules: Rules,
    keeper: Box<dyn Keeper>,
    now: u64,
    alarms: BinaryHeap<Reverse<(u64, u64, Alarm)>>,
    /// Alarms are told apart by it, so that those of one moment come in the order in which they were set.
    set: u64,
    /// When somebody looks next whether the fleet or an engine has something to do.
    look: Option<u64>,
    jobs: Vec<Job>,
    queues: BTreeMap<&'static str, Queue>,
    /// The requests, by model and number in its queue, and by ticket.
    numbers: HashMap<(&'static str, u64), usize>,
    tickets: Vec<usize>,
    observed: Observations,
    /// Where the latest request of a conversation went.
    habits: HashMap<u32, &'static str>,
    sessions: BTreeMap<u64, &'static Model>,
    loading: BTreeMap<u64, Loading>,
    /// Loads of each model so far.
    loads: BTreeMap<&'static str, u64>,
    /// The simulator's own books: what is in memory, whatever the fleet believes.
    held: BTreeMap<u64, u64>,
    engines: Engines,
    effects: VecDeque<Effect>,
    /// When the disk has read all that it was asked for.
    disk: u64,
    outcome: Outcome,
}

/// Replays a trace under a policy on a machine with so much memory. The seed is that of how long things take.
///
/// # Errors
/// What is wrong with the configuration of the policy.
pub fn simulate(trace: &[Request], policy: Policy, memory: u64, seed: u64) -> Result<Outcome, String> {
    let job = Job { place: Place::Coming, begun: 0, first: 0, fresh: 0 };
    let mut day = Day {
        trace,
        seed,
        rules: policy.rules()?,
        keeper: policy.keeper(memory),
        now: 0,
        alarms: BinaryHeap::new(),
        set: 0,
        look: None,
        jobs: vec![job; trace.len()],
        queues: BTreeMap::new(),
        numbers: HashMap::new(),
        tickets: Vec::new(),
        observed: Observations::default(),
        habits: HashMap::new(),
        sessions: BTreeMap::new(),
        loading: BTreeMap::new(),
        loads: BTreeMap::new(),
        held: BTreeMap::new(),
        engines: Engines::default(),
        effects: VecDeque::new(),
        disk: 0,
        outcome: Outcome { ended: vec![Ended::default(); trace.len()], memory, ..Outcome::default() },
    };
    for (index, request) in trace.iter().enumerate() {
        day.alarm(request.at * 1000, Alarm::Comes(index));
    }
    while let Some(Reverse((at, _, alarm))) = day.alarms.pop() {
        if alarm == Alarm::Looks && day.look != Some(at) {
            // Something else was sooner.
            continue;
        }
        day.now = at;
        day.outcome.events += 1;
        day.settle();
        day.ring(alarm);
        day.settle();
        day.look_again();
    }
    Ok(day.outcome)
}

impl Day<'_> {
    fn alarm(&mut self, at: u64, alarm: Alarm) {
        self.set += 1;
        self.alarms.push(Reverse((at, self.set, alarm)));
    }

    /// Sets the alarm for what happens by itself.
    fn look_again(&mut self) {
        let due = self.keeper.next().map(|next| next.as_micros() as u64);
        let next = due.into_iter().chain(self.engines.next()).min().map(|next| next.max(self.now));
        if let Some(next) = next.filter(|next| Some(*next) != self.look) {
            self.alarm(next, Alarm::Looks);
        }
        self.look = next;
    }

    fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Comes(request) => self.comes(request),
            Alarm::TimesOut(request) => self.times_out(request),
            Alarm::Loaded(session) => self.loaded(session),
            Alarm::Stopped(session) => {
                self.loading.remove(&session);
                self.held.remove(&session);
                let error = pajamas::Error::new("cancelled", "nobody waits for it any more");
                self.tell(Event::Failed { session, error });
            }
            Alarm::Freed(session) => {
                self.held.remove(&session);
                self.tell(Event::Unloaded { session, back: Bytes::new(), free: Bytes::new() });
            }
            Alarm::Looks => {
                self.look = None;
                self.tell(Event::Tick);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.keeper.step(Duration::from_micros(self.now), event);
        self.effects.extend(effects);
    }

    /// Does all that has to be done at this moment.
    fn settle(&mut self) {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                self.carry_out(effect);
                continue;
            }
            let progress = self.engines.advance(self.now);
            if progress.is_empty() {
                break;
            }
            for one in progress {
                match one {
                    Progress::Begun(request) => self.jobs[request].begun = self.now,
                    Progress::FirstToken(request) => self.jobs[request].first = self.now,
                    Progress::Ended(request) => self.answered(request),
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Begin { session, ticket } => {
                if let Place::Leasing(model, ..) = self.jobs[self.of(ticket)].place {
                    self.sessions.insert(session, model);
                    self.tell(Event::Estimated { session, bytes: bytes(model.memory()) });
                }
            }
            Effect::Load { session } => self.load(session),
            Effect::Stop { session } => {
                if let Some(loading) = self.loading.get_mut(&session) {
                    loading.stopped = true;
                    self.alarm(self.now + STOPS, Alarm::Stopped(session));
                }
            }
            Effect::Unload { session } => {
                self.outcome.evictions += 1;
                self.engines.close(session);
                self.alarm(self.now + FREES, Alarm::Freed(session));
            }
            Effect::Grant { ticket, session } => self.granted(self.of(ticket), session),
            Effect::Refuse { ticket, error } => self.refused(self.of(ticket), error.code()),
            // No session of the day says that it can sleep, or give back slots.
            Effect::Sleep { .. } | Effect::Wake { .. } | Effect::Resize { .. } => {}
            Effect::Again { .. } | Effect::Tell(_) | Effect::Leaked { .. } => {}
        }
    }

    /// Whose ticket it is.
    fn of(&self, ticket: u64) -> usize {
        self.tickets[ticket as usize]
    }

    fn load(&mut self, session: u64) {
        let Some(model) = self.sessions.get(&session).copied() else { return };
        self.held.insert(session, model.memory());
        self.outcome.peak = self.outcome.peak.max(self.held.values().sum());
        self.outcome.loads += 1;
        self.outcome.loaded += model.memory();
        self.loading.insert(session, Loading { since: self.now, stopped: false });
        let times = self.loads.entry(model.id).or_default();
        *times += 1;
        // The disk reads one after the other.
        self.disk = self.disk.max(self.now) + model.load(self.seed, *times);
        self.alarm(self.disk, Alarm::Loaded(session));
    }

    fn loaded(&mut self, session: u64) {
        // What was stopped is told of as such.
        let Some(Loading { since, stopped: false }) = self.loading.get(&session).copied() else { return };
        let Some(model) = self.sessions.get(&session) else { return };
        self.loading.remove(&session);
        self.engines.open(session, model.slots);
        let (bytes, took) = (bytes(model.memory()), Duration::from_micros(self.now - since));
        self.tell(Event::Loaded { session, bytes, took, grew: Bytes::new() });
    }
}
