//! Loading, sharing, refusing and replacing, with a backend that waits for the test.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, LoadRequest, Memory, PluginError, Probe, ProgressSink, Session, Signature,
};

use super::{Lease, Models, Order};
use crate::config::{self, Isolation};
use crate::error::{Error, Result};
use crate::hardware::{Hardware, Provider};
use crate::plugins::{ActiveBackend, Choice};

/// A backend whose loads wait until the test lets them go on.
struct Gate {
    loads: Arc<AtomicUsize>,
    open: Mutex<mpsc::Receiver<bool>>,
    bytes: u64,
}

struct Idle(u64);

impl Session for Idle {
    fn signature(&self) -> Signature {
        Signature::default()
    }
    fn usage(&self) -> Vec<Memory> {
        vec![Memory { device: "cpu".into(), weights: self.0, ..Memory::default() }]
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
            Ok(true) => Ok(Box::new(Idle(self.bytes))),
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
        let backend = ActiveBackend {
            plugin: "test".into(),
            info,
            probe,
            backend: Arc::new(backend),
            worker: None,
            isolation: Isolation::None,
        };
        let memory = config::Memory { reserve: config::ByteSize::bytes(0), ..config::Memory::default() };
        Self { models: Arc::new(Models::new(memory, 64 << 20)), backend, loads, gate }
    }

    /// On a machine of the test's.
    fn on(bytes: u64, machine: &Machine) -> Self {
        let bench = Self::new(bytes);
        let memory = config::Memory { reserve: config::ByteSize::bytes(0), ..config::Memory::default() };
        Self { models: Arc::new(Models::new(memory, 64 << 20).on(machine.clone())), ..bench }
    }

    fn lease(&self, cancel: &Cancel) -> Result<Lease> {
        self.lease_of(0, cancel).map(|lease| lease.expect("nothing is outdated"))
    }

    fn lease_of(&self, generation: u64, cancel: &Cancel) -> Result<Option<Lease>> {
        self.lease_as("m", generation, cancel)
    }

    fn lease_as(&self, id: &str, generation: u64, cancel: &Cancel) -> Result<Option<Lease>> {
        let choice = Choice { backend: &self.backend, device: None, rejected: Vec::new() };
        let request = LoadRequest {
            path: "m".into(),
            format: "gate".into(),
            device: String::new(),
            options: serde_json::Value::Null,
        };
        let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
        let order = Order {
            id,
            generation,
            choice: &choice,
            request: &request,
            isolation: Isolation::None,
            chat_template: None,
            keep: None,
        };
        self.models.lease(order, &mut progress, cancel)
    }
}

#[test]
fn a_model_is_loaded_once_however_many_ask() {
    let bench = Bench::new(1 << 20);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| bench.lease(&Cancel::new()).map(drop))).collect();
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
fn a_model_that_breaks_three_times_is_left_alone_until_somebody_loads_it() {
    let bench = Bench::new(1 << 20);
    let crash = Error::new("worker-crashed", "its worker was killed");
    for _ in 0..3 {
        bench.gate.send(true).unwrap();
        let lease = bench.lease(&Cancel::new()).unwrap();
        bench.models.broke(&lease, &crash);
        // One that had it, too, says so later: that is the same break.
        bench.models.broke(&lease, &crash);
    }
    assert_eq!(bench.lease(&Cancel::new()).err().unwrap().code(), "model-quarantined");
    assert_eq!(bench.loads.load(Ordering::SeqCst), 3);
    bench.models.forgive("m");
    bench.gate.send(true).unwrap();
    assert!(bench.lease(&Cancel::new()).is_ok());
}

#[test]
fn while_a_model_rests_after_breaking_a_request_can_be_cancelled() {
    let bench = Bench::new(1 << 20);
    let crash = Error::new("worker-crashed", "its worker was killed");
    for _ in 0..2 {
        bench.gate.send(true).unwrap();
        let lease = bench.lease(&Cancel::new()).unwrap();
        bench.models.broke(&lease, &crash);
    }
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(bench.lease(&cancel).err().unwrap().code(), "cancelled");
    assert_eq!(bench.loads.load(Ordering::SeqCst), 2);
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

fn used(bench: &Bench) -> u64 {
    bench.models.devices().iter().map(|device| device.used).sum()
}

/// Waits until so much is held: what nobody uses is freed on a thread of its own.
fn holds(bench: &Bench, bytes: u64) {
    while used(bench) != bytes {
        std::thread::yield_now();
    }
}

/// Waits until so many loads have begun.
fn begun(bench: &Bench, loads: usize) {
    while bench.loads.load(Ordering::SeqCst) < loads {
        std::thread::yield_now();
    }
}

/// A machine with so much free memory, in all 64 MiB.
#[derive(Clone)]
struct Machine(Arc<AtomicU64>);

impl Provider for Machine {
    fn hardware(&self) -> Result<Hardware> {
        let mut hardware = Hardware::detect();
        hardware.memory.total = 64 << 20;
        hardware.memory.available = self.0.load(Ordering::SeqCst);
        hardware.gpus.devices.clear();
        Ok(hardware)
    }
}

#[test]
fn a_model_that_became_another_is_kept_by_who_has_it_and_by_nobody_else() {
    let bench = Bench::new(1 << 20);
    bench.gate.send(true).unwrap();
    bench.gate.send(true).unwrap();
    let old = bench.lease(&Cancel::new()).unwrap();
    bench.models.outdate(["m"], 1);
    assert!(bench.models.loaded().is_empty());
    assert_eq!(used(&bench), 1 << 20, "what the old one holds stays counted");
    assert!(bench.lease_of(0, &Cancel::new()).unwrap().is_none(), "a late request asks again");
    let new = bench.lease_of(1, &Cancel::new()).unwrap().unwrap();
    assert_eq!((bench.loads.load(Ordering::SeqCst), used(&bench)), (2, 2 << 20));
    drop(old);
    holds(&bench, 1 << 20);
    let status = bench.models.status(["m"]).remove(0);
    assert_eq!(
        (status.in_flight, status.loads),
        (1, 2),
        "the end of the old one's request is not the new one's"
    );
    drop(new);
    assert_eq!(bench.models.status(["m"])[0].in_flight, 0);
}

#[test]
fn who_waits_for_a_load_that_is_outdated_asks_again() {
    let bench = Bench::new(1 << 20);
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| bench.lease_of(0, &Cancel::new()));
        begun(&bench, 1);
        bench.models.outdate(["m"], 1);
        assert!(loader.join().unwrap().unwrap().is_none(), "it does not wait for what nobody wants");
        assert_eq!(used(&bench), 1 << 20, "the load is not over");
        bench.gate.send(true).unwrap();
        holds(&bench, 0);
        assert!(bench.models.loaded().is_empty());
    });
}

#[test]
fn a_lower_limit_lets_idle_models_go() {
    let bench = Bench::new(1 << 20);
    bench.gate.send(true).unwrap();
    let limit =
        |bytes| config::Memory { limit: Some(config::ByteSize::bytes(bytes)), ..config::Memory::default() };
    let busy = bench.lease(&Cancel::new()).unwrap();
    bench.models.limit(limit(1));
    assert_eq!(bench.models.loaded().len(), 1, "a busy one stays");
    drop(busy);
    bench.models.limit(limit(1));
    assert!(bench.models.loaded().is_empty());
    assert_eq!(bench.lease(&Cancel::new()).err().unwrap().code(), "out-of-memory");
}

#[test]
fn a_load_that_hangs_holds_nobody_who_gives_up() {
    let bench = Bench::new(40 << 20);
    let hanging = Cancel::new();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.lease(&hanging));
        begun(&bench, 1);
        let second = scope.spawn(|| bench.lease(&hanging));
        let other = scope.spawn(|| bench.lease_as("other", 0, &hanging));
        hanging.cancel();
        let ended = [first.join().unwrap().err(), second.join().unwrap().err(), other.join().unwrap().err()];
        assert!(
            ended.iter().all(|error| error.as_ref().is_some_and(|e| e.code() == "cancelled")),
            "{ended:?}"
        );
    });
    assert_eq!(used(&bench), 40 << 20, "what the backend may hold is not given to others");
    bench.gate.send(true).unwrap();
    assert!(bench.lease(&Cancel::new()).is_ok(), "what came late is used");
    assert_eq!(bench.loads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_model_waits_until_requests_leave_its_room() {
    let bench = Bench::new(40 << 20);
    bench.gate.send(true).unwrap();
    bench.gate.send(true).unwrap();
    let first = bench.lease(&Cancel::new()).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| bench.lease_as("other", 0, &Cancel::new()).map(drop));
        while bench.models.status(["other"]).iter().all(|status| status.waiting == 0) {
            std::thread::yield_now();
        }
        drop(first);
        waits.join().unwrap().unwrap();
    });
    assert_eq!(bench.models.loaded().iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[test]
fn memory_that_another_process_fills_is_not_promised() {
    let machine = Machine(Arc::new(AtomicU64::new(10 << 20)));
    let bench = Bench::on(20 << 20, &machine);
    let refused = bench.lease(&Cancel::new()).err().unwrap();
    assert_eq!(refused.code(), "out-of-memory");
    assert!(refused.message().ends_with("others hold 54 MiB, which leaves 10 MiB"), "{refused}");
    assert_eq!(bench.models.devices()[0].others, 54 << 20);
    // Whoever chooses a model is told, too.
    let cpu = bench.models.glance([]).devices["cpu"];
    assert_eq!((cpu.room, cpu.budget), (10 << 20, 64 << 20));
    machine.0.store(64 << 20, Ordering::SeqCst);
    bench.gate.send(true).unwrap();
    assert!(bench.lease(&Cancel::new()).is_ok());
}

#[test]
fn a_thousand_loads_leave_nothing_behind() {
    let bench = Bench::new(1 << 20);
    for _ in 0..1000 {
        bench.gate.send(true).unwrap();
        drop(bench.lease(&Cancel::new()).unwrap());
        assert!(bench.models.unload("m"));
        assert_eq!(used(&bench), 0);
    }
    assert_eq!(bench.models.loads("m").map(|(loads, _)| loads), Some(1000));
}

#[test]
fn a_model_goes_when_its_time_is_over() {
    let bench = Bench::new(1 << 20);
    bench.models.set_ttls([("m".to_owned(), std::time::Duration::from_millis(1))].into());
    bench.gate.send(true).unwrap();
    drop(bench.lease(&Cancel::new()).unwrap());
    // Ends within the test's time, or the test does not.
    holds(&bench, 0);
}

#[test]
fn the_end_of_a_host_waits_for_what_it_began() {
    let bench = Bench::new(1 << 20);
    bench.gate.send(true).unwrap();
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| bench.lease(&Cancel::new()).map(drop));
        let _ = asker.join().unwrap();
    });
    bench.models.close();
    let late = bench.lease_as("other", 0, &Cancel::new()).err().unwrap();
    assert_eq!((late.code(), bench.loads.load(Ordering::SeqCst)), ("cancelled", 1));
}
