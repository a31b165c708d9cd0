//! `pajamas plugins`: what was searched, found, verified, taken and refused, and why.

use std::path::PathBuf;

use clap::Subcommand;
use pajamas_plugin_api::conformance::{self, CheckOptions};
use pajamas_plugin_api::host::{Outcome, Report};
use serde_json::json;

use super::{Global, output};
use crate::error::{Error, Result};
use crate::plugins;

#[derive(Debug, Subcommand)]
pub enum Plugins {
    /// Every plugin found, and what this machine can use of it
    List,
    /// Every step of verifying and opening one plugin, also when it is refused
    Inspect {
        /// Its folder, manifest or library
        file: PathBuf,
    },
    /// Test a plugin: every entry with good and bad input, cancel, panics, large tensors, repeated loading, leaks
    Check {
        /// Its folder, manifest or library
        file: PathBuf,
        /// A model to test with; may be given several times
        #[arg(short, long, value_name = "FILE")]
        model: Vec<PathBuf>,
    },
}

impl Plugins {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::List => list(global),
            Self::Inspect { file } => inspect(global, file),
            Self::Check { file, model } => check(global, file, model),
        }
    }
}

fn list(global: &Global) -> Result<()> {
    let plugins = plugins::Plugins::load(&global.config()?.plugins);
    if global.json {
        let backends: Vec<_> = plugins
            .backends()
            .iter()
            .map(|b| json!({ "plugin": b.plugin, "backend": b.info, "probe": b.probe }))
            .collect();
        let quantizers: Vec<_> =
            plugins.quantizers().iter().map(|q| json!({ "plugin": q.plugin, "quantizer": q.info })).collect();
        return output::json_line(&json!({
            "searched": plugins.places(),
            "plugins": plugins.reports(),
            "backends": backends,
            "quantizers": quantizers,
        }));
    }
    output::line("Searched:")?;
    for place in plugins.places() {
        output::line(&format!("  {} ({}): {}", place.folder.display(), place.reason, place.result))?;
    }
    for report in plugins.reports() {
        output::line("")?;
        let name = report.manifest.as_ref().map_or_else(
            || report.library.display().to_string(),
            |m| format!("{} {}  {}", m.name, m.version, report.library.display()),
        );
        output::line(&name)?;
        if let Some(error) = report.error() {
            output::line(&format!("  refused [{}]: {}", error.code, error.message))?;
        }
        for backend in
            plugins.backends().iter().filter(|b| report.manifest.as_ref().is_some_and(|m| m.name == b.plugin))
        {
            let devices: Vec<&str> = backend.probe.devices.iter().map(|d| d.id.as_str()).collect();
            let state = if backend.probe.score == 0 {
                "not here".to_owned()
            } else {
                format!("score {}", backend.probe.score)
            };
            output::line(&format!("  {:<14} {state:<10} {}", backend.info.id, backend.probe.reason))?;
            output::line(&format!(
                "  {:<14} formats {}; devices {}",
                "",
                backend.info.formats.join(", "),
                if devices.is_empty() { "none".to_owned() } else { devices.join(", ") }
            ))?;
        }
        let of_this = |plugin: &str| report.manifest.as_ref().is_some_and(|m| m.name == plugin);
        for quantizer in plugins.quantizers().iter().filter(|q| of_this(&q.plugin)) {
            let (info, from) = (&quantizer.info, quantizer.info.sources.join(", "));
            output::line(&format!("  {:<14} makes {} out of {from}", info.id, info.target))?;
        }
    }
    if plugins.reports().is_empty() {
        output::line("No plugins found: build them with `cargo xtask build`, or set plugins.search.")?;
    }
    Ok(())
}

fn inspect(global: &Global, file: PathBuf) -> Result<()> {
    let (report, plugin) = plugins::inspect(&file, &global.config()?.plugins);
    if global.json {
        let backends: Vec<_> = plugin
            .iter()
            .flat_map(|p| &p.backends)
            .map(|b| json!({ "backend": b.info, "probe": b.probe }))
            .collect();
        let quantizers: Vec<_> = plugin.iter().flat_map(|p| &p.quantizers).map(|q| &q.info).collect();
        output::json_line(&json!({ "report": report, "backends": backends, "quantizers": quantizers }))?;
    } else {
        print_steps(&report)?;
        for backend in plugin.iter().flat_map(|p| &p.backends) {
            output::line(&format!("\nbackend {}: {}", backend.info.id, backend.info.description))?;
            output::line(&format!("  capabilities  {}", backend.info.capabilities.join(", ")))?;
            output::line(&format!("  formats       {}", backend.info.formats.join(", ")))?;
            output::line(&format!("  precisions    {}", backend.info.precisions.join(", ")))?;
            output::line(&format!("  score         {} ({})", backend.probe.score, backend.probe.reason))?;
        }
        for quantizer in plugin.iter().flat_map(|p| &p.quantizers) {
            output::line(&format!("\nquantizer {}: {}", quantizer.info.id, quantizer.info.description))?;
            output::line(&format!("  sources       {}", quantizer.info.sources.join(", ")))?;
            output::line(&format!("  target        {}", quantizer.info.target))?;
            output::line(&format!("  precisions    {}", quantizer.info.precisions.join(", ")))?;
        }
    }
    match report.error() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn print_steps(report: &Report) -> Result<()> {
    output::line(&report.library.display().to_string())?;
    for step in &report.steps {
        let name = serde_json::to_value(step.step)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let mark = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "-",
        };
        output::line(&format!("  {name:<9} {mark:<7} {}", step.detail))?;
    }
    Ok(())
}

fn check(global: &Global, file: PathBuf, models: Vec<PathBuf>) -> Result<()> {
    let report = conformance::check(&file, &CheckOptions { models, ..CheckOptions::default() });
    if global.json {
        output::json_line(&report)?;
    } else {
        output::line(report.to_string().trim_end())?;
    }
    match report.failed().count() {
        0 => Ok(()),
        n => Err(Error::new("conformance-failed", format!("{}: {n} check(s) failed", file.display()))
            .help("docs/src/plugin-authors.md explains every check")),
    }
}
