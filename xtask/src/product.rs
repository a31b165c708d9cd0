//! The product: the `pajamas` program and its plugins, built and packed so that the program finds them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pajamas_plugin_api::host::{MANIFEST_NAME, Manifest, library_file_name};

use crate::files;
use crate::progress::{self, Show};
use crate::project::Project;

/// A plugin of this repository.
pub struct Plugin {
    /// Its name, and that of its folder.
    pub name: &'static str,
    /// The crate it is built from.
    pub package: &'static str,
    /// A folder of further libraries that its build leaves in the target folder, and that it loads from beside
    /// itself.
    pub companions: Option<&'static str>,
    /// Whether it serves models, rather than makes them.
    pub serves: bool,
}

impl Plugin {
    /// The libraries that its build left for it.
    pub fn companions(&self, project: &Project) -> Result<Vec<PathBuf>> {
        self.companions.map_or(Ok(Vec::new()), |name| files::sorted(&project.release().join(name)))
    }
}

/// The plugins of this repository, in the order in which they are packed.
pub const PLUGINS: &[Plugin] = &[
    Plugin { name: "gguf", package: "pajamas-gguf", companions: Some("llama"), serves: true },
    Plugin { name: "onnx", package: "pajamas-onnx", companions: None, serves: true },
    // It computes models, too: to find out what matters in them, and to measure what was made.
    Plugin { name: "quant", package: "pajamas-quant", companions: Some("llama"), serves: false },
];

/// The crates of the product, as cargo selects them: all but xtask, whose dependencies would turn on features of the
/// product's. Every step selects the same ones: another selection has other features, and compiles everything again.
pub const CRATES: &[&str] = &["--workspace", "--exclude", "xtask"];

/// Builds the program and its plugins, and packs the plugins where the program looks first: `plugins/` beside
/// itself.
pub fn build(project: &Project) -> Result<()> {
    remove_dangling_links(&project.release())?;
    let mut cargo = project.cargo();
    cargo.args(["build", "--release"]).args(CRATES);
    let label = "Building the host and its plugins";
    progress::run(label, &mut cargo, &project.log("build"), Show::Progress)?;
    let mut packed = Vec::new();
    for plugin in PLUGINS {
        let folder = project.release().join("plugins").join(plugin.name);
        if pack(project, plugin, &folder, &plugin.companions(project)?)? {
            packed.push(plugin.name);
        }
    }
    if !packed.is_empty() {
        progress::done("Packed the plugins", &packed.join(", "));
    }
    Ok(())
}

/// Removes links that lead nowhere from where the build of llama.cpp leaves its libraries. Its script links
/// `libllama.so -> libllama.so.0` there without the latter, takes the link for absent when it runs again (after a change of
/// compiler or path), and ends in `File exists`.
fn remove_dangling_links(release: &Path) -> Result<()> {
    for folder in [release.to_path_buf(), release.join("deps"), release.join("examples")] {
        if !folder.exists() {
            continue;
        }
        for path in files::sorted(&folder)? {
            if path.is_symlink() && !path.exists() {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Lays a built plugin, these companions and its manifest into `folder`. Only what differs is written, and what does
/// not belong there is removed. Returns whether anything changed.
pub fn pack(project: &Project, plugin: &Plugin, folder: &Path, companions: &[PathBuf]) -> Result<bool> {
    let library = library_file_name(plugin.package);
    let mut wanted = vec![PathBuf::from(MANIFEST_NAME), PathBuf::from(&library)];
    let mut changed = files::copy_if_changed(&project.release().join(&library), &folder.join(&library))?;

    let package = project.package(plugin.package)?;
    let mut manifest = Manifest::for_library(&folder.join(&library), plugin.name, &package.version)?;
    manifest.license = package.license.clone();
    manifest.description = package.description.clone();
    if let Some(name) = plugin.companions {
        for path in companions {
            let file = file_name(path)?;
            let relative = Path::new(name).join(file);
            changed |= files::copy_if_changed(path, &folder.join(&relative))?;
            manifest = manifest.with_file(folder, &format!("{name}/{file}"))?;
            wanted.push(relative);
        }
    }
    changed |= files::write_if_changed(&folder.join(MANIFEST_NAME), manifest.to_toml()?.as_bytes())?;
    changed |= files::remove_others(folder, &wanted)?;
    Ok(changed)
}

/// The name of a library.
pub fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).context("a library with a strange name")
}

/// Puts what the licences ask to travel with the product into `folder`.
pub fn copy_licences(project: &Project, folder: &Path) -> Result<()> {
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(project.root.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Ok(())
}
