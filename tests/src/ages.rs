//! Plugins and hosts of different ages of the plugin API.
//!
//! - *kept*: `tests/plugins/kept-1.0`, with its own copy of the API as of 1.0.0, which is never edited;
//! - *newer*: the API of this repository with what a later minor version may append, and the kept plugin and host
//!   changed to use it;
//! - *forked*: the API of this repository with a change that no version may make.
//!
//! The last two are written into the target folder from the sources here, so that they follow them.

use std::path::PathBuf;

use pajamas_plugin_api::host::library_file_name;

use crate::fixtures::{Edit, Result, build, patched, patched_file, repository, target};

/// What a later minor version appends: a method of backends, a service of hosts, a field of the root module.
const NEWER_API: &[Edit] = &[
    (
        "abi/raw.rs",
        "fn extension(&self, name: RStr<'_>) -> ROption<RawExtensionBox>;\n",
        "fn extension(&self, name: RStr<'_>) -> ROption<RawExtensionBox>;\n\
         fn epoch(&self) -> u64 { 0 }\n",
    ),
    (
        "abi/raw.rs",
        "}\npub type RawBackendBox",
        "fn mood(&self) -> RString { \"unknown\".into() }\n}\npub type RawBackendBox",
    ),
    (
        "abi/raw.rs",
        "pub create: extern \"C\" fn(RawHostBox) -> RawResult<RawPluginBox>,\n",
        "pub create: extern \"C\" fn(RawHostBox) -> RawResult<RawPluginBox>,\n\
         pub built: u64,\n",
    ),
    (
        "abi/host_side.rs",
        "impl RawHost for HostEntry {\n",
        "impl RawHost for HostEntry {\n\
         fn epoch(&self) -> u64 { self.0.epoch() }\n",
    ),
    (
        "abi/host_side.rs",
        "impl Backend for ForeignBackend {\n",
        "impl Backend for ForeignBackend {\n\
         fn mood(&self) -> String { self.raw.mood().into_string() }\n",
    ),
    (
        "abi/plugin_side.rs",
        "impl HostServices for HostHandle {\n",
        "impl HostServices for HostHandle {\n\
         fn epoch(&self) -> u64 { self.0.epoch() }\n",
    ),
    (
        "abi/plugin_side.rs",
        "impl RawBackend for BackendEntry {\n",
        "impl RawBackend for BackendEntry {\n\
         fn mood(&self) -> RString { self.0.mood().into() }\n",
    ),
    ("abi/plugin_side.rs", "PluginMod { create }", "PluginMod { create, built: 2 }"),
    (
        "backend.rs",
        "    fn probe(&self) -> Probe;\n",
        "    fn probe(&self) -> Probe;\n\
         fn mood(&self) -> String { \"unknown\".into() }\n",
    ),
    (
        "plugin.rs",
        "    fn log(&self, level: Level, message: &str);\n",
        "    fn log(&self, level: Level, message: &str);\n\
         fn epoch(&self) -> u64 { 0 }\n",
    ),
    (
        "plugin.rs",
        "impl HostContext {\n",
        "impl HostContext {\n\
         pub fn epoch(&self) -> u64 { self.0.epoch() }\n",
    ),
];

/// The version that may hold [`NEWER_API`].
const NEWER_VERSION: &[Edit] = &[("Cargo.toml", "version = \"1.0.0\"", "version = \"1.1.0\"")];

/// The kept plugin, using what is new.
const NEWER_PLUGIN: &[Edit] = &[
    ("Cargo.toml", "name = \"kept-plugin\"", "name = \"newer-plugin\""),
    ("Cargo.lock", "name = \"kept-plugin\"", "name = \"newer-plugin\""),
    (
        "src/lib.rs",
        "impl Backend for Scale {\n",
        "impl Backend for Scale {\n\
         fn mood(&self) -> String { \"sunny\".into() }\n",
    ),
    (
        "src/lib.rs",
        "let path = request.path.display();\n",
        "self.host.log(Level::Info, format!(\"epoch {}\", self.host.epoch()));\n\
         let path = request.path.display();\n",
    ),
];

/// The kept host, using what is new.
const NEWER_HOST: &[Edit] = &[
    ("Cargo.toml", "name = \"kept-host\"", "name = \"newer-host\""),
    ("Cargo.lock", "name = \"kept-host\"", "name = \"newer-host\""),
    (
        "src/main.rs",
        "impl HostServices for Services {\n",
        "impl HostServices for Services {\n\
         fn epoch(&self) -> u64 { 7 }\n",
    ),
    ("src/main.rs", "\"log\": log", "\"log\": log, \"mood\": backend.mood()"),
];

/// The order of methods is part of the ABI.
const FORKED_API: &[Edit] = &[(
    "abi/raw.rs",
    "    fn plugin_dir(&self) -> RString;\n    fn settings(&self) -> RString;\n",
    "    fn settings(&self) -> RString;\n    fn plugin_dir(&self) -> RString;\n",
)];

/// The kept plugin, under another name.
const FORKED_PLUGIN: &[Edit] = &[
    ("Cargo.toml", "name = \"kept-plugin\"", "name = \"forked-plugin\""),
    ("Cargo.lock", "name = \"kept-plugin\"", "name = \"forked-plugin\""),
];

fn kept() -> PathBuf {
    repository().join("tests/plugins/kept-1.0")
}

/// Writes the API of this repository, changed, into a folder of its own beside where plugin and host will lie.
fn api(age: &str, version: &[Edit], sources: &[Edit]) -> Result<PathBuf> {
    let (folder, here) = (target()?.join("ages").join(age), repository().join("plugin-api"));
    let api = folder.join("plugin-api");
    // In the workspace's manifest most values are inherited; the kept one stands alone.
    patched_file(&kept().join("plugin-api"), &api, "Cargo.toml", version)?;
    patched_file(&here, &api, "build.rs", &[])?;
    patched(&here.join("src"), &api.join("src"), sources)?;
    Ok(folder)
}

/// The plugin built against ABI 1.0.0.
///
/// # Errors
/// When it cannot be built.
pub fn kept_plugin() -> Result<PathBuf> {
    Ok(build(&kept().join("plugin"), &[])?.join(library_file_name("kept-plugin")))
}

/// The host built against ABI 1.0.0.
///
/// # Errors
/// When it cannot be built.
pub fn kept_host() -> Result<PathBuf> {
    Ok(build(&kept().join("host"), &[])?.join(format!("kept-host{}", std::env::consts::EXE_SUFFIX)))
}

/// A plugin built against a version of the API that does not exist yet.
///
/// # Errors
/// When it cannot be written or built.
pub fn newer_plugin() -> Result<PathBuf> {
    let folder = api("newer", NEWER_VERSION, NEWER_API)?;
    patched(&kept().join("plugin"), &folder.join("plugin"), NEWER_PLUGIN)?;
    Ok(build(&folder.join("plugin"), &[])?.join(library_file_name("newer-plugin")))
}

/// A host built against a version of the API that does not exist yet.
///
/// # Errors
/// When it cannot be written or built.
pub fn newer_host() -> Result<PathBuf> {
    let folder = api("newer", NEWER_VERSION, NEWER_API)?;
    patched(&kept().join("host"), &folder.join("host"), NEWER_HOST)?;
    Ok(build(&folder.join("host"), &[])?.join(format!("newer-host{}", std::env::consts::EXE_SUFFIX)))
}

/// A plugin built against an API that claims to be this one, but is laid out differently.
///
/// # Errors
/// When it cannot be written or built.
pub fn forked_plugin() -> Result<PathBuf> {
    let folder = api("forked", &[], FORKED_API)?;
    patched(&kept().join("plugin"), &folder.join("plugin"), FORKED_PLUGIN)?;
    Ok(build(&folder.join("plugin"), &[])?.join(library_file_name("forked-plugin")))
}
