//! Loaded models: loaded once however many ask, given out as leases, evicted when memory is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, LoadRequest, ProgressSink, Session, Signature};

use super::ledger::{Ledger, by_device};
use super::status::{Change, Failure, State, Status};
use crate::config;
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
    /// How long loading took.
    pub load_time: Duration,
}

enum Slot {
    Loading,
    Ready(Arc<Loaded>),
}

#[derive(Default)]
struct Shelf {
    slots: BTreeMap<String, Slot>,
    ledger: Ledger,
    /// Why the latest load of a model, or its latest request, ended badly.
    failures: BTreeMap<String, Failure>,
    /// Told about every change of a state; those that nobody reads any more are dropped.
    watchers: Vec<mpsc::Sender<Change>>,
}

impl Shelf {
    fn state(&self, id: &str) -> State {
        match self.slots.get(id) {
            Some(Slot::Loading) => State::Loading,
            Some(Slot::Ready(_)) if self.ledger.in_flight(id) > 0 => State::Busy,
            Some(Slot::Ready(_)) => State::Ready,
            None => match self.failures.get(id) {
                Some(failure) if failure.panics >= PANICS => State::Quarantined,
                Some(_) => State::Failed,
                None => State::Unloaded,
            },
        }
    }

    fn tell(&mut self, id: &str) {
        if self.watchers.is_empty() {
            return;
        }
        let change = Change { id: id.to_owned(), state: self.state(id) };
        self.watchers.retain(|watcher| watcher.send(change.clone()).is_ok());
    }
}

/// All loaded models of a host.
pub struct Models {
    shelf: Mutex<Shelf>,
    changed: Condvar,
    memory: config::Memory,
    /// Memory of the machine, for a device `cpu` whose backend does not say.
    ram: u64,
}

/// Panics without a good request between them after which a model is left alone until somebody loads it by hand.
const PANICS: u32 = 3;

/// How often a waiting request looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);

impl Models {
    /// No models yet. `ram` is the memory of the machine in bytes.
    pub fn new(memory: config::Memory, ram: u64) -> Self {
        Self { shelf: Mutex::default(), changed: Condvar::new(), memory, ram }
    }

    /// A loaded model for one request: at once when it is ready, after waiting when somebody loads it, after
    /// loading it when nobody does.
    ///
    /// # Errors
    /// The backend's (`model-invalid`, `invalid-option`, …), `out-of-memory` with numbers, `cancelled`.
    pub fn lease(
        self: &Arc<Self>,
        id: &str,
        choice: &Choice<'_>,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Lease> {
        let mut shelf = self.shelf();
        loop {
            match shelf.slots.get(id) {
                Some(Slot::Ready(loaded)) => {
                    let model = Arc::clone(loaded);
                    shelf.ledger.enter(id);
                    shelf.tell(id);
                    return Ok(Lease { model, models: Arc::clone(self) });
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
                    shelf.slots.insert(id.to_owned(), Slot::Loading);
                    shelf.tell(id);
                    break;
                }
            }
        }
        drop(shelf);
        // Whatever happens now, the slot must not stay `Loading`: the guard clears it unless loading succeeds.
        let claim = Claim { models: self, id };
        let loaded = Arc::new(self.load(id, choice, request, progress, cancel).inspect_err(|error| {
            if error.code() != "cancelled" {
                self.shelf().failures.insert(id.to_owned(), Failure::of(error, 0));
            }
        })?);
        claim.fulfil(Arc::clone(&loaded));
        Ok(Lease { model: loaded, models: Arc::clone(self) })
    }

    fn load(
        &self,
        id: &str,
        choice: &Choice<'_>,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Loaded> {
        let context = |e| Error::from(e).within(format_args!("model `{id}`"));
        let backend = &choice.backend.backend;
        let estimate = backend.estimate(request).map_err(context)?;
        let gone = {
            let mut shelf = self.shelf();
            for memory in &estimate {
                let reported = choice.device.filter(|d| d.id == memory.device).map_or(0, |d| d.memory_total);
                self.budget(&mut shelf.ledger, &memory.device, reported);
            }
            let evicted = shelf.ledger.admit(id, by_device(&estimate))?;
            let slots = evicted.iter().filter_map(|id| shelf.slots.remove(id)).collect::<Vec<_>>();
            evicted.iter().for_each(|id| shelf.tell(id));
            slots
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
        Ok(Loaded {
            id: id.to_owned(),
            backend: choice.backend.full_id(),
            device,
            signature: session.signature(),
            session,
            load_time: started.elapsed(),
        })
    }

    /// Sets the budget of a device that a backend reports, so that it is known before a model is loaded to it.
    pub fn expect(&self, device: &str, reported: u64) {
        self.budget(&mut self.shelf().ledger, device, reported);
    }

    fn budget(&self, ledger: &mut Ledger, device: &str, reported: u64) {
        let total = if device == "cpu" { self.ram } else { reported };
        if total > 0 {
            ledger.set_budget(device, self.memory.budget(device, total));
        }
    }

    /// Forgets a model: it is freed when the last request that uses it ends. Says whether it was there.
    pub fn unload(&self, id: &str) -> bool {
        let mut shelf = self.shelf();
        if !matches!(shelf.slots.get(id), Some(Slot::Ready(_))) {
            return false;
        }
        let slot = shelf.slots.remove(id);
        shelf.ledger.release(id);
        shelf.tell(id);
        drop(shelf);
        drop(slot);
        true
    }

    /// The backend panicked in a request: its session takes no more, so the next request loads the model anew; after
    /// three in a row without a good one between them none does, until [`forgive`](Self::forgive).
    pub fn panicked(&self, id: &str, error: &Error) {
        let panics = {
            let mut shelf = self.shelf();
            let panics = 1 + shelf.failures.get(id).map_or(0, |failure| failure.panics);
            shelf.failures.insert(id.to_owned(), Failure::of(error, panics));
            panics
        };
        tracing::error!(model = id, panics, "the backend panicked: the model is unloaded");
        self.unload(id);
    }

    /// A request was carried out: earlier panics no longer count.
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

    /// Every change of a model's state from now on.
    pub fn watch(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel();
        self.shelf().watchers.push(sender);
        receiver
    }

    /// Budget and use of every device that models can be loaded to.
    pub fn devices(&self) -> Vec<(String, u64, u64)> {
        self.shelf().ledger.devices().map(|(id, total, used)| (id.to_owned(), total, used)).collect()
    }

    /// The models in memory.
    pub fn loaded(&self) -> Vec<Arc<Loaded>> {
        let ready = |slot: &Slot| match slot {
            Slot::Ready(loaded) => Some(Arc::clone(loaded)),
            Slot::Loading => None,
        };
        self.shelf().slots.values().filter_map(ready).collect()
    }

    /// What these models are doing, and all others that are in memory.
    pub fn status<'i>(&self, ids: impl IntoIterator<Item = &'i str>) -> Vec<Status> {
        let mut known: BTreeMap<String, Status> = {
            let shelf = self.shelf();
            let ids = ids.into_iter().map(str::to_owned).chain(shelf.slots.keys().cloned());
            ids.map(|id| {
                let status = Status {
                    id: id.clone(),
                    state: shelf.state(&id),
                    pinned: shelf.ledger.is_pinned(&id),
                    in_flight: shelf.ledger.in_flight(&id),
                    failure: shelf.failures.get(&id).cloned(),
                    ..Status::default()
                };
                (id, status)
            })
            .collect()
        };
        // Asked outside the lock: a plugin answers.
        for model in self.loaded() {
            if let Some(status) = known.get_mut(&model.id) {
                status.backend = Some(model.backend.clone());
                status.device = Some(model.device.clone());
                status.memory = model.session.usage();
                status.load_ms = Some(model.load_time.as_secs_f64() * 1e3);
            }
        }
        known.into_values().collect()
    }

    /// No panic happens while the lock is held; should one, the map is still whole.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to load one model, and the duty to say how it ended.
struct Claim<'m> {
    models: &'m Models,
    id: &'m str,
}

impl Claim<'_> {
    fn fulfil(self, loaded: Arc<Loaded>) {
        let mut shelf = self.models.shelf();
        shelf.slots.insert(self.id.to_owned(), Slot::Ready(loaded));
        shelf.ledger.enter(self.id);
        // Panics count until a request goes well; a failure to load is over.
        if shelf.failures.get(self.id).is_some_and(|failure| failure.panics == 0) {
            shelf.failures.remove(self.id);
        }
        shelf.tell(self.id);
        drop(shelf);
        self.models.changed.notify_all();
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut shelf = self.models.shelf();
        shelf.slots.remove(self.id);
        shelf.ledger.release(self.id);
        shelf.tell(self.id);
        drop(shelf);
        self.models.changed.notify_all();
    }
}

fn quarantined(id: &str) -> Error {
    Error::new(
        "model-quarantined",
        format!("model `{id}` panicked {PANICS} times in a row and is not loaded again"),
    )
    .help("see the log for why; `POST /admin/models/ID/load` tries again")
}

/// A loaded model in use by one request: not evicted while this lives.
pub struct Lease {
    model: Arc<Loaded>,
    models: Arc<Models>,
}

impl std::ops::Deref for Lease {
    type Target = Loaded;
    fn deref(&self) -> &Loaded {
        &self.model
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut shelf = self.models.shelf();
        shelf.ledger.leave(&self.model.id);
        shelf.tell(&self.model.id);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use pajamas_plugin_api::{Backend, BackendInfo, Memory, PluginError, Probe};

    use super::*;
    use crate::plugins::ActiveBackend;

    /// A backend whose loads wait until the test lets them go on.
    struct Gate {
        loads: Arc<AtomicUsize>,
        open: Mutex<mpsc::Receiver<bool>>,
        bytes: u64,
    }

    struct Idle;

    impl Session for Idle {
        fn signature(&self) -> Signature {
            Signature::default()
        }
        fn usage(&self) -> Vec<Memory> {
            vec![Memory { device: "cpu".into(), weights: 1 << 20, ..Memory::default() }]
        }
    }

    impl Backend for Gate {
        fn describe(&self) -> BackendInfo {
            BackendInfo {
                id: "gate".into(),
                description: String::new(),
                formats: vec!["gate".into()],
                precisions: Vec::new(),
                device_kinds: Vec::new(),
                capabilities: Vec::new(),
                options_schema: serde_json::Value::Null,
            }
        }
        fn probe(&self) -> Probe {
            Probe { score: 100, reason: String::new(), devices: Vec::new() }
        }
        fn estimate(&self, _: &LoadRequest) -> Result<Vec<Memory>, PluginError> {
            Ok(vec![Memory { device: "cpu".into(), weights: self.bytes, ..Memory::default() }])
        }
        fn load(
            &self,
            _: &LoadRequest,
            _: &mut dyn ProgressSink,
            _: &Cancel,
        ) -> Result<Box<dyn Session>, PluginError> {
            self.loads.fetch_add(1, Ordering::SeqCst);
            match self.open.lock().unwrap().recv() {
                Ok(true) => Ok(Box::new(Idle)),
                _ => Err(PluginError::new("model-invalid", "it is damaged")),
            }
        }
    }

    struct Bench {
        models: Arc<Models>,
        backend: ActiveBackend,
        loads: Arc<AtomicUsize>,
        gate: mpsc::Sender<bool>,
    }

    impl Bench {
        fn new(bytes: u64) -> Self {
            let (gate, open) = mpsc::channel();
            let loads = Arc::new(AtomicUsize::new(0));
            let backend = Gate { loads: Arc::clone(&loads), open: Mutex::new(open), bytes };
            let (info, probe) = (backend.describe(), backend.probe());
            let backend = ActiveBackend { plugin: "test".into(), info, probe, backend: Arc::new(backend) };
            let memory = config::Memory { reserve: config::ByteSize::bytes(0), ..config::Memory::default() };
            Self { models: Arc::new(Models::new(memory, 64 << 20)), backend, loads, gate }
        }

        fn lease(&self, cancel: &Cancel) -> Result<Lease> {
            let choice = Choice { backend: &self.backend, device: None, rejected: Vec::new() };
            let request = LoadRequest {
                path: "m".into(),
                format: "gate".into(),
                device: String::new(),
                options: serde_json::Value::Null,
            };
            let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
            self.models.lease("m", &choice, &request, &mut progress, cancel)
        }
    }

    #[test]
    fn a_model_is_loaded_once_however_many_ask() {
        let bench = Bench::new(1 << 20);
        std::thread::scope(|scope| {
            let askers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| bench.lease(&Cancel::new()).map(drop))).collect();
            bench.gate.send(true).unwrap();
            askers.into_iter().for_each(|asker| asker.join().unwrap().unwrap());
        });
        assert_eq!(bench.loads.load(Ordering::SeqCst), 1);
        assert_eq!(bench.models.loaded().len(), 1);
        assert!(bench.models.unload("m") && !bench.models.unload("m"));
    }

    #[test]
    fn a_load_that_fails_leaves_room_for_the_next() {
        let bench = Bench::new(1 << 20);
        bench.gate.send(false).unwrap();
        bench.gate.send(true).unwrap();
        let error = bench.lease(&Cancel::new()).err().unwrap();
        assert_eq!((error.code(), error.message()), ("model-invalid", "model `m`: it is damaged"));
        assert!(bench.lease(&Cancel::new()).is_ok());
    }

    #[test]
    fn waiting_for_somebody_elses_load_can_be_cancelled() {
        let bench = Bench::new(1 << 20);
        std::thread::scope(|scope| {
            let loader = scope.spawn(|| bench.lease(&Cancel::new()).map(drop));
            while bench.loads.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let cancelled = Cancel::new();
            cancelled.cancel();
            assert_eq!(bench.lease(&cancelled).err().unwrap().code(), "cancelled");
            bench.gate.send(true).unwrap();
            loader.join().unwrap().unwrap();
        });
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_loaded() {
        let bench = Bench::new(1 << 30);
        let error = bench.lease(&Cancel::new()).err().unwrap();
        assert_eq!(error.code(), "out-of-memory");
        assert!(error.message().contains("needs 1024 MiB on cpu; models may hold 64 MiB"), "{error}");
        assert_eq!(bench.loads.load(Ordering::SeqCst), 0);
    }
}
