//! What a plugin is made of, and what the host gives it at birth.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::extension::Extension;
use crate::quantizer::Quantizer;

/// Who made a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// The plugin's name, the one in its manifest.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub license: String,
    /// Who answers for it.
    pub vendor: String,
    /// One line for people.
    pub description: String,
}

/// Everything a plugin exports: what the function given to [`export_plugin!`](crate::export_plugin) returns.
#[derive(Default)]
pub struct Plugin {
    /// Who made it.
    pub info: PluginInfo,
    /// The backends, in order of preference.
    pub backends: Vec<Box<dyn Backend>>,
    /// The quantizers.
    pub quantizers: Vec<Box<dyn Quantizer>>,
}

impl Plugin {
    /// A plugin without backends or quantizers yet.
    pub fn new(info: PluginInfo) -> Self {
        Self { info, ..Self::default() }
    }

    /// Adds a backend.
    #[must_use]
    pub fn backend(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.push(Box::new(backend));
        self
    }

    /// Adds a quantizer.
    #[must_use]
    pub fn quantizer(mut self, quantizer: impl Quantizer + 'static) -> Self {
        self.quantizers.push(Box::new(quantizer));
        self
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
}

/// What a host implements for its plugins. Called from any thread.
pub trait HostServices: Send + Sync {
    /// Takes a log line.
    fn log(&self, level: Level, message: &str);

    /// The folder of the plugin's dylib: where the libraries it brings along lie.
    fn plugin_dir(&self) -> PathBuf;

    /// The operator's settings for this plugin: the `[plugins.settings.NAME]` table as JSON, or null.
    fn settings(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// A service that this version of the trait does not know, by name; `None` when not offered.
    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        None
    }
}

/// The host as a plugin sees it. Clone it into whatever needs it; it lives as long as the process.
#[derive(Clone)]
pub struct HostContext(Arc<dyn HostServices>);

impl HostContext {
    /// A context over an implementation: the host's adapter in a dylib, or a test's own.
    pub fn new(services: impl HostServices + 'static) -> Self {
        Self(Arc::new(services))
    }

    /// Writes a log line through the host.
    pub fn log(&self, level: Level, message: impl AsRef<str>) {
        self.0.log(level, message.as_ref());
    }

    /// The folder of the plugin's dylib.
    pub fn plugin_dir(&self) -> PathBuf {
        self.0.plugin_dir()
    }

    /// The operator's settings for this plugin, or null.
    pub fn settings(&self) -> serde_json::Value {
        self.0.settings()
    }

    /// A service of the host that this version of the traits does not know.
    pub fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        self.0.extension(name)
    }

    /// A context that logs to standard error: for a plugin's own unit tests.
    pub fn for_tests(plugin_dir: impl AsRef<Path>) -> Self {
        struct Stderr(PathBuf);
        impl HostServices for Stderr {
            fn log(&self, level: Level, message: &str) {
                eprintln!("[{level:?}] {message}");
            }
            fn plugin_dir(&self) -> PathBuf {
                self.0.clone()
            }
        }
        Self::new(Stderr(plugin_dir.as_ref().to_path_buf()))
    }
}
