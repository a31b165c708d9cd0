//! What the loaded models tell whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::fleet::DeviceUse;
use super::loaded::Loaded;
use super::status::{Change, Failure, State, Status};
use super::store::Models;
use crate::error::Error;

/// Models and devices at one moment.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// By id.
    pub models: BTreeMap<String, ModelGlance>,
    /// By device.
    pub devices: BTreeMap<String, DeviceGlance>,
}

/// What a model is doing, and its bytes by device.
#[derive(Debug, Clone, Default)]
pub struct ModelGlance {
    /// Its state.
    pub state: State,
    /// What it holds, or has reserved.
    pub held: BTreeMap<String, u64>,
    /// What it holds less than awake, where it sleeps.
    pub gave_back: BTreeMap<String, u64>,
}

/// The memory of a device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceGlance {
    /// What models may hold by the configuration.
    pub budget: u64,
    /// What of that others leave.
    pub room: u64,
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

    /// Limit and use of every device that models can be loaded to.
    pub fn devices(&self) -> Vec<DeviceUse> {
        self.shelf().fleet.devices().collect()
    }

    /// What these models are doing and hold, and what the devices hold: from one moment, and without asking a plugin.
    pub fn glance<'i>(&self, ids: impl IntoIterator<Item = &'i str>) -> Glance {
        let shelf = self.shelf();
        let fleet = &shelf.fleet;
        let model = |id: &str| {
            let held = fleet.holding(id).cloned().unwrap_or_default();
            let gave_back = fleet.gave_back(id).unwrap_or_default();
            (id.to_owned(), ModelGlance { state: fleet.state(id), held, gave_back })
        };
        let device = |DeviceUse { device, total, used, .. }: DeviceUse| {
            let (idle, room) = (fleet.idle(&device), fleet.room_on(&device).unwrap_or(total));
            (device, DeviceGlance { budget: total, room, held: used, idle })
        };
        Glance {
            models: ids.into_iter().map(model).collect(),
            devices: fleet.devices().map(device).collect(),
        }
    }

    /// How often a model was loaded, and how long it took the latest time.
    pub fn loads(&self, id: &str) -> Option<(u64, Duration)> {
        self.shelf().fleet.loads(id)
    }

    /// How often a model was woken, and how long it took the latest time.
    pub fn wakes(&self, id: &str) -> Option<(u64, Duration)> {
        self.shelf().fleet.wakes(id)
    }

    /// The models in memory.
    pub fn loaded(&self) -> Vec<Arc<Loaded>> {
        self.shelf().offered()
    }

    /// What one model is doing, and why it failed if it did; asks no plugin.
    pub fn state(&self, id: &str) -> (State, Option<Failure>) {
        let shelf = self.shelf();
        (shelf.fleet.state(id), shelf.fleet.failure(id).cloned())
    }

    /// How long it will be until a model is loaded, if that takes as long as the latest time; `None` when it never was.
    pub fn left_to_load(&self, id: &str) -> Option<Duration> {
        let shelf = self.shelf();
        shelf.fleet.left_to_load(id, self.now())
    }

    /// Why a model is not loaded now, and when it is tried again; `None` when a request may try.
    pub fn back_off(&self, id: &str) -> Option<Error> {
        let shelf = self.shelf();
        shelf.fleet.back_off(id, self.now())
    }

    /// What these models are doing, and all others that are in memory.
    pub fn status<'i>(&self, ids: impl IntoIterator<Item = &'i str>) -> Vec<Status> {
        let mut known: BTreeMap<String, Status> = {
            let shelf = self.shelf();
            let fleet = &shelf.fleet;
            let status = |id: &str| Status {
                id: id.to_owned(),
                state: fleet.state(id),
                pinned: fleet.is_pinned(id),
                in_flight: fleet.in_flight(id),
                waiting: fleet.waiting(id),
                loads: fleet.loads(id).map_or(0, |(count, _)| count),
                wakes: fleet.wakes(id).map_or(0, |(count, _)| count),
                wake_ms: fleet.wakes(id).map(|(_, took)| took.as_secs_f64() * 1e3),
                leaks: fleet.leaks(id),
                expires_ms: fleet.expires(id).map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                failure: fleet.failure(id).cloned(),
                ..Status::default()
            };
            let ids = ids.into_iter().map(str::to_owned).chain(fleet.present().map(str::to_owned));
            ids.map(|id| (id.clone(), status(&id))).collect()
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
