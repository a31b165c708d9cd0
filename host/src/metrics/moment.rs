//! What is now, as gauges: set anew for each look.

use pajamas_plugin_api::{EngineStats, Memory};
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Seconds, counter, gauge, seconds};
use crate::models::{DeviceUse, State, Status};

/// Gauges of what is now.
pub(super) struct Moment {
    queue: Gauges,
    states: Gauges,
    loads: Counters,
    leaks: Counters,
    waiting: Gauges,
    load_times: Seconds,
    memory: Gauges,
    budget: Gauges,
    plugins: Gauges,
    engine: Gauges,
}

/// What [`Metrics::encode`] has to be told, since nobody tells it when it changes.
pub struct Now {
    /// Requests inside, by model.
    pub inside: Vec<(String, u32)>,
    /// All models that are known.
    pub models: Vec<Status>,
    /// Engines of loaded models.
    pub engines: Vec<(String, EngineStats)>,
    /// The devices, and what is held there.
    pub devices: Vec<DeviceUse>,
    /// Name and version of each plugin.
    pub plugins: Vec<(String, String)>,
}

impl Moment {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            queue: gauge(registry, "queue_depth", "Requests that wait for a place in the model's engine"),
            states: gauge(registry, "model_state", "1 for the state that the model is in"),
            loads: counter(registry, "model_loads", "How often a model was loaded"),
            leaks: counter(
                registry,
                "model_leaks",
                "How often much less memory came back than a model had taken, twice in a row",
            ),
            waiting: gauge(registry, "model_waiting", "Requests that wait for the model to be loaded"),
            load_times: seconds(
                registry,
                "model_load_seconds",
                "How long loading took the model that is in memory",
            ),
            memory: gauge(registry, "memory_bytes", "Memory that models hold, by device, owner and kind"),
            budget: gauge(
                registry,
                "vram_bytes",
                "Memory of a device: what models may hold (total), what they hold (used), and what others held when it was \
                 last asked (others)",
            ),
            plugins: gauge(registry, "plugin_loaded", "1 for each plugin that is loaded"),
            engine: gauge(
                registry,
                "engine",
                "What the engine of a text model reports, by the name of the number",
            ),
        }
    }

    pub(super) fn set(&self, now: &Now) {
        let gauges = [
            &self.queue,
            &self.states,
            &self.waiting,
            &self.memory,
            &self.budget,
            &self.plugins,
            &self.engine,
        ];
        gauges.into_iter().for_each(Gauges::clear);
        self.load_times.clear();
        self.loads.clear();
        self.leaks.clear();
        let put = |family: &Gauges, labels: &[(&'static str, &str)], value: u64| {
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for (model, inside) in &now.inside {
            // An engine knows how many wait; of the others all that are inside run.
            let waiting =
                now.engines.iter().find(|(id, _)| id == model).map_or(0, |(_, stats)| stats.waiting);
            put(&self.queue, &[("model", model)], u64::from(waiting.min(*inside)));
        }
        for status in &now.models {
            for state in State::ALL {
                let is = u64::from(status.state == state);
                put(&self.states, &[("model", &status.id), ("state", state.name())], is);
            }
            self.loads.get_or_create(&vec![("model", status.id.clone())]).inc_by(status.loads);
            self.leaks.get_or_create(&vec![("model", status.id.clone())]).inc_by(status.leaks);
            put(&self.waiting, &[("model", &status.id)], status.waiting as u64);
            if let Some(took) = status.load_ms {
                self.load_times.get_or_create(&vec![("model", status.id.clone())]).set(took / 1e3);
            }
            for Memory { device, weights, kv, scratch } in &status.memory {
                for (kind, bytes) in [("weights", weights), ("kv", kv), ("scratch", scratch)] {
                    put(&self.memory, &[("device", device), ("owner", &status.id), ("kind", kind)], *bytes);
                }
            }
        }
        for DeviceUse { device, total, used, others } in &now.devices {
            for (kind, bytes) in [("total", total), ("used", used), ("others", others)] {
                put(&self.budget, &[("device", device), ("kind", kind)], *bytes);
            }
        }
        for (name, version) in &now.plugins {
            put(&self.plugins, &[("name", name), ("version", version)], 1);
        }
        for (model, stats) in &now.engines {
            for (name, value) in numbers(stats) {
                put(&self.engine, &[("model", model), ("number", name)], value);
            }
        }
    }
}

fn numbers(stats: &EngineStats) -> [(&'static str, u64); 13] {
    [
        ("slots", stats.slots.into()),
        ("busy", stats.busy.into()),
        ("waiting", stats.waiting.into()),
        ("cache_tokens_total", stats.cache_tokens_total),
        ("cache_tokens_used", stats.cache_tokens_used),
        ("prompt_tokens", stats.prompt_tokens),
        ("cached_tokens", stats.cached_tokens),
        ("generated_tokens", stats.generated_tokens),
        ("batches", stats.batches),
        ("preempted", stats.preempted),
        ("cancelled", stats.cancelled),
        ("drafted", stats.drafted),
        ("accepted", stats.accepted),
    ]
}
