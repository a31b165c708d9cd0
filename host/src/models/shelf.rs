//! The state behind the store's lock: the fleet, and the things that its numbers stand for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pajamas_plugin_api::Cancel;

use super::fleet::{Effect, Fleet};
use super::load::Recipe;
use super::loaded::Loaded;
use super::status::Change;
use super::turn::Turn;
use super::wait::{Answer, Waiter};
use crate::config;

/// What is done without the lock: it takes time.
pub(super) enum Chore {
    /// Load a model, on a thread.
    Load { session: u64, recipe: Arc<Recipe>, cancel: Cancel, go: mpsc::Receiver<()> },
    /// Put a session to sleep or wake it, on a thread.
    Turn(Turn, Arc<Loaded>),
    /// Free a session, on a thread.
    Free(Arc<Loaded>),
}

/// A load that goes on.
struct Going {
    cancel: Cancel,
    /// Tells it that its memory is there. Gone when the load goes no further.
    go: Option<mpsc::Sender<()>>,
}

pub(super) struct Shelf {
    pub(super) fleet: Fleet,
    sessions: HashMap<u64, Arc<Loaded>>,
    loads: BTreeMap<u64, Going>,
    waiters: BTreeMap<u64, Arc<Waiter>>,
    /// Told about every change of a state; those that nobody reads any more are dropped.
    pub(super) watchers: Vec<mpsc::Sender<Change>>,
    tickets: u64,
    /// When the ticker looks next; `None` while there is none.
    pub(super) alarm: Option<Duration>,
    /// When the devices were last asked what is free.
    pub(super) measured: Duration,
    /// The host ends: nothing is begun any more.
    pub(super) closed: bool,
}

impl Shelf {
    pub(super) fn new(limits: config::Memory) -> Self {
        Self {
            fleet: Fleet::new(limits),
            sessions: HashMap::new(),
            loads: BTreeMap::new(),
            waiters: BTreeMap::new(),
            watchers: Vec::new(),
            tickets: 0,
            alarm: None,
            measured: Duration::ZERO,
            closed: false,
        }
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Somebody waits. What of the effects is for them comes to them.
    pub(super) fn wait(&mut self, ticket: u64, waiter: &Arc<Waiter>) {
        self.waiters.insert(ticket, Arc::clone(waiter));
    }

    /// A session that requests can use, or will be freed.
    pub(super) fn session(&self, number: u64) -> Option<&Arc<Loaded>> {
        self.sessions.get(&number)
    }

    /// Whether anything is in memory.
    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// The sessions that new requests get.
    pub(super) fn offered(&self) -> Vec<Arc<Loaded>> {
        let offered = |loaded: &&Arc<Loaded>| self.fleet.ready(&loaded.id) == Some(loaded.number);
        let mut all: Vec<Arc<Loaded>> = self.sessions.values().filter(offered).cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A load ended well: its session is known before anybody is granted it.
    pub(super) fn put(&mut self, loaded: Loaded) {
        self.sessions.insert(loaded.number, Arc::new(loaded));
    }

    /// A load's thread has ended.
    pub(super) fn ended(&mut self, session: u64) {
        self.loads.remove(&session);
    }

    /// Cancels all loads, and says whether any still goes on, or any session is still freed, falls asleep or wakes.
    pub(super) fn stop_all(&mut self) -> bool {
        for load in self.loads.values_mut() {
            load.cancel.cancel();
            load.go = None;
        }
        !self.loads.is_empty() || self.fleet.is_moving()
    }

    /// Tells those who wait for a model how far its load is.
    pub(super) fn progress(&self, model: &str, fraction: f32, message: &str) {
        self.waiters
            .values()
            .filter(|waiter| waiter.model == model)
            .for_each(|w| w.progress(fraction, message));
    }

    /// Those who wait and were cancelled.
    pub(super) fn cancelled(&self) -> Vec<u64> {
        let cancelled = self.waiters.iter().filter(|(_, waiter)| waiter.cancel.is_cancelled());
        cancelled.map(|(ticket, _)| *ticket).collect()
    }

    /// When the ticker has to look next: often while somebody waits, who may be cancelled.
    pub(super) fn due(&self, now: Duration, often: Duration) -> Option<Duration> {
        let often = (!self.waiters.is_empty()).then(|| now.saturating_add(often));
        often.into_iter().chain(self.fleet.next()).min()
    }

    /// Carries out what can be done at once; gives the rest.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<Chore> {
        let mut chores = Vec::new();
        for effect in effects {
            match effect {
                Effect::Begin { session, ticket } => {
                    let Some(waiter) = self.waiters.get(&ticket) else { continue };
                    let (sender, go) = mpsc::channel();
                    let cancel = Cancel::new();
                    let recipe = Arc::clone(&waiter.recipe);
                    self.loads.insert(session, Going { cancel: cancel.clone(), go: Some(sender) });
                    chores.push(Chore::Load { session, recipe, cancel, go });
                }
                Effect::Load { session } => {
                    if let Some(go) = self.loads.get(&session).and_then(|load| load.go.as_ref()) {
                        // Its thread waits for this; should it be gone, it has told how it ended.
                        let _ = go.send(());
                    }
                }
                Effect::Stop { session } => {
                    if let Some(load) = self.loads.get_mut(&session) {
                        load.cancel.cancel();
                        load.go = None;
                    }
                }
                Effect::Sleep { session } => chores.extend(self.turn(Turn::Sleep, session)),
                Effect::Wake { session } => chores.extend(self.turn(Turn::Wake, session)),
                Effect::Resize { session, slots } => chores.extend(self.turn(Turn::Resize(slots), session)),
                Effect::Unload { session } => chores.extend(self.sessions.remove(&session).map(Chore::Free)),
                Effect::Grant { ticket, session } => {
                    let model = self.sessions.get(&session).map(Arc::clone);
                    if let Some((waiter, model)) = self.waiters.remove(&ticket).zip(model) {
                        waiter.answer(Answer::Session(model));
                    }
                }
                Effect::Refuse { ticket, error } => self.answer(ticket, Answer::Refused(error)),
                Effect::Again { ticket } => self.answer(ticket, Answer::Again),
                Effect::Tell(change) => self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok()),
                Effect::Leaked { model, device, took, back } => tracing::warn!(
                    model,
                    device,
                    took,
                    back,
                    "memory does not come back: the model leaks; `isolation = \"process\"` gives all of it back"
                ),
            }
        }
        chores
    }

    fn turn(&self, turn: Turn, session: u64) -> Option<Chore> {
        Some(Chore::Turn(turn, Arc::clone(self.sessions.get(&session)?)))
    }

    fn answer(&mut self, ticket: u64, answer: Answer) {
        if let Some(waiter) = self.waiters.remove(&ticket) {
            waiter.answer(answer);
        }
    }
}
