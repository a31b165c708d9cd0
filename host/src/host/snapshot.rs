//! What a decision is made of: the configured models and the devices, at one moment.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Host;
use super::routing::Excluded;
use super::setup::Setup;
use crate::config::{Known, Model, Task};
use crate::error::{Error, Result};
use crate::hardware::GpuHeat;
use crate::models::{DeviceGlance, ModelGlance, Spec, State, by_device};
use crate::router::{self, Device, Fault, Share, Snapshot};

/// What is known of a configured model without loading it; found out once for a configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Where it lies and what it is; `None` where that was not found out.
    pub(super) spec: Option<Arc<Spec>>,
    task: Option<Task>,
    source: String,
    context: Option<u32>,
    device: router::Name,
    /// What it would hold on its device.
    memory: Option<u64>,
    /// What it would hold on others.
    elsewhere: BTreeMap<String, u64>,
    unusable: Option<Fault>,
}

impl Facts {
    pub(super) fn is_unusable(&self) -> bool {
        self.unusable.is_some()
    }
}

/// What a model holds, or would hold, beside its own device.
fn elsewhere(
    facts: &Facts,
    held: &BTreeMap<String, u64>,
    gave_back: &BTreeMap<String, u64>,
) -> BTreeMap<router::Name, Share> {
    let all = if held.is_empty() { &facts.elsewhere } else { held };
    let others = all.iter().filter(|(device, _)| ***device != *facts.device);
    let share = |(device, memory): (&String, &u64)| {
        let gave_back = gave_back.get(device).copied().unwrap_or(0);
        (router::Name::from(&**device), Share { memory: *memory, gave_back })
    };
    others.map(share).collect()
}

impl Host {
    /// What a decision would be made of now.
    pub fn snapshot_now(&self) -> Snapshot {
        self.snapshot(&self.current.get(), &Excluded::new())
    }

    /// Compares rules and ladders with the models that they name: what these do, and whether they can ever be in the
    /// memory of this machine. Of a model that no backend here can run nothing is known.
    ///
    /// # Errors
    /// `config-conflict`, `config-too-large`.
    pub fn check_routes(&self) -> Result<()> {
        let setup = self.current.get();
        let devices = self.models.glance([]).devices;
        let mut known = BTreeMap::new();
        for model in &setup.config.models {
            let facts = self.look(model, true).unwrap_or_default();
            let budget = devices.get(&*facts.device).map(|device| device.budget);
            let memory = budget.zip(facts.memory);
            let leaves = memory.and_then(|(budget, needs)| budget.checked_sub(needs));
            let too_large = memory.filter(|(budget, needs)| needs > budget);
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let too_large = too_large.map(|(budget, needs)| {
                let (needs, budget) = (mib(needs), mib(budget));
                format!(
                    "`{}` needs {needs} MiB on {}, where models may hold {budget} MiB",
                    model.id, facts.device
                )
            });
            known.insert(model.id.to_string(), Known { task: facts.task, too_large, leaves });
        }
        Ok(setup.config.check_known(&|id| known.get(id).cloned().unwrap_or_default())?)
    }

    /// All that a decision may look at, but for where requests like it went.
    pub(super) fn snapshot(&self, setup: &Setup, excluded: &Excluded) -> Snapshot {
        let config = &setup.config;
        let glance = self.models.glance(config.models.iter().map(|model| &*model.id));
        let inside: BTreeMap<String, u32> = self.admission.inside().into_iter().collect();
        let troubles = self.memory.troubles.now();
        let models = config.models.iter().map(|model| {
            let facts = self.facts(setup, model);
            let spec = facts.spec.as_deref();
            let id = model.id.to_string();
            let ModelGlance { mut state, held, gave_back } =
                glance.models.get(&id).cloned().unwrap_or_default();
            if model.remote.is_some() && state == State::Unloaded {
                // Nothing has to be loaded for it.
                state = State::Ready;
            }
            let health = &self.memory.health;
            let resting = model.remote.as_ref().and_then(|remote| health.refuses(&id, remote));
            let resting = resting.as_ref().map(Fault::from);
            let (observed, slots) = self.memory.observed.of(&id, &facts.device);
            let known = router::Model {
                task: facts.task,
                state,
                source: facts.source.clone(),
                format: spec.map_or_else(String::new, |spec| spec.format.clone()),
                precision: spec.and_then(|spec| spec.precision.clone()),
                context: facts.context,
                device: facts.device.clone(),
                memory: held.get(&*facts.device).copied().or(facts.memory),
                gave_back: gave_back.get(&*facts.device).copied().unwrap_or(0),
                elsewhere: elsewhere(&facts, &held, &gave_back),
                inside: inside.get(&id).copied().unwrap_or(0),
                // Until it was asked for the first time, what its entry says.
                slots: if slots == 0 {
                    model.remote.as_ref().map_or(0, |remote| remote.parallel)
                } else {
                    slots
                },
                remote: model.remote.is_some(),
                cost: model.cost.get(),
                unusable: excluded
                    .get(&id)
                    .or(resting.as_ref())
                    .or_else(|| troubles.get(&id))
                    .or(facts.unusable.as_ref())
                    .cloned(),
                observed,
            };
            (id, known)
        });
        let heat = setup.rules.heat();
        let devices = glance.devices.iter().map(|(id, device)| {
            let DeviceGlance { room, held, idle, .. } = *device;
            let GpuHeat { temperature, throttled } = if heat { self.heat(id) } else { GpuHeat::default() };
            (id.clone(), Device { budget: room, held, idle, temperature, throttled })
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Snapshot {
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            models: models.collect(),
            devices: devices.collect(),
            affinity: BTreeMap::new(),
        }
    }

    /// How hot a device is, where it is known. Whether heat slows the processor down no system says.
    fn heat(&self, device: &str) -> GpuHeat {
        if device == "cpu" {
            return GpuHeat { temperature: self.memory.heat.cpu(), throttled: false };
        }
        if !device.starts_with("cuda:") {
            return GpuHeat::default();
        }
        let mut devices = self.plugins.backends().iter().flat_map(|backend| &backend.probe.devices);
        let name = devices.find(|known| known.id == device).map_or("", |known| &known.name);
        self.memory.heat.gpu(name)
    }

    /// Found out when it is asked for the first time; again after a moment where something is wrong, which may pass.
    pub(super) fn facts(&self, setup: &Setup, model: &Model) -> Arc<Facts> {
        if let Some(facts) = setup.facts(&model.id) {
            return facts;
        }
        // A backend reads the file to estimate: only where models are compared.
        let facts = self.look(model, setup.rules.compare(&model.id)).unwrap_or_else(|error| {
            let unusable = Some(Fault::from(&error));
            Facts { task: model.task, unusable, ..Facts::default() }
        });
        let facts = Arc::new(facts);
        setup.know(&model.id, &facts);
        facts
    }

    fn look(&self, model: &Model, estimate: bool) -> Result<Facts> {
        let spec = Spec::of_model(model)?;
        let mut hasher = DefaultHasher::new();
        model.location().hash(&mut hasher);
        model.remote.as_ref().map(|remote| (&remote.url, &remote.model)).hash(&mut hasher);
        let context = spec.options.get("context_length").and_then(Value::as_u64);
        let mut facts = Facts {
            task: spec.task,
            source: format!("{:016x}", hasher.finish()),
            context: context.and_then(|tokens| u32::try_from(tokens).ok()),
            ..Facts::default()
        };
        let spec = Arc::new(spec);
        facts.spec = Some(Arc::clone(&spec));
        match self.plugins.choose(spec.asked()) {
            Ok(choice) => {
                facts.device =
                    choice.device.map(|device| router::Name::from(&*device.id)).unwrap_or_default();
                if estimate {
                    let runner = choice.backend.runner(spec.isolation)?;
                    let estimate = runner.estimate(&spec.asked().request(choice.device));
                    match estimate {
                        Ok(memory) => {
                            let mut memory = by_device(&memory);
                            facts.memory = memory.remove(&*facts.device);
                            facts.elsewhere = memory;
                        }
                        Err(error) => facts.unusable = Some(Fault::from(&Error::from(error))),
                    }
                }
            }
            Err(error) => facts.unusable = Some(Fault::from(&error)),
        }
        Ok(facts)
    }
}
