//! What the loaded models tell whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::shelf::Slot;
use super::status::{Change, Failure, State, Status};
use super::store::{Loaded, Models};

/// Models and devices at one moment.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// State and bytes by device, by model.
    pub models: BTreeMap<String, (State, BTreeMap<String, u64>)>,
    /// By device.
    pub devices: BTreeMap<String, DeviceGlance>,
}

/// The memory of a device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceGlance {
    /// What models may hold.
    pub budget: u64,
    /// What they hold.
    pub held: u64,
    /// What of that would give way to another model.
    pub idle: u64,
}

impl Models {
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

    /// What these models are doing and hold, and what the devices hold: from one moment, and without asking a plugin.
    pub fn glance<'i>(&self, ids: impl IntoIterator<Item = &'i str>) -> Glance {
        let shelf = self.shelf();
        let model = |id: &str| {
            let bytes = shelf.ledger.holding(id).map(|holding| holding.bytes.clone());
            (id.to_owned(), (shelf.state(id), bytes.unwrap_or_default()))
        };
        let devices = shelf.ledger.devices().map(|(id, budget, held)| {
            (id.to_owned(), DeviceGlance { budget, held, idle: shelf.ledger.idle(id) })
        });
        Glance { models: ids.into_iter().map(model).collect(), devices: devices.collect() }
    }

    /// How often a model was loaded, and how long it took the latest time.
    pub fn loads(&self, id: &str) -> Option<(u64, Duration)> {
        self.shelf().loads.get(id).copied()
    }

    /// The models in memory.
    pub fn loaded(&self) -> Vec<Arc<Loaded>> {
        let ready = |slot: &Slot| match slot {
            Slot::Ready(loaded) => Some(Arc::clone(loaded)),
            Slot::Loading => None,
        };
        self.shelf().slots.values().filter_map(ready).collect()
    }

    /// What one model is doing, and why it failed if it did; asks no plugin.
    pub fn state(&self, id: &str) -> (State, Option<Failure>) {
        let shelf = self.shelf();
        (shelf.state(id), shelf.failures.get(id).cloned())
    }

    /// How long loading a model took the latest time.
    pub fn took_to_load(&self, id: &str) -> Option<Duration> {
        self.shelf().loads.get(id).map(|(_, latest)| *latest)
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
                    loads: shelf.loads.get(&id).map_or(0, |(count, _)| *count),
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
}
