//! What is now, as gauges: set anew for each look.

use pajamas_plugin_api::{EngineStats, Memory};
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Seconds, counter, gauge, seconds};
use crate::admission::Waiting;
use crate::jobs::Counts;
use crate::models::{DeviceUse, State, Status};
use crate::remote::Phase;

/// Gauges of what is now.
pub(super) struct Moment {
    queue: Gauges,
    states: Gauges,
    loads: Counters,
    wakes: Counters,
    leaks: Counters,
    waiting: Gauges,
    load_times: Seconds,
    memory: Gauges,
    budget: Gauges,
    plugins: Gauges,
    engine: Gauges,
    remotes: Gauges,
    keys: Gauges,
    key_queue: Gauges,
    jobs: Gauges,
    jobs_ended: Counters,
}

/// What [`Metrics::encode`] has to be told, since nobody tells it when it changes.
pub struct Now {
    /// Requests inside, by model.
    pub inside: Vec<(String, u32)>,
    /// Who waits before the engines.
    pub waiting: Vec<Waiting>,
    /// Requests inside, by key of the server, of those that have limits.
    pub keys: Vec<(String, u32)>,
    /// All models that are known.
    pub models: Vec<Status>,
    /// Engines of loaded models.
    pub engines: Vec<(String, EngineStats)>,
    /// The devices, and what is held there.
    pub devices: Vec<DeviceUse>,
    /// Name and version of each plugin.
    pub plugins: Vec<(String, String)>,
    /// Remote models, and the state of each one's breaker.
    pub remotes: Vec<(String, &'static str)>,
    /// Jobs, by where they are.
    pub jobs: Counts,
}

impl Moment {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            queue: gauge(
                registry,
                "queue_depth",
                "Requests that wait for the model, in its engine or before it",
            ),
            states: gauge(registry, "model_state", "1 for the state that the model is in"),
            loads: counter(registry, "model_loads", "How often a model was loaded"),
            wakes: counter(registry, "model_wakes", "How often a model was woken from its sleep"),
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
            key_queue: gauge(
                registry,
                "key_queue_depth",
                "Requests that wait before the model's engine, by the key of the server that they were sent with",
            ),
            keys: gauge(
                registry,
                "key_requests_in_flight",
                "Requests that run or wait, by key of the server, of keys that have limits",
            ),
            remotes: gauge(
                registry,
                "remote_state",
                "1 for where the breaker of a remote model is: closed, open, half-open",
            ),
            jobs: gauge(registry, "jobs", "Jobs by state: queued, running"),
            jobs_ended: counter(registry, "jobs_ended", "Jobs that ended, by state: done, failed, cancelled"),
        }
    }

    pub(super) fn set(&self, now: &Now) {
        let families = [
            &self.queue,
            &self.states,
            &self.waiting,
            &self.memory,
            &self.budget,
            &self.plugins,
            &self.engine,
            &self.remotes,
        ];
        for family in families.into_iter().chain([&self.keys, &self.key_queue]) {
            family.clear();
        }
        self.load_times.clear();
        self.loads.clear();
        self.wakes.clear();
        self.leaks.clear();
        self.jobs_ended.clear();
        let put = |family: &Gauges, labels: &[(&'static str, &str)], value: u64| {
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for (model, inside) in &now.inside {
            // An engine knows how many wait; of the others all that are inside run.
            let waiting =
                now.engines.iter().find(|(id, _)| id == model).map_or(0, |(_, stats)| stats.waiting);
            let before =
                now.waiting.iter().find(|one| one.model == *model).map_or(0, |one| one.waiting as u64);
            put(&self.queue, &[("model", model)], u64::from(waiting.min(*inside)) + before);
        }
        for status in &now.models {
            for state in State::ALL {
                let is = u64::from(status.state == state);
                put(&self.states, &[("model", &status.id), ("state", state.name())], is);
            }
            self.loads.get_or_create(&vec![("model", status.id.clone())]).inc_by(status.loads);
            self.wakes.get_or_create(&vec![("model", status.id.clone())]).inc_by(status.wakes);
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
        for Waiting { model, by_key, .. } in &now.waiting {
            for (key, count) in by_key {
                put(&self.key_queue, &[("model", model), ("key", key)], *count as u64);
            }
        }
        for (key, inside) in &now.keys {
            put(&self.keys, &[("key", key)], u64::from(*inside));
        }
        let Counts { queued, running, done, failed, cancelled } = now.jobs;
        for (state, jobs) in [("queued", queued), ("running", running)] {
            put(&self.jobs, &[("state", state)], jobs);
        }
        for (state, jobs) in [("done", done), ("failed", failed), ("cancelled", cancelled)] {
            self.jobs_ended.get_or_create(&vec![("state", state.to_owned())]).inc_by(jobs);
        }
        for (model, state) in &now.remotes {
            for phase in Phase::ALL {
                let is = u64::from(phase.name() == *state);
                put(&self.remotes, &[("model", model), ("state", phase.name())], is);
            }
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
