//! What holds whatever happens in whatever order: random traces against a world that keeps its own books.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::ByteSize;

/// Bytes of the only device.
const SIZE: u64 = 100;
/// What each model holds. Two of the large ones never fit together, and the last one never fits at all.
const MODELS: [(&str, u64); 7] =
    [("a", 10), ("b", 20), ("c", 30), ("d", 40), ("e", 70), ("f", 100), ("never", 101)];

/// What a step of a trace does; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Act {
    Ask(usize, Option<u64>),
    Cancel(usize),
    Estimate(usize, bool),
    Load(usize, Outcome),
    Free(usize),
    Leave(usize, Option<bool>),
    Unload(usize),
    Outdate(usize),
    Pin(usize, bool),
    Forgive(usize),
    Limit(u64),
    Report(u64),
    Wait(u64),
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Good,
    Damaged,
    Short,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    let which = || 0_usize..1000;
    let outcome = prop_oneof![
        6 => Just(Outcome::Good), 1 => Just(Outcome::Damaged), 1 => Just(Outcome::Short), 1 => Just(Outcome::Crash)
    ];
    prop_oneof![
        8 => (which(), prop::option::weighted(0.2, 0_u64..20)).prop_map(|(model, keep)| Act::Ask(model, keep)),
        2 => which().prop_map(Act::Cancel),
        6 => (which(), prop::bool::weighted(0.9)).prop_map(|(which, good)| Act::Estimate(which, good)),
        6 => (which(), outcome).prop_map(|(which, outcome)| Act::Load(which, outcome)),
        6 => which().prop_map(Act::Free),
        8 => (which(), prop::option::weighted(0.2, any::<bool>())).prop_map(|(which, how)| Act::Leave(which, how)),
        1 => which().prop_map(Act::Unload),
        1 => which().prop_map(Act::Outdate),
        1 => (which(), any::<bool>()).prop_map(|(model, pinned)| Act::Pin(model, pinned)),
        1 => which().prop_map(Act::Forgive),
        1 => (40_u64..=SIZE).prop_map(Act::Limit),
        1 => (0_u64..=SIZE).prop_map(Act::Report),
        4 => (0_u64..5000).prop_map(Act::Wait),
    ]
}

/// The world's side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Real {
    Sizing,
    Waiting,
    Loading,
    Ready,
    Freeing,
}

#[derive(Debug)]
struct World {
    fleet: Fleet,
    now: Duration,
    generation: u64,
    tickets: u64,
    open: BTreeMap<u64, String>,
    sessions: BTreeMap<u64, (String, Real)>,
    stopped: BTreeSet<u64>,
    /// A session for each request that has one.
    leases: Vec<u64>,
    pinned: BTreeSet<String>,
    limit: u64,
}

fn bytes(model: &str) -> u64 {
    MODELS.iter().find(|(id, _)| *id == model).map_or(0, |(_, bytes)| *bytes)
}

fn cpu(bytes: u64) -> Bytes {
    Bytes::from([("cpu".to_owned(), bytes)])
}

fn limits(limit: Option<u64>) -> config::Memory {
    let reserve = ByteSize::bytes(0);
    config::Memory { limit: limit.map(ByteSize::bytes), reserve, ..config::Memory::default() }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            fleet: Fleet::new(limits(None)),
            now: Duration::ZERO,
            generation: 0,
            tickets: 0,
            open: BTreeMap::new(),
            sessions: BTreeMap::new(),
            stopped: BTreeSet::new(),
            leases: Vec::new(),
            pinned: BTreeSet::new(),
            limit: SIZE,
        };
        world.tell(Event::Device { device: "cpu".to_owned(), total: SIZE });
        world.tell(Event::Ttl { ttls: BTreeMap::from([("b".to_owned(), Duration::from_secs(3))]) });
        world
    }

    fn held(&self) -> u64 {
        let holds = |real: &Real| matches!(real, Real::Loading | Real::Ready | Real::Freeing);
        self.sessions.values().filter(|(_, real)| holds(real)).map(|(model, _)| bytes(model)).sum()
    }

    fn tell(&mut self, event: Event) {
        let effects = self.fleet.step(self.now, event.clone());
        for effect in effects {
            self.check(&effect, &event);
        }
    }

    /// Books an effect, and insists that it may be.
    fn check(&mut self, effect: &Effect, after: &Event) {
        match effect {
            Effect::Begin { session, ticket } => {
                let model = self.open[ticket].clone();
                let goes = |(id, (other, real)): (&u64, &(String, Real))| {
                    *other == model
                        && *real != Real::Freeing
                        && *real != Real::Ready
                        && !self.stopped.contains(id)
                };
                assert!(!self.sessions.iter().any(goes), "{model} is loaded twice after {after:?}");
                assert!(self.sessions.insert(*session, (model, Real::Sizing)).is_none());
            }
            Effect::Load { session } => {
                let real = &mut self.sessions.get_mut(session).expect("it was begun").1;
                assert_eq!(*real, Real::Waiting, "after {after:?}");
                *real = Real::Loading;
                assert!(self.held() <= self.limit, "{} of {} after {after:?}", self.held(), self.limit);
            }
            Effect::Stop { session } => {
                self.stopped.insert(*session);
                if self.sessions.get(session).is_some_and(|(_, real)| *real == Real::Waiting) {
                    self.sessions.remove(session);
                }
            }
            Effect::Unload { session } => {
                assert!(!self.leases.contains(session), "a session in use is freed after {after:?}");
                let (model, real) = self.sessions.get_mut(session).expect("it was loaded");
                assert_eq!(*real, Real::Ready);
                *real = Real::Freeing;
                let by_hand =
                    matches!(after, Event::Unload { .. } | Event::Outdate { .. } | Event::Left { .. })
                        || matches!(after, Event::Broke { .. } | Event::Loaded { .. });
                assert!(
                    by_hand || !self.pinned.contains(model),
                    "{model} is pinned, and goes after {after:?}"
                );
            }
            Effect::Grant { ticket, session } => {
                let model = self.open.remove(ticket).expect("it is answered once");
                assert_eq!(self.sessions[session], (model, Real::Ready), "after {after:?}");
                self.leases.push(*session);
            }
            Effect::Refuse { ticket, .. } | Effect::Again { ticket } => {
                assert!(self.open.remove(ticket).is_some(), "{ticket} is answered twice");
            }
            Effect::Tell(_) | Effect::Leaked { .. } => {}
        }
    }

    fn ask(&mut self, model: &str, keep: Option<Keep>) -> u64 {
        self.tickets += 1;
        let (ticket, generation) = (self.tickets, self.generation);
        self.open.insert(ticket, model.to_owned());
        self.tell(Event::Asked { ticket, model: model.to_owned(), generation, keep });
        ticket
    }

    /// The sessions of which this is so.
    fn those(&self, so: Real) -> Vec<u64> {
        self.sessions.iter().filter(|(_, (_, real))| *real == so).map(|(id, _)| *id).collect()
    }

    fn estimate(&mut self, session: u64, good: bool) {
        let model = self.sessions[&session].0.clone();
        if good {
            self.sessions.insert(session, (model.clone(), Real::Waiting));
            self.tell(Event::Estimated { session, bytes: cpu(bytes(&model)) });
            if self.stopped.contains(&session) {
                self.sessions.remove(&session);
            }
        } else {
            self.sessions.remove(&session);
            self.tell(Event::Failed { session, error: Error::new("model-invalid", "it is damaged") });
        }
    }

    fn load(&mut self, session: u64, outcome: Outcome) {
        let model = self.sessions[&session].0.clone();
        let code = match outcome {
            Outcome::Good => {
                self.sessions.insert(session, (model.clone(), Real::Ready));
                let (bytes, took) = (cpu(bytes(&model)), Duration::from_millis(50));
                return self.tell(Event::Loaded { session, bytes, took, grew: Bytes::new() });
            }
            _ if self.stopped.contains(&session) => "cancelled",
            Outcome::Damaged => "model-invalid",
            Outcome::Short => "out-of-memory",
            Outcome::Crash => "worker-crashed",
        };
        // One that was short of memory may be told to try again.
        self.sessions.insert(session, (model, Real::Waiting));
        self.tell(Event::Failed { session, error: Error::new(code, "told to") });
        if self.stopped.contains(&session) {
            self.sessions.remove(&session);
        }
    }

    fn free(&mut self, session: u64) {
        self.sessions.remove(&session);
        self.tell(Event::Unloaded { session, back: Bytes::new(), free: Bytes::new() });
    }

    fn leave(&mut self, place: usize, broke: Option<bool>) {
        let session = self.leases[place];
        match broke {
            Some(true) => self.tell(Event::Broke { session, error: Error::new("panicked", "told to") }),
            Some(false) => self.tell(Event::Forgive { model: self.sessions[&session].0.clone() }),
            None => {}
        }
        self.leases.swap_remove(place);
        self.tell(Event::Left { session });
    }

    fn act(&mut self, act: &Act) {
        fn one<T: Copy>(all: &[T], which: usize) -> Option<T> {
            (!all.is_empty()).then(|| all[which % all.len()])
        }
        let model = |which: usize| MODELS[which % MODELS.len()].0;
        match act {
            Act::Ask(which, keep) => {
                self.ask(model(*which), keep.map(|seconds| Keep::For(Duration::from_secs(seconds))));
            }
            Act::Cancel(which) => {
                let open: Vec<u64> = self.open.keys().copied().collect();
                if let Some(ticket) = one(&open, *which) {
                    self.tell(Event::Cancelled { ticket });
                    assert!(!self.open.contains_key(&ticket));
                }
            }
            Act::Estimate(which, good) => {
                if let Some(session) = one(&self.those(Real::Sizing), *which) {
                    self.estimate(session, *good);
                }
            }
            Act::Load(which, outcome) => {
                if let Some(session) = one(&self.those(Real::Loading), *which) {
                    self.load(session, *outcome);
                }
            }
            Act::Free(which) => {
                if let Some(session) = one(&self.those(Real::Freeing), *which) {
                    self.free(session);
                }
            }
            Act::Leave(which, broke) if !self.leases.is_empty() => {
                self.leave(which % self.leases.len(), *broke);
            }
            Act::Leave(..) => {}
            Act::Unload(which) => self.tell(Event::Unload { model: model(*which).to_owned() }),
            Act::Outdate(which) => {
                self.generation += 1;
                let (models, generation) = (vec![model(*which).to_owned()], self.generation);
                self.tell(Event::Outdate { models, generation });
            }
            Act::Pin(which, pinned) => {
                let model = model(*which).to_owned();
                if *pinned {
                    self.pinned.insert(model.clone());
                } else {
                    self.pinned.remove(&model);
                }
                self.tell(Event::Pin { model, pinned: *pinned });
            }
            Act::Forgive(which) => self.tell(Event::Forgive { model: model(*which).to_owned() }),
            Act::Limit(limit) => {
                self.limit = *limit;
                self.tell(Event::Limit { memory: limits(Some(*limit)) });
            }
            Act::Report(free) => self.tell(Event::Report { device: "cpu".to_owned(), free: *free }),
            Act::Wait(milliseconds) => {
                self.now += Duration::from_millis(*milliseconds);
                self.tell(Event::Tick);
            }
        }
    }

    /// Everything that goes on ends well, as it does when nothing hangs, and time goes by.
    fn settle_once(&mut self) {
        for session in self.those(Real::Sizing) {
            self.estimate(session, true);
        }
        for session in self.those(Real::Loading) {
            self.load(session, Outcome::Good);
        }
        for session in self.those(Real::Freeing) {
            self.free(session);
        }
        self.now += Duration::from_secs(1);
        self.tell(Event::Tick);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_promised_twice_and_everybody_is_answered(
        trace in prop::collection::vec(act(), 1..150)
    ) {
        let mut world = World::new();
        for act in &trace {
            world.act(act);
        }
        // The world comes to rest: no request lasts for ever, and neither does what others hold.
        world.tell(Event::Report { device: "cpu".to_owned(), free: SIZE });
        world.pinned.clear();
        for (model, _) in MODELS {
            world.tell(Event::Pin { model: model.to_owned(), pinned: false });
        }
        for _ in 0..50 {
            while !world.leases.is_empty() {
                world.leave(0, None);
            }
            world.settle_once();
        }
        prop_assert_eq!(&world.open, &BTreeMap::new(), "somebody was forgotten");
        prop_assert!(world.sessions.values().all(|(_, real)| *real == Real::Ready), "{:?}", world.sessions);
        prop_assert_eq!(world.held(), world.fleet.devices().next().map_or(0, |device| device.used));
    }

    /// Small models are asked for again and again, each request lasts some steps, and still everybody has a turn before
    /// long: a large one, too.
    #[test]
    fn nobody_waits_for_ever_while_others_are_served(
        asks in prop::collection::vec((0_usize..5, 1_u64..4), 60..200),
        large in 3_usize..6,
        at in 0_usize..30,
    ) {
        let mut world = World::new();
        let mut ends: Vec<(u64, u64)> = Vec::new();
        let mut large_one = None;
        let mut served_at = None;
        for (step, (small, lasts)) in (0_u64..).zip(&asks) {
            if step == at as u64 {
                large_one = Some((world.ask(MODELS[large].0, None), step));
            }
            // Another small one in each step, so that some of those in memory are always in use.
            world.ask(MODELS[*small % 3].0, None);
            world.settle_once();
            for session in ends.iter().filter(|(_, end)| *end <= step).map(|(session, _)| *session) {
                let place = world.leases.iter().position(|lease| *lease == session).expect("it is in use");
                world.leases.swap_remove(place);
                world.tell(Event::Left { session });
            }
            ends.retain(|(_, end)| *end > step);
            // Those who were granted a session in this step.
            let mut new = world.leases.clone();
            for (session, _) in &ends {
                let known = new.iter().position(|lease| lease == session);
                known.map(|place| new.swap_remove(place));
            }
            ends.extend(new.into_iter().map(|session| (session, step + lasts)));
            if let Some((ticket, since)) = large_one
                && served_at.is_none()
                && !world.open.contains_key(&ticket)
            {
                served_at = Some(step - since);
            }
        }
        // Two seconds of patience, requests of three steps, loads and frees of one each.
        prop_assert!(served_at.is_some_and(|steps| steps <= 14), "{served_at:?}");
    }
}
