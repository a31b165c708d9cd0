//! The conformance kit (feature `host`): what a plugin author runs on a dylib before anybody else does.
//!
//! [`check`] opens a plugin as a host does, calls every entry with good and with bad input, and reports what
//! kept the contract of the traits and what did not. Without models it can only check how backends and quantizers
//! describe themselves and refuse; with them it also checks inference, generation, what quantizers write and leave,
//! cancelling, threads and leaks.
//!
//! Everything runs in this process and on threads of its own. A call that does not return is reported and left
//! behind, so a process that has found one should end soon.

mod backend;
mod extension;
mod infer;
mod model;
mod quantizer;
mod report;
mod runner;
mod scratch;
mod sink;
mod sleep;
mod slots;
mod source;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use report::{Check, ConformanceReport};

use crate::host::{self, Policy};
use crate::{HostContext, HostServices, Level};
use runner::Runner;

/// What to check, and how patiently.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Models to load and to quantize. A file goes to the backends whose formats, and to the quantizers whose sources,
    /// hold its extension; a folder with a `config.json` to the quantizers that read `huggingface`.
    pub models: Vec<PathBuf>,
    /// The operator's settings for the plugin, as JSON.
    pub settings: serde_json::Value,
    /// How often each model is loaded and unloaded to find leaks.
    pub cycles: u32,
    /// How many threads use one session at the same time.
    pub threads: usize,
    /// How long one check may take before its call counts as one that never returns.
    pub deadline: Duration,
    /// How long work may go on after it was cancelled.
    pub patience: Duration,
    /// The most bytes of output a session may ask for.
    pub output_limit: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            settings: serde_json::Value::Null,
            cycles: 10,
            threads: 4,
            deadline: Duration::from_secs(300),
            patience: Duration::from_secs(5),
            output_limit: 1 << 30,
        }
    }
}

/// Checks the plugin at `path`: its folder, manifest or library. Opens it for good, as every host does.
pub fn check(path: &Path, options: &CheckOptions) -> ConformanceReport {
    let settings = options.settings.clone();
    let host = |_: &str, folder: &Path| HostContext::new(Quiet { folder: folder.into(), settings });
    let (loading, plugin) = host::open(path, Policy { require_hash: false }, host);
    let mut runner = Runner::new(options.clone());
    let info = plugin.as_ref().map(|p| p.info.clone());
    if let Some(plugin) = plugin {
        runner.subject("plugin");
        runner.run("describes itself", {
            let (info, ids) = (plugin.info.clone(), backend::ids(&plugin));
            move || backend::plugin_description(&info, &ids)
        });
        for loaded in &plugin.backends {
            backend::check(&mut runner, loaded);
        }
        for loaded in &plugin.quantizers {
            quantizer::check(&mut runner, loaded);
        }
        runner.subject("models");
        for model in &options.models {
            let taken = plugin.backends.iter().any(|b| model::format_for(&b.info, model).is_some())
                || plugin.quantizers.iter().any(|q| quantizer::reads(&q.info, model));
            if !taken {
                let reason = format!("{}: nothing in the plugin takes this format", model.display());
                runner.skip("loads", &reason);
            }
        }
    }
    ConformanceReport { loading, plugin: info, checks: runner.checks }
}

/// A host that offers nothing but a folder and settings.
struct Quiet {
    folder: PathBuf,
    settings: serde_json::Value,
}

impl HostServices for Quiet {
    fn log(&self, _level: Level, _message: &str) {}

    fn plugin_dir(&self) -> PathBuf {
        self.folder.clone()
    }

    fn settings(&self) -> serde_json::Value {
        self.settings.clone()
    }
}
