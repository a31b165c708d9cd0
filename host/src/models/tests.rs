//! Loading, sharing, refusing and replacing, with a backend that waits for the test.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, LoadRequest, Memory, PluginError, Probe, ProgressSink, Session, Signature,
};

use super::{Lease, Models, Order};
use crate::config::{self, Isolation};
use crate::error::{Error, Result};
use crate::plugins::{ActiveBackend, Choice};

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

    fn lease(&self, cancel: &Cancel) -> Result<Lease> {
        self.lease_of(0, cancel).map(|lease| lease.expect("nothing is outdated"))
    }

    fn lease_of(&self, generation: u64, cancel: &Cancel) -> Result<Option<Lease>> {
        let choice = Choice { backend: &self.backend, device: None, rejected: Vec::new() };
        let request = LoadRequest {
            path: "m".into(),
            format: "gate".into(),
            device: String::new(),
            options: serde_json::Value::Null,
        };
        let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
        let order = Order {
            id: "m",
            generation,
            choice: &choice,
            request: &request,
            isolation: Isolation::None,
            chat_template: None,
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
    bench.models.devices().iter().map(|(_, _, used)| used).sum()
}

#[test]
fn a_model_that_became_another_is_kept_by_who_has_it_and_by_nobody_else() {
    let bench = Bench::new(1 << 20);
    bench.gate.send(true).unwrap();
    bench.gate.send(true).unwrap();
    let old = bench.lease(&Cancel::new()).unwrap();
    drop(bench.models.outdate(["m"], 1));
    assert!(bench.models.loaded().is_empty());
    assert_eq!(used(&bench), 1 << 20, "what the old one holds stays counted");
    assert!(bench.lease_of(0, &Cancel::new()).unwrap().is_none(), "a late request asks again");
    let new = bench.lease_of(1, &Cancel::new()).unwrap().unwrap();
    assert_eq!((bench.loads.load(Ordering::SeqCst), used(&bench)), (2, 2 << 20));
    drop(old);
    assert_eq!(used(&bench), 1 << 20);
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
fn a_load_that_is_outdated_when_it_ends_serves_only_who_began_it() {
    let bench = Bench::new(1 << 20);
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| bench.lease(&Cancel::new()));
        while bench.loads.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        drop(bench.models.outdate(["m"], 1));
        bench.gate.send(true).unwrap();
        let old = loader.join().unwrap().unwrap();
        assert!(bench.models.loaded().is_empty());
        assert_eq!(used(&bench), 1 << 20);
        drop(old);
        assert_eq!(used(&bench), 0);
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
