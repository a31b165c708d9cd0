//! The world around a fleet, for random traces: it does what it is told, keeps its own books, and insists on what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Bytes of the only device.
pub(super) const SIZE: u64 = 100;
/// What each model holds, awake and asleep where it can sleep. Two of the large ones never fit together, and the last one
/// never fits at all.
pub(super) const MODELS: [(&str, u64, Option<u64>); 7] = [
    ("a", 10, None),
    ("b", 20, Some(15)),
    ("c", 30, None),
    ("d", 40, Some(10)),
    ("e", 70, Some(45)),
    ("f", 100, Some(60)),
    ("never", 101, Some(50)),
];

#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Good,
    Damaged,
    Short,
    Crash,
}

/// The slots of a model, and what each of them holds of its bytes, where their number can be changed.
pub(super) fn slots(model: &str) -> Option<(u32, u64)> {
    [("c", (3, 8)), ("d", (2, 15)), ("f", (4, 10))]
        .iter()
        .find(|(id, _)| *id == model)
        .map(|(_, slots)| *slots)
}

/// How putting to sleep, waking or changing slots ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turned {
    Good,
    Restless,
    Crash,
}

/// The world's side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Real {
    Sizing,
    Waiting,
    Loading,
    Ready,
    Dozing,
    Asleep,
    Waking,
    Freeing,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) now: Duration,
    pub(super) generation: u64,
    pub(super) tickets: u64,
    pub(super) open: BTreeMap<u64, String>,
    pub(super) sessions: BTreeMap<u64, (String, Real)>,
    /// Slots of sessions that have not all of theirs, and what they are being made.
    pub(super) narrow: BTreeMap<u64, u32>,
    pub(super) resizing: BTreeMap<u64, u32>,
    pub(super) stopped: BTreeSet<u64>,
    /// A session for each request that has one.
    pub(super) leases: Vec<u64>,
    pub(super) pinned: BTreeSet<String>,
    /// Sessions that somebody let go, or whose model is another one now.
    pub(super) let_go: BTreeSet<u64>,
    /// Sessions that were asleep when they were let go.
    pub(super) asleep: BTreeSet<u64>,
    pub(super) limit: u64,
}

pub(super) fn bytes(model: &str) -> u64 {
    MODELS.iter().find(|(id, ..)| *id == model).map_or(0, |(_, bytes, _)| *bytes)
}

pub(super) fn asleep(model: &str) -> Option<u64> {
    MODELS.iter().find(|(id, ..)| *id == model).and_then(|(_, _, asleep)| *asleep)
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            fleet: Fleet::new(limits(None)),
            now: Duration::ZERO,
            generation: 0,
            tickets: 0,
            open: BTreeMap::new(),
            sessions: BTreeMap::new(),
            narrow: BTreeMap::new(),
            resizing: BTreeMap::new(),
            stopped: BTreeSet::new(),
            leases: Vec::new(),
            pinned: BTreeSet::new(),
            let_go: BTreeSet::new(),
            asleep: BTreeSet::new(),
            limit: SIZE,
        };
        world.tell(Event::Device { device: "cpu".to_owned(), total: SIZE });
        world.tell(Event::Ttl { ttls: BTreeMap::from([("b".to_owned(), Duration::from_secs(3))]) });
        world
    }

    pub(super) fn held(&self) -> u64 {
        let holds = |(id, (model, real)): (&u64, &(String, Real))| match real {
            Real::Sizing | Real::Waiting => 0,
            Real::Asleep => asleep(model).expect("it can sleep"),
            Real::Freeing if self.asleep.contains(id) => asleep(model).expect("it can sleep"),
            Real::Ready | Real::Dozing | Real::Freeing => bytes(model) - self.given(*id, model),
            _ => bytes(model),
        };
        self.sessions.iter().map(holds).sum()
    }

    /// What a session has given back of its slots; one that takes them again has them.
    fn given(&self, session: u64, model: &str) -> u64 {
        let Some((full, each)) = slots(model) else { return 0 };
        let now = self.narrow.get(&session).copied().unwrap_or(full);
        let to = self.resizing.get(&session).copied().unwrap_or(now);
        each * u64::from(full - now.max(to))
    }

    pub(super) fn tell(&mut self, event: Event) {
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
                        && !matches!(real, Real::Freeing | Real::Ready)
                        && !self.stopped.contains(id)
                        && !self.let_go.contains(id)
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
            Effect::Sleep { session } => {
                assert!(!self.leases.contains(session), "a session in use is put to sleep after {after:?}");
                let (model, real) = self.sessions.get_mut(session).expect("it was loaded");
                assert!(
                    asleep(model).is_some() && *real == Real::Ready,
                    "{model} is {real:?} after {after:?}"
                );
                assert!(!self.pinned.contains(model), "{model} is pinned, and sleeps after {after:?}");
                assert!(!self.resizing.contains_key(session), "it is being resized after {after:?}");
                *real = Real::Dozing;
            }
            Effect::Wake { session } => {
                let (model, real) = self.sessions.get_mut(session).expect("it was loaded");
                assert_eq!(*real, Real::Asleep, "{model} after {after:?}");
                *real = Real::Waking;
                assert!(self.held() <= self.limit, "{} of {} after {after:?}", self.held(), self.limit);
            }
            Effect::Resize { session, slots } => {
                let (model, real) = self.sessions.get(session).expect("it was loaded");
                let (full, _) = self::slots(model).expect("it can");
                assert_eq!(*real, Real::Ready, "{model} after {after:?}");
                let now = self.narrow.get(session).copied().unwrap_or(full);
                let used = self.leases.iter().filter(|lease| *lease == session).count() as u32;
                assert!(
                    (1..=full).contains(slots) && *slots != now,
                    "{model}: {now} to {slots} after {after:?}"
                );
                assert!(
                    *slots > now || used <= *slots,
                    "{model}: {used} requests in {slots} after {after:?}"
                );
                assert!(
                    *slots > now || !self.pinned.contains(model),
                    "{model} is pinned, and narrowed after {after:?}"
                );
                assert!(self.resizing.insert(*session, *slots).is_none(), "{model} twice after {after:?}");
                if *slots > now {
                    assert!(self.held() <= self.limit, "{} of {} after {after:?}", self.held(), self.limit);
                }
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
                assert!(matches!(real, Real::Ready | Real::Asleep), "{model} is {real:?} after {after:?}");
                assert!(!self.resizing.contains_key(session), "{model} is being resized after {after:?}");
                if *real == Real::Asleep {
                    self.asleep.insert(*session);
                }
                *real = Real::Freeing;
                let by_hand =
                    matches!(after, Event::Unload { .. } | Event::Outdate { .. } | Event::Left { .. })
                        || matches!(after, Event::Broke { .. } | Event::Loaded { .. })
                        || matches!(
                            after,
                            Event::Slept { .. }
                                | Event::Restless { .. }
                                | Event::Woken { .. }
                                | Event::Resized { .. }
                        )
                        || matches!(after, Event::Failed { .. });
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

    pub(super) fn ask(&mut self, model: &str, keep: Option<Keep>) -> u64 {
        self.tickets += 1;
        let (ticket, generation) = (self.tickets, self.generation);
        self.open.insert(ticket, model.to_owned());
        self.tell(Event::Asked { ticket, model: model.to_owned(), generation, keep });
        ticket
    }

    /// The sessions of which this is so.
    pub(super) fn those(&self, so: Real) -> Vec<u64> {
        self.sessions.iter().filter(|(_, (_, real))| *real == so).map(|(id, _)| *id).collect()
    }

    pub(super) fn estimate(&mut self, session: u64, good: bool) {
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

    pub(super) fn load(&mut self, session: u64, outcome: Outcome) {
        let model = self.sessions[&session].0.clone();
        let code = match outcome {
            Outcome::Good => {
                if let Some((slots, each)) = slots(&model) {
                    self.tell(Event::CanResize { session, slots, each: cpu(each) });
                }
                if let Some(asleep) = asleep(&model) {
                    self.tell(Event::CanSleep { session, bytes: cpu(asleep) });
                }
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

    /// Falling asleep or waking ends. What crashed is of no use, and waits for being freed.
    pub(super) fn turn(&mut self, session: u64, turned: Turned) {
        let (model, real) = self.sessions[&session].clone();
        let (now, event) = match (real, turned) {
            (_, Turned::Crash) => {
                (Real::Ready, Event::Failed { session, error: Error::new("worker-crashed", "told to") })
            }
            (Real::Dozing, Turned::Good) => {
                (Real::Asleep, Event::Slept { session, bytes: cpu(asleep(&model).unwrap()) })
            }
            (Real::Dozing, Turned::Restless) => (Real::Ready, Event::Restless { session }),
            _ => {
                let took = Duration::from_millis(5);
                self.narrow.remove(&session);
                (Real::Ready, Event::Woken { session, bytes: cpu(bytes(&model)), took })
            }
        };
        self.sessions.insert(session, (model, now));
        self.tell(event);
    }

    /// Changing slots ends: one that will not has as many as before.
    pub(super) fn resize(&mut self, session: u64, turned: Turned) {
        let to = self.resizing.remove(&session).expect("it is being resized");
        let model = self.sessions[&session].0.clone();
        let (full, _) = slots(&model).unwrap();
        let now = self.narrow.get(&session).copied().unwrap_or(full);
        let slots = match turned {
            Turned::Good => to,
            Turned::Restless => now,
            Turned::Crash => {
                return self.tell(Event::Failed { session, error: Error::new("out-of-memory", "told to") });
            }
        };
        self.narrow.insert(session, slots);
        let bytes = cpu(bytes(&model) - self.given(session, &model));
        self.tell(Event::Resized { session, slots, bytes });
    }

    /// All that is in memory of a model is let go.
    pub(super) fn forgo(&mut self, model: &str) {
        let kept = |real: &Real| !matches!(real, Real::Sizing | Real::Waiting | Real::Loading);
        let gone = self.sessions.iter().filter(|(_, (other, real))| other == model && kept(real));
        self.let_go.extend(gone.map(|(id, _)| *id));
    }

    pub(super) fn free(&mut self, session: u64) {
        self.narrow.remove(&session);
        self.sessions.remove(&session);
        self.tell(Event::Unloaded { session, back: Bytes::new(), free: Bytes::new() });
    }

    pub(super) fn leave(&mut self, place: usize, broke: Option<bool>) {
        let session = self.leases[place];
        match broke {
            Some(true) => self.tell(Event::Broke { session, error: Error::new("panicked", "told to") }),
            Some(false) => self.tell(Event::Forgive { model: self.sessions[&session].0.clone() }),
            None => {}
        }
        self.leases.swap_remove(place);
        self.tell(Event::Left { session });
    }

    /// Everything that goes on ends well, as it does when nothing hangs, and time goes by.
    pub(super) fn settle_once(&mut self) {
        for session in self.those(Real::Sizing) {
            self.estimate(session, true);
        }
        for session in self.those(Real::Loading) {
            self.load(session, Outcome::Good);
        }
        for session in [self.those(Real::Dozing), self.those(Real::Waking)].concat() {
            self.turn(session, Turned::Good);
        }
        for session in self.resizing.keys().copied().collect::<Vec<_>>() {
            self.resize(session, Turned::Good);
        }
        for session in self.those(Real::Freeing) {
            self.free(session);
        }
        self.now += Duration::from_secs(1);
        self.tell(Event::Tick);
    }
}
