//! Opening a library and finding the root module in it: the only code that touches the dynamic loader.

use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{LibHeader, lib_header_from_path};
use abi_stable::type_layout::TypeLayout;

use crate::abi::raw::PluginMod_Ref;
use crate::probe_symbol::{ProbeReport, ProbeV1};
use crate::{PluginError, Result};

/// Opens a library with all symbols bound now and none shared, and keeps it open for ever.
pub(super) fn map(path: &Path) -> Result<libloading::Library> {
    if !path.is_file() {
        return Err(PluginError::new("plugin-library-missing", format!("{}: no such file", path.display())));
    }
    let failed = |e: libloading::Error| {
        // The system's own text names a missing dependency; libloading keeps it in `source()`.
        let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| s.to_string());
        PluginError::new("plugin-open-failed", format!("{}: {cause}", path.display())).help(
            "the file must be a shared library for this system, and every library it needs must be found",
        )
    };
    #[cfg(unix)]
    let library = {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        // SAFETY: the file has passed manifest, platform and hash checks: it is trusted native code.
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(failed)?
    };
    #[cfg(windows)]
    let library = {
        use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
        // SAFETY: as above.
        unsafe { Library::load_with_flags(path, LOAD_WITH_ALTERED_SEARCH_PATH) }.map_err(failed)?
    };
    Ok(library.into())
}

/// Reads the probe symbol.
pub(super) fn probe(library: &libloading::Library) -> Result<ProbeReport> {
    // SAFETY: the symbol's name is ours; `ProbeV1::read` checks the magic before it believes the rest.
    let symbol = unsafe { library.get::<*const ProbeV1>(b"pajamas_plugin_probe_v1\0") }.map_err(|_| {
        PluginError::new("plugin-symbol-missing", "the library has no symbol `pajamas_plugin_probe_v1`")
            .help("it is not a pajamas plugin, or was built without `export_plugin!`")
    })?;
    // SAFETY: points into the library's data, which stays mapped.
    unsafe { ProbeV1::read(*symbol) }
}

/// Finds the root module and checks every type that crosses.
pub(super) fn root_module(path: &Path) -> Result<(PluginMod_Ref, String)> {
    let layout = |text: String| {
        let first: String =
            text.lines().map(str::trim).filter(|l| !l.is_empty()).take(4).collect::<Vec<_>>().join(" ");
        let cut: String = first.chars().take(400).collect();
        PluginError::new(
            "plugin-layout-mismatch",
            format!(
                "host and plugin differ in the types that cross: {cut} … ({} bytes of detail)",
                text.len()
            ),
        )
        .help("rebuild the plugin against a released version of pajamas-plugin-api")
    };
    let header = lib_header_from_path(path)
        .map_err(|e| PluginError::new("plugin-symbol-missing", format!("no root module: {e}")))?;
    let ours = <PluginMod_Ref as StableAbi>::LAYOUT;
    let theirs = header.layout().ok_or_else(|| layout("the plugin carries no layout".into()))?;
    let detail = match fits(ours, theirs) {
        Ok(()) => "the plugin is as new as the host, or newer".to_owned(),
        Err(newer) => match fits(theirs, ours) {
            Ok(()) => "the plugin is older than the host".to_owned(),
            Err(older) => return Err(layout(format!("{newer}\n{older}"))),
        },
    };
    Ok((init(header)?, detail))
}

fn init(header: &'static LibHeader) -> Result<PluginMod_Ref> {
    // SAFETY: one direction has just been checked; growth is confined to prefix types, whose accessors test at
    // run time whether a field is present.
    unsafe { header.init_root_module_with_unchecked_layout::<PluginMod_Ref>() }.map_err(|e| {
        PluginError::new("plugin-abi-incompatible", format!("the root module does not start: {e}"))
    })
}

/// A fresh table per check: the process-wide one makes the verdict depend on the order of loading.
fn fits(interface: &'static TypeLayout, implementation: &'static TypeLayout) -> Result<(), String> {
    check_layout_compatibility_with_globals(interface, implementation, &CheckingGlobals::new())
        .map_err(|e| e.to_string())
}
