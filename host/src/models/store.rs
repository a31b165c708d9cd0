//! Loaded models: loaded once however many ask, given out as leases, evicted when memory is needed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, LoadRequest, ProgressSink, Session, Signature};

use super::lease::{Claim, Lease};
use super::ledger::by_device;
use super::shelf::{BREAKS, Shelf, Slot};
use super::status::{Failure, State};
use crate::config::{self, Isolation};
use crate::error::{Error, Result};
use crate::plugins::Choice;

/// A model in memory.
pub struct Loaded {
    /// The id it was asked for by.
    pub id: String,
    /// The backend that runs it, `plugin/backend`.
    pub backend: String,
    /// The device it runs on.
    pub device: String,
    /// What it takes and gives.
    pub signature: Signature,
    /// The session itself.
    pub session: Box<dyn Session>,
    /// Whether it runs in a process of its own, so that a crash is that of the model alone.
    pub isolated: bool,
    /// How long loading took.
    pub load_time: Duration,
    /// Which of all loads it came from.
    pub(super) serial: u64,
}

impl Loaded {
    /// What the ledger calls it when another model took its id: no id has a `#`.
    pub(super) fn retired(&self) -> String {
        format!("{}#{}", self.id, self.serial)
    }
}

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
}

/// A file of templates is text for people: what is larger is something else.
const MOST_TEMPLATE: u64 = 1 << 20;

/// All loaded models of a host.
pub struct Models {
    shelf: Mutex<Shelf>,
    pub(super) changed: Condvar,
    /// Memory of the machine, for a device `cpu` whose backend does not say.
    ram: u64,
    serials: AtomicU64,
}

/// How often a waiting request looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);

impl Models {
    /// No models yet. `ram` is the memory of the machine in bytes.
    pub fn new(memory: config::Memory, ram: u64) -> Self {
        let shelf = Mutex::new(Shelf::new(memory));
        Self { shelf, changed: Condvar::new(), ram, serials: AtomicU64::default() }
    }

    /// A loaded model for one request: at once when it is ready, after waiting when somebody loads it, after
    /// loading it when nobody does. `None` when the model became another one since the order's generation.
    ///
    /// # Errors
    /// The backend's (`model-invalid`, `invalid-option`, …), `out-of-memory` with numbers, `cancelled`.
    pub fn lease(
        self: &Arc<Self>,
        order: Order<'_>,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Option<Lease>> {
        let Order { id, generation, .. } = order;
        let mut shelf = self.shelf();
        loop {
            if shelf.is_outdated(id, generation) {
                return Ok(None);
            }
            match shelf.slots.get(id) {
                Some(Slot::Ready(loaded)) => {
                    let model = Arc::clone(loaded);
                    shelf.ledger.enter(id);
                    shelf.tell(id);
                    return Ok(Some(Lease { model, models: Arc::clone(self) }));
                }
                Some(Slot::Loading) => {
                    cancel.check()?;
                    shelf = self
                        .changed
                        .wait_timeout(shelf, CANCEL_POLL)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                None => {
                    if let State::Quarantined = shelf.state(id) {
                        return Err(quarantined(id));
                    }
                    if let Some(wait) = shelf.rest(id) {
                        cancel.check()?;
                        let wait = wait.min(CANCEL_POLL);
                        shelf =
                            self.changed.wait_timeout(shelf, wait).unwrap_or_else(PoisonError::into_inner).0;
                        continue;
                    }
                    shelf.slots.insert(id.to_owned(), Slot::Loading);
                    shelf.tell(id);
                    break;
                }
            }
        }
        drop(shelf);
        // Whatever happens now, the slot must not stay `Loading`: the guard clears it unless loading succeeds.
        let claim = Claim { models: self, id, generation };
        let loaded = Arc::new(self.load(order, progress, cancel).inspect_err(|error| {
            let mut shelf = self.shelf();
            if error.code() != "cancelled" && !shelf.is_outdated(id, generation) {
                let before = shelf.failures.get(id).map_or(0, |failure| failure.breaks);
                let breaks = if is_lost(error) { before + 1 } else { 0 };
                shelf.failures.insert(id.to_owned(), Failure::of(error, breaks));
            }
        })?);
        claim.fulfil(&loaded);
        Ok(Some(Lease { model: loaded, models: Arc::clone(self) }))
    }

    fn load(&self, order: Order<'_>, progress: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Loaded> {
        let Order { id, choice, request, .. } = order;
        let template = order.chat_template.map(template).transpose()?;
        let context = |e| Error::from(e).within(format_args!("model `{id}`"));
        let backend = choice.backend.runner(order.isolation)?;
        let estimate = backend.estimate(request).map_err(context)?;
        let gone = {
            let mut shelf = self.shelf();
            for memory in &estimate {
                let reported = choice.device.filter(|d| d.id == memory.device).map_or(0, |d| d.memory_total);
                shelf.budget(&memory.device, self.total(&memory.device, reported));
            }
            let evicted = shelf.ledger.admit(id, by_device(&estimate))?;
            shelf.clear(&evicted)
        };
        // Dropped outside the lock: freeing gigabytes takes time.
        drop(gone);
        let started = Instant::now();
        let session = backend.load(request, progress, cancel).map_err(context)?;
        self.shelf().ledger.correct(id, by_device(&session.usage()));
        let device = choice.device.map_or_else(|| request.device.clone(), |d| d.id.clone());
        tracing::info!(
            model = id,
            backend = choice.backend.full_id(),
            device,
            "loaded in {:.0?}",
            started.elapsed()
        );
        let mut signature = session.signature();
        if let (Some(text), Some(template)) = (&mut signature.text, template) {
            text.chat_template = Some(template);
        }
        Ok(Loaded {
            id: id.to_owned(),
            backend: choice.backend.full_id(),
            device,
            signature,
            session,
            isolated: choice.backend.isolates(order.isolation),
            load_time: started.elapsed(),
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Sets the budget of a device that a backend reports, so that it is known before a model is loaded to it.
    pub fn expect(&self, device: &str, reported: u64) {
        let total = self.total(device, reported);
        self.shelf().budget(device, total);
    }

    fn total(&self, device: &str, reported: u64) -> u64 {
        if device == "cpu" { self.ram } else { reported }
    }

    /// Exchanges the limits of memory. Idle models that have no room any more are freed.
    pub fn limit(&self, memory: config::Memory) {
        let gone = self.shelf().limit(memory);
        drop(gone);
    }

    /// Forgets a model: it is freed when the last request that uses it ends. Says whether it was there.
    pub fn unload(&self, id: &str) -> bool {
        let taken = self.shelf().take(id);
        taken.is_some()
    }

    /// These are other models from `generation` of the configuration on: requests of an earlier one that have theirs keep
    /// it to their end, all others get the new one. Gives what nobody may need any more, to be dropped.
    pub fn outdate<'i>(&self, ids: impl IntoIterator<Item = &'i str>, generation: u64) -> Vec<Arc<Loaded>> {
        let mut shelf = self.shelf();
        let mut taken = Vec::new();
        for id in ids {
            shelf.outdated.insert(id.to_owned(), generation);
            shelf.failures.remove(id);
            taken.extend(shelf.take(id));
        }
        drop(shelf);
        self.changed.notify_all();
        taken
    }

    /// The backend panicked in a request, or its worker is lost: the session takes no more, so the next request loads the
    /// model anew, the third time only after a while; after three in a row without a good one between them none does, until
    /// [`forgive`](Self::forgive).
    pub fn broke(&self, model: &Loaded, error: &Error) {
        let id = &model.id;
        let mut shelf = self.shelf();
        if !shelf.offers(model) {
            return;
        }
        let breaks = 1 + shelf.failures.get(id).map_or(0, |failure| failure.breaks);
        shelf.failures.insert(id.clone(), Failure::of(error, breaks));
        let taken = shelf.take(id);
        drop(shelf);
        drop(taken);
        tracing::error!(
            model = id,
            breaks,
            code = error.code(),
            "the session is lost: the model is unloaded"
        );
    }

    /// A request was carried out: earlier breaks no longer count.
    pub fn succeeded(&self, id: &str) {
        self.shelf().failures.remove(id);
    }

    /// Forgets a model's failures, so that it may be loaded again.
    pub fn forgive(&self, id: &str) {
        let mut shelf = self.shelf();
        if shelf.failures.remove(id).is_some() {
            shelf.tell(id);
        }
    }

    /// Keeps a model in memory, also when others need room; or no longer.
    pub fn pin(&self, id: &str, pinned: bool) {
        self.shelf().ledger.pin(id, pinned);
    }

    /// No panic happens while the lock is held; should one, the map is still whole.
    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn template(file: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(MOST_TEMPLATE + 1).read_to_string(&mut text)?;
        match text.len() as u64 {
            ..=MOST_TEMPLATE => Ok(text),
            _ => {
                Err(io::Error::other(format!("it is no template: those have {MOST_TEMPLATE} bytes at most")))
            }
        }
    };
    read().map_err(|e| Error::io(file, &e))
}

/// Whether an error means that the session is of no use any more.
pub fn is_lost(error: &Error) -> bool {
    matches!(error.code(), "panicked" | "session-poisoned" | "worker-crashed" | "worker-hung")
}

fn quarantined(id: &str) -> Error {
    Error::new(
        "model-quarantined",
        format!("model `{id}` panicked or crashed {BREAKS} times in a row and is not loaded again"),
    )
    .help("see the log for why; `POST /admin/models/ID/load` tries again")
}
