//! From a path to a loaded plugin, one verified step after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::library;
use super::manifest::{MANIFEST_NAME, Manifest, digest, locate, platform};
use super::report::{Report, Step};
use crate::abi::host_side::{self, Born};
use crate::abi::raw::PluginMod_Ref;
use crate::probe_symbol::{ABI_VERSION, ProbeReport};
use crate::{
    Backend, BackendInfo, HostContext, PluginError, PluginInfo, Probe, Quantizer, QuantizerInfo, Result,
};

/// What the loader insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Refuse a library without a manifest, or whose manifest has no hash. Turned off only for a file that an
    /// operator names himself.
    pub require_hash: bool,
}

/// A backend of an open plugin, with what it said about itself.
pub struct LoadedBackend {
    /// What it is.
    pub info: BackendInfo,
    /// How well it runs here.
    pub probe: Probe,
    /// The backend.
    pub backend: Arc<dyn Backend>,
}

/// A quantizer of an open plugin.
pub struct LoadedQuantizer {
    /// What it is.
    pub info: QuantizerInfo,
    /// The quantizer.
    pub quantizer: Arc<dyn Quantizer>,
}

/// An open plugin.
pub struct LoadedPlugin {
    /// The library.
    pub path: PathBuf,
    /// Who made it.
    pub info: PluginInfo,
    /// Its backends, in its order of preference.
    pub backends: Vec<LoadedBackend>,
    /// Its quantizers.
    pub quantizers: Vec<LoadedQuantizer>,
}

/// The plugins in a folder: every subfolder with a manifest, and every library that lies there bare (which a
/// strict [`Policy`] refuses, so that an operator sees why it is not taken). Sorted by name.
pub fn discover(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_plugin = if path.is_dir() {
            path.join(MANIFEST_NAME).is_file()
        } else {
            path.extension().is_some_and(|e| e == std::env::consts::DLL_EXTENSION)
        };
        if is_plugin {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Verifies and opens the plugin at `path` (its folder, manifest or library). `host` makes the context for a
/// plugin from its name and folder. The report tells every step taken; there is a plugin when none failed.
pub fn open(
    path: &Path,
    policy: Policy,
    host: impl FnOnce(&str, &Path) -> HostContext,
) -> (Report, Option<LoadedPlugin>) {
    let (library, manifest) = locate(path);
    let mut report = Report::new(library);
    let plugin = take_steps(&mut report, manifest.as_deref(), policy, host);
    (report, plugin)
}

fn take_steps(
    report: &mut Report,
    manifest: Option<&Path>,
    policy: Policy,
    host: impl FnOnce(&str, &Path) -> HostContext,
) -> Option<LoadedPlugin> {
    match manifest {
        Some(path) => {
            let manifest = report.record(
                Step::Manifest,
                Manifest::read(path).map(|m| {
                    let detail = format!("{} {}", m.name, m.version);
                    (m, detail)
                }),
            )?;
            if report.library.is_dir() || report.library.file_name().is_some_and(|n| n == MANIFEST_NAME) {
                report.library = path.with_file_name(&manifest.library);
            }
            report.manifest = Some(manifest.clone());
            report.record(Step::Platform, check_platform(&manifest))?;
            report.record(Step::Hash, check_hash(&report.library, &manifest, policy))?;
        }
        None if policy.require_hash => {
            let error = PluginError::new(
                "plugin-manifest-missing",
                format!("{}: there is no {MANIFEST_NAME} beside it", report.library.display()),
            )
            .help("put the plugin into a folder of its own with its manifest, or set `plugins.require_hash = false`");
            return report.record(Step::Manifest, Err(error));
        }
        None => {
            report.skip(Step::Manifest, "no manifest beside the library; allowed here");
            report.skip(Step::Platform, "nothing to compare with");
            report.skip(Step::Hash, "nothing to compare with");
        }
    }

    // An absolute path: a bare file name would make the system search its own folders.
    let library = std::path::absolute(&report.library).unwrap_or_else(|_| report.library.clone());
    let mapped =
        report.record(Step::Open, library::map(&library).map(|l| (l, library.display().to_string())))?;
    let probe = library::probe(&mapped);
    // Opening ran code of the library: from here on it stays mapped, whatever happens.
    std::mem::forget(mapped);
    report.probe = probe.as_ref().ok().cloned();
    let probe = probe.and_then(|p| check_probe(p, report.manifest.as_ref()));
    let name = report.record(Step::Probe, probe)?;
    let module = report.record(Step::Layout, library::root_module(&library))?;
    let folder = library.parent().unwrap_or(Path::new("/"));
    let born = report.record(Step::Create, create(module, host(&name, folder)))?;
    let plugin = describe(born, library.clone());
    report.record(Step::Score, scores(&plugin))?;
    Some(plugin)
}

fn check_platform(manifest: &Manifest) -> Result<((), String)> {
    let here = platform();
    if !manifest.platforms.contains(&here) {
        return Err(PluginError::new(
            "plugin-platform-mismatch",
            format!("{} is for {}; this is {here}", manifest.name, manifest.platforms.join(", ")),
        )
        .help(format!("install the build for {here}")));
    }
    let (major, minor) = manifest.abi_version()?;
    check_major(&manifest.name, major, minor)?;
    Ok(((), format!("{here}, ABI {}", manifest.abi)))
}

fn check_major(name: &str, major: u16, minor: u16) -> Result<()> {
    if major == ABI_VERSION.0 {
        return Ok(());
    }
    Err(PluginError::new(
        "plugin-abi-incompatible",
        format!(
            "{name} was built for ABI {major}.{minor}; this host has {}.{}",
            ABI_VERSION.0, ABI_VERSION.1
        ),
    )
    .help("install a build of the plugin for this major version of the ABI"))
}

fn check_hash(library: &Path, manifest: &Manifest, policy: Policy) -> Result<((), String)> {
    let folder = library.parent().unwrap_or(Path::new("."));
    for file in &manifest.files {
        check_file(&folder.join(&file.path), &file.sha256)?;
    }
    match &manifest.sha256 {
        Some(expected) => {
            check_file(library, expected)?;
            Ok(((), format!("sha256 of {} file(s) as in the manifest", 1 + manifest.files.len())))
        }
        None if policy.require_hash => Err(PluginError::new(
            "plugin-hash-missing",
            format!("the manifest of {} has no sha256", manifest.name),
        )
        .help("add `sha256 = \"…\"` of the library, or set `plugins.require_hash = false`")),
        None => Ok(((), "the manifest has no hash; allowed here".into())),
    }
}

fn check_file(path: &Path, expected: &str) -> Result<()> {
    let actual = digest(path)?;
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(PluginError::new(
        "plugin-hash-mismatch",
        format!("{}: the manifest says {expected}, the file is {actual}", path.display()),
    )
    .help("the file was changed after it was packed: install the plugin again"))
}

/// Passes the plugin's name on.
fn check_probe(probe: ProbeReport, manifest: Option<&Manifest>) -> Result<(String, String)> {
    check_major(&probe.name, probe.abi_major, probe.abi_minor)?;
    if !probe.panic_unwind {
        return Err(PluginError::new(
            "plugin-panic-abort",
            format!("{} was built with panic = \"abort\": a panic in it would end the host", probe.name),
        )
        .help("build the plugin with panic = \"unwind\""));
    }
    let abi = format!("{}.{}", probe.abi_major, probe.abi_minor);
    let belongs = |m: &Manifest| m.name == probe.name && m.version == probe.version && m.abi == abi;
    if let Some(manifest) = manifest.filter(|m| !belongs(m)) {
        return Err(PluginError::new(
            "plugin-manifest-mismatch",
            format!(
                "the manifest says {} {}, ABI {}; the library says {} {}, ABI {abi}",
                manifest.name, manifest.version, manifest.abi, probe.name, probe.version
            ),
        )
        .help("pack the plugin again, so that manifest and library belong together"));
    }
    let detail = format!("{} {}, ABI {abi}, {}", probe.name, probe.version, probe.rustc);
    Ok((probe.name, detail))
}

fn create(module: PluginMod_Ref, host: HostContext) -> Result<(Born, String)> {
    let born = host_side::create(module, host)?;
    let names: Vec<String> = born
        .backends
        .iter()
        .map(|b| format!("backend {}", b.describe().id))
        .chain(born.quantizers.iter().map(|q| format!("quantizer {}", q.describe().id)))
        .collect();
    let detail = if names.is_empty() { "nothing exported".to_owned() } else { names.join(", ") };
    Ok((born, detail))
}

fn describe(born: Born, path: PathBuf) -> LoadedPlugin {
    let backends = born.backends.into_iter().map(|backend| LoadedBackend {
        info: backend.describe(),
        probe: backend.probe(),
        backend: Arc::from(backend),
    });
    let quantizers = born
        .quantizers
        .into_iter()
        .map(|quantizer| LoadedQuantizer { info: quantizer.describe(), quantizer: Arc::from(quantizer) });
    LoadedPlugin { path, info: born.info, backends: backends.collect(), quantizers: quantizers.collect() }
}

fn scores(plugin: &LoadedPlugin) -> Result<((), String)> {
    let detail: Vec<String> = plugin
        .backends
        .iter()
        .map(|b| format!("{} {}: {}", b.info.id, b.probe.score, b.probe.reason))
        .collect();
    let useful = plugin.backends.iter().any(|b| b.probe.score > 0) || !plugin.quantizers.is_empty();
    if useful {
        return Ok(((), detail.join("; ")));
    }
    Err(PluginError::new(
        "plugin-not-for-this-machine",
        format!("no backend runs here: {}", detail.join("; ")),
    ))
}
