//! The native plugins of this machine: found, verified, opened, and chosen among.

mod choose;
pub(crate) mod extension;
mod fitness;
mod machine;
mod search;
#[cfg(unix)]
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_plugin_api::host::{self, Policy, Report};
use pajamas_plugin_api::{
    Backend, BackendInfo, HostContext, HostServices, Level, Probe, Quantizer, QuantizerInfo,
};

pub use choose::{Asked, Choice, Rejection};
pub use machine::Machine;
pub use search::{Place, places};

use fitness::Fitness;

use crate::config::{self, Isolation};
use crate::error::{Error, Result};

/// A backend of a plugin that this machine can use, or cannot: the score tells.
pub struct ActiveBackend {
    /// The plugin it came from.
    pub plugin: String,
    /// What it is.
    pub info: BackendInfo,
    /// How well it runs here, and why.
    pub probe: Probe,
    /// The backend itself.
    pub backend: Arc<dyn Backend>,
    /// The same with each model in a process of its own, where the system has that.
    pub worker: Option<Arc<dyn Backend>>,
    /// Whether the plugin's models run so, unless they say more.
    pub isolation: Isolation,
}

impl ActiveBackend {
    /// `plugin/id`, which is unique.
    pub fn full_id(&self) -> String {
        format!("{}/{}", self.plugin, self.info.id)
    }

    /// Whether a model that wants this isolation runs in a process of its own.
    pub fn isolates(&self, wanted: Isolation) -> bool {
        self.isolation.max(wanted) == Isolation::Process
    }

    /// Who loads a model that wants this isolation.
    ///
    /// # Errors
    /// `isolation-unavailable` where the system has none.
    pub fn runner(&self, wanted: Isolation) -> Result<&Arc<dyn Backend>> {
        if !self.isolates(wanted) {
            return Ok(&self.backend);
        }
        self.worker.as_ref().ok_or_else(|| {
            let message = format!("{} cannot run in a process of its own on this system", self.full_id());
            Error::new("isolation-unavailable", message)
                .help("set `isolation = \"none\"` for the model, and for its plugin in `plugins.isolation`")
        })
    }
}

/// A quantizer of a plugin.
pub struct ActiveQuantizer {
    /// The plugin it came from.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// What it is.
    pub info: QuantizerInfo,
    /// The quantizer itself.
    pub quantizer: Arc<dyn Quantizer>,
}

/// Everything found in the places where plugins are searched.
#[derive(Default)]
pub struct Plugins {
    places: Vec<Place>,
    reports: Vec<Report>,
    backends: Vec<ActiveBackend>,
    /// Backends of the host's own.
    own: Vec<ActiveBackend>,
    quantizers: Vec<ActiveQuantizer>,
    fitness: Fitness,
}

impl Plugins {
    /// Searches, verifies and opens. A plugin that is refused does not stop the others: its report says why.
    pub fn load(config: &config::Plugins) -> Self {
        let mut plugins = Self { places: places(config), ..Self::default() };
        let policy = Policy { require_hash: config.require_hash };
        let found: Vec<PathBuf> = plugins.places.iter_mut().flat_map(Place::look).collect();
        for path in found {
            plugins.open(&path, policy, config);
        }
        plugins
    }

    fn open(&mut self, path: &Path, policy: Policy, config: &config::Plugins) {
        let (mut report, plugin) = host::open(path, policy, |name, folder| context(name, folder, config));
        if let Some(plugin) = plugin {
            let name = plugin.info.name.clone();
            let taken =
                self.backends.iter().map(|b| &b.plugin).chain(self.quantizers.iter().map(|q| &q.plugin));
            if taken.into_iter().any(|other| *other == name) {
                report.shadowed(&name);
            } else {
                let isolation = config.isolation.get(&name).copied().unwrap_or_default();
                self.backends.extend(plugin.backends.into_iter().map(|b| ActiveBackend {
                    plugin: name.clone(),
                    worker: worker(&name, path, config, &b),
                    info: b.info,
                    probe: b.probe,
                    backend: b.backend,
                    isolation,
                }));
                let version = plugin.info.version;
                self.quantizers.extend(plugin.quantizers.into_iter().map(|q| ActiveQuantizer {
                    plugin: name.clone(),
                    version: version.clone(),
                    info: q.info,
                    quantizer: q.quantizer,
                }));
            }
        }
        if let Some(error) = report.error() {
            tracing::warn!(library = %report.library.display(), code = error.code, "plugin refused: {}", error.message);
        }
        self.reports.push(report);
    }

    /// Where plugins were searched, in order.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What was done to each plugin found.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Name and version of each plugin that is open.
    pub fn loaded(&self) -> Vec<(String, String)> {
        let manifests =
            self.reports.iter().filter(|report| report.error().is_none()).filter_map(|r| r.manifest.as_ref());
        manifests.map(|manifest| (manifest.name.clone(), manifest.version.clone())).collect()
    }

    /// All backends of all open plugins, also those that score 0.
    pub fn backends(&self) -> &[ActiveBackend] {
        &self.backends
    }

    /// Adds a backend that belongs to no plugin: it is chosen like the others, and not listed with them.
    pub fn add(&mut self, backend: ActiveBackend) {
        self.own.push(backend);
    }

    /// All quantizers of all open plugins.
    pub fn quantizers(&self) -> &[ActiveQuantizer] {
        &self.quantizers
    }
}

/// Opens one file that a person named, and says all about it. A manifest is not insisted on.
pub fn inspect(path: &Path, config: &config::Plugins) -> (Report, Option<host::LoadedPlugin>) {
    host::open(path, Policy { require_hash: false }, |name, folder| context(name, folder, config))
}

/// The backend with each model in a process of its own.
#[cfg(unix)]
fn worker(
    name: &str,
    path: &Path,
    config: &config::Plugins,
    backend: &host::LoadedBackend,
) -> Option<Arc<dyn Backend>> {
    let recipe = worker::Recipe {
        plugin: name.to_owned(),
        path: path.to_path_buf(),
        require_hash: config.require_hash,
        settings: settings(name, config),
        patience: config.worker,
    };
    let (info, probe) = (backend.info.clone(), backend.probe.clone());
    Some(Arc::new(worker::WorkerBackend::new(recipe, info, probe)))
}

/// Elsewhere there are neither such sockets nor such memory.
#[cfg(not(unix))]
fn worker(_: &str, _: &Path, _: &config::Plugins, _: &host::LoadedBackend) -> Option<Arc<dyn Backend>> {
    None
}

fn settings(name: &str, config: &config::Plugins) -> serde_json::Value {
    config.settings.get(name).cloned().map_or(serde_json::Value::Null, serde_json::Value::Object)
}

fn context(name: &str, folder: &Path, config: &config::Plugins) -> HostContext {
    let settings = settings(name, config);
    HostContext::new(Services { name: name.to_owned(), folder: folder.to_path_buf(), settings })
}

/// A plugin's line, from this process or from a worker; `level` is a [`Level`] as a number.
fn log(plugin: &str, level: u8, message: &str) {
    let message = message.trim_end();
    match level {
        1 => tracing::error!(plugin, "{message}"),
        2 => tracing::warn!(plugin, "{message}"),
        3 => tracing::info!(plugin, "{message}"),
        _ => tracing::debug!(plugin, "{message}"),
    }
}

/// The host as one plugin sees it.
struct Services {
    name: String,
    folder: PathBuf,
    settings: serde_json::Value,
}

impl HostServices for Services {
    fn log(&self, level: Level, message: &str) {
        log(&self.name, level as u8, message);
    }

    fn plugin_dir(&self) -> PathBuf {
        self.folder.clone()
    }

    fn settings(&self) -> serde_json::Value {
        self.settings.clone()
    }
}
