//! The models of a host: loaded once however many ask, given out as leases, freed when others need the memory.
//!
//! What happens is decided by the [`Fleet`](super::fleet::Fleet), one event after the other, behind one lock. Here that is
//! carried out: loads and unloads run on threads of their own, and who waits is told when it is their turn.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, LoadRequest, ProgressSink};

use super::fleet::{Effect, Event, Keep};
use super::gauge::Gauge;
use super::lease::Lease;
use super::load::{Load, Recipe};
use super::loaded::Loaded;
use super::shelf::{Chore, Shelf};
use super::wait::{Wait, Waiter};
use crate::config::{self, Isolation};
use crate::error::{Error, Result};
use crate::hardware::Provider;
use crate::plugins::Choice;

/// What is to be loaded, and how.
#[derive(Clone, Copy)]
pub struct Order<'o> {
    /// What callers name it by.
    pub id: &'o str,
    /// Of the configuration that the request was made from.
    pub generation: u64,
    /// Who loads it.
    pub choice: &'o Choice<'o>,
    /// What the backend is told.
    pub request: &'o LoadRequest,
    /// Whether it runs in a process of its own.
    pub isolation: Isolation,
    /// A file with a template for conversations, in place of the model's own.
    pub chat_template: Option<&'o Path>,
    /// How long it stays in memory after, from now on; what was said before when not given.
    pub keep: Option<Keep>,
}

/// All models of a host. Every method may be called from any thread.
pub struct Models {
    shelf: Mutex<Shelf>,
    /// Rings when a load or an unload has ended.
    settled: Condvar,
    /// Rings when the ticker has to look sooner.
    pulse: Condvar,
    pub(super) gauge: Gauge,
    /// Memory of the machine, for a device `cpu` whose backend does not say.
    ram: u64,
    begun: Instant,
}

/// How often it is looked whether those who wait were cancelled: by one thread for all of them, and only while somebody
/// waits. A [`Cancel`] is a flag that plugins share and that wakes nobody.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// How often the devices are asked what is free while models are in memory: what others took since is seen before a load
/// fails for it.
const MEASURE: Duration = Duration::from_secs(10);
/// How long the end of a host waits for loads that were cancelled: backends promise to look every second.
const LAST_WAIT: Duration = Duration::from_secs(5);

impl Models {
    /// No models yet. `ram` is the memory of the machine in bytes.
    pub fn new(limits: config::Memory, ram: u64) -> Self {
        Self {
            shelf: Mutex::new(Shelf::new(limits)),
            settled: Condvar::new(),
            pulse: Condvar::new(),
            gauge: Gauge::default(),
            ram,
            begun: Instant::now(),
        }
    }

    /// The same, on a machine whose devices are asked what is free, and whether memory comes back.
    #[must_use]
    pub fn on(self, machine: impl Provider + Send + Sync + 'static) -> Self {
        Self { gauge: Gauge::new(Box::new(machine)), ..self }
    }

    /// A loaded model for one request: at once when it is ready, otherwise after waiting for its load, and for the memory
    /// that it needs. `None` when the model became another one since the order's generation.
    ///
    /// Waiting ends with `cancel`. Who has a lease must not wait for another one: two such requests could wait for each
    /// other's memory.
    ///
    /// # Errors
    /// The backend's (`model-invalid`, `invalid-option`, …), `out-of-memory` with numbers when it cannot fit,
    /// `model-quarantined`, `cancelled`.
    pub fn lease(
        self: &Arc<Self>,
        order: Order<'_>,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Option<Lease>> {
        let mut shelf = self.shelf();
        let ticket = shelf.ticket();
        let (model, generation, keep) = (order.id.to_owned(), order.generation, order.keep);
        let asked = Event::Asked { ticket, model, generation, keep };
        let mut effects = shelf.fleet.step(self.now(), asked);
        let own = effects.iter().position(|effect| match effect {
            Effect::Grant { ticket: answered, .. }
            | Effect::Refuse { ticket: answered, .. }
            | Effect::Again { ticket: answered } => *answered == ticket,
            _ => false,
        });
        let answer = own.map(|place| effects.remove(place));
        if let Some(answer) = answer {
            let leased = match answer {
                Effect::Grant { session, .. } => Ok(shelf.session(session).map(Arc::clone)),
                Effect::Refuse { error, .. } => Err(error),
                _ => Ok(None),
            };
            self.finish(shelf, effects);
            return Ok(leased?.map(|model| Lease { model, models: Arc::clone(self) }));
        }
        let recipe =
            if shelf.closed { Err(Error::new("cancelled", "the host ends")) } else { Recipe::of(&order) };
        let recipe = match recipe {
            Ok(recipe) => recipe,
            Err(error) => {
                // Nobody but the fleet knows of it yet.
                let event = match effects[..] {
                    [Effect::Begin { session, .. }, ..] => Event::Failed { session, error: error.clone() },
                    _ => Event::Cancelled { ticket },
                };
                effects.extend(shelf.fleet.step(self.now(), event));
                self.finish(shelf, effects);
                return Err(error);
            }
        };
        let waiter = Arc::new(Waiter::new(order.id, Arc::new(recipe), cancel));
        shelf.wait(ticket, &waiter);
        self.finish(shelf, effects);
        let wait = Wait { models: self, ticket, waiter, over: false };
        if cancel.is_cancelled() {
            self.tell(Event::Cancelled { ticket });
        }
        wait.finish(progress)
    }

    /// Something happened.
    pub(super) fn tell(self: &Arc<Self>, event: Event) {
        let mut shelf = self.shelf();
        let effects = shelf.fleet.step(self.now(), event);
        self.finish(shelf, effects);
    }

    /// Carries effects out, the long ones without the lock.
    fn finish(self: &Arc<Self>, mut shelf: MutexGuard<'_, Shelf>, effects: Vec<Effect>) {
        let chores = shelf.carry_out(effects);
        let begins = self.set_alarm(&mut shelf);
        drop(shelf);
        if begins {
            self.start_ticker();
        }
        chores.into_iter().for_each(|chore| self.do_chore(chore));
    }

    fn do_chore(self: &Arc<Self>, chore: Chore) {
        match chore {
            Chore::Load { session, recipe, cancel, go } => {
                let load = Load { models: Arc::clone(self), session, recipe, cancel, go };
                if let Err(error) = thread("load", move || load.run()) {
                    let error = Error::new("internal", format!("no thread to load with: {error}"));
                    self.tell(Event::Failed { session, error });
                    self.ended(session);
                }
            }
            Chore::Turn(turn, loaded) => {
                let (models, session) = (Arc::clone(self), loaded.number);
                if let Err(error) = thread("sleep", move || turn.run(&models, loaded)) {
                    let error = Error::new("internal", format!("no thread to sleep or wake on: {error}"));
                    self.tell(Event::Failed { session, error });
                }
            }
            Chore::Free(loaded) => {
                let models = Arc::clone(self);
                let free = move || {
                    if !(loaded.isolated && loaded.device == "cpu") {
                        // Set once: a session is freed once.
                        let _ = loaded.end.before.set(models.gauge.held([&loaded.device]));
                    }
                    drop(loaded);
                };
                // Freeing gigabytes takes time. Without a thread it is freed here.
                let _ = thread("unload", free);
            }
        }
    }

    /// A load ended well.
    pub(super) fn loaded_is(self: &Arc<Self>, loaded: Loaded, events: impl IntoIterator<Item = Event>) {
        let mut shelf = self.shelf();
        shelf.put(loaded);
        let now = self.now();
        let effects = events.into_iter().flat_map(|event| shelf.fleet.step(now, event)).collect();
        self.finish(shelf, effects);
    }

    /// A load's thread has ended.
    pub(super) fn ended(&self, session: u64) {
        self.shelf().ended(session);
        self.settled.notify_all();
    }

    /// A session's memory is free.
    pub(super) fn settle(&self) {
        self.settled.notify_all();
    }

    /// A load has come so far.
    pub(super) fn progress(&self, model: &str, fraction: f32, message: &str) {
        self.shelf().progress(model, fraction, message);
    }

    /// Says when the ticker has to look next; `true` when there is none.
    fn set_alarm(&self, shelf: &mut Shelf) -> bool {
        let Some(due) = self.due(shelf, self.now()).filter(|_| !shelf.closed) else { return false };
        match shelf.alarm {
            None => {
                shelf.alarm = Some(due);
                true
            }
            Some(alarm) => {
                if due < alarm {
                    shelf.alarm = Some(due);
                    self.pulse.notify_one();
                }
                false
            }
        }
    }

    /// When the ticker has to look next.
    fn due(&self, shelf: &Shelf, now: Duration) -> Option<Duration> {
        shelf.due(now, CANCEL_POLL).into_iter().chain(self.measures(shelf)).min()
    }

    /// When the devices are asked next what is free.
    fn measures(&self, shelf: &Shelf) -> Option<Duration> {
        (self.gauge.asks() && shelf.has_sessions()).then(|| shelf.measured.saturating_add(MEASURE))
    }

    fn start_ticker(self: &Arc<Self>) {
        let models = Arc::clone(self);
        if let Err(error) = thread("models", move || models.tick()) {
            self.shelf().alarm = None;
            tracing::error!("no thread for time limits of models: {error}");
        }
    }

    /// Looks after what happens by itself, as long as there is such.
    fn tick(self: &Arc<Self>) {
        let mut shelf = self.shelf();
        while !shelf.closed {
            let now = self.now();
            let Some(due) = self.due(&shelf, now) else { break };
            shelf.alarm = Some(due);
            shelf = self
                .pulse
                .wait_timeout(shelf, due.saturating_sub(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            let mut effects = Vec::new();
            for ticket in shelf.cancelled() {
                effects.extend(shelf.fleet.step(self.now(), Event::Cancelled { ticket }));
            }
            effects.extend(shelf.fleet.step(self.now(), Event::Tick));
            if self.measures(&shelf).is_some_and(|due| due <= self.now()) {
                drop(shelf);
                let free = self.gauge.free();
                shelf = self.shelf();
                shelf.measured = self.now();
                effects.extend(shelf.fleet.step(self.now(), Event::Report { free }));
            }
            let chores = shelf.carry_out(effects);
            if !chores.is_empty() {
                drop(shelf);
                chores.into_iter().for_each(|chore| self.do_chore(chore));
                shelf = self.shelf();
            }
        }
        shelf.alarm = None;
    }

    /// Sets the size of a device that a backend reports, so that it is known before a model is loaded to it.
    pub fn expect(self: &Arc<Self>, device: &str, reported: u64) {
        let total = if device == "cpu" { self.ram } else { reported };
        self.tell(Event::Device { device: device.to_owned(), total });
    }

    /// Asks the devices what is free.
    pub(super) fn report(self: &Arc<Self>) {
        self.tell(Event::Report { free: self.gauge.free() });
    }

    /// Exchanges the limits of memory. Idle models that have no room any more are freed.
    pub fn limit(self: &Arc<Self>, memory: config::Memory) {
        self.tell(Event::Limit { memory });
    }

    /// How long models stay in memory after their last request; all others stay until others need the room.
    pub fn set_ttls(self: &Arc<Self>, ttls: BTreeMap<String, Duration>) {
        self.tell(Event::Ttl { ttls });
    }

    /// Forgets a model: it is freed when the last request that uses it ends, and before this returns when none does. Says
    /// whether it was there.
    pub fn unload(self: &Arc<Self>, id: &str) -> bool {
        let mut shelf = self.shelf();
        let Some(session) = shelf.fleet.ready(id) else { return false };
        let effects = shelf.fleet.step(self.now(), Event::Unload { model: id.to_owned() });
        self.finish(shelf, effects);
        let mut shelf = self.shelf();
        while shelf.fleet.is_unloading(session) {
            shelf = self.settled.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// These are other models from `generation` of the configuration on: requests of an earlier one that have theirs keep
    /// it to their end, all others get the new one.
    pub fn outdate<'i>(self: &Arc<Self>, ids: impl IntoIterator<Item = &'i str>, generation: u64) {
        let models = ids.into_iter().map(str::to_owned).collect();
        self.tell(Event::Outdate { models, generation });
    }

    /// The backend panicked in a request, or its worker is lost: the session takes no more, so the next request loads the
    /// model anew, the third time only after a while; after three in a row without a good one between them none does, until
    /// [`forgive`](Self::forgive).
    pub fn broke(self: &Arc<Self>, model: &Loaded, error: &Error) {
        self.tell(Event::Broke { session: model.number, error: error.clone() });
        tracing::error!(model = model.id, code = error.code(), "the session is lost: the model is unloaded");
    }

    /// A request was carried out: earlier breaks no longer count.
    pub fn succeeded(self: &Arc<Self>, id: &str) {
        let failed = self.shelf().fleet.failure(id).is_some();
        if failed {
            self.forgive(id);
        }
    }

    /// Forgets a model's failures, so that it may be loaded again.
    pub fn forgive(self: &Arc<Self>, id: &str) {
        self.tell(Event::Forgive { model: id.to_owned() });
    }

    /// Keeps a model in memory, also when others need room and nobody asks for it; or no longer.
    pub fn pin(self: &Arc<Self>, id: &str, pinned: bool) {
        self.tell(Event::Pin { model: id.to_owned(), pinned });
    }

    /// Begins nothing more, and waits for what was begun: a process that ends while a backend still loads would take the
    /// backend's libraries from under it.
    pub fn close(&self) {
        let mut shelf = self.shelf();
        shelf.closed = true;
        self.pulse.notify_one();
        let until = Instant::now() + LAST_WAIT;
        while shelf.stop_all() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            shelf = self.settled.wait_timeout(shelf, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// No panic happens while the lock is held; should one, the state is still whole.
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}
