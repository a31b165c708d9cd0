//! `export_plugin!`: what turns a crate into a plugin.

/// Exports a plugin from a `cdylib`. Once per crate.
///
/// `create` is a `fn(HostContext) -> Result<Plugin>`; it runs once, when the host opens the library, and should
/// be quick: heavy libraries are loaded when a backend is probed or a model loaded.
#[macro_export]
macro_rules! export_plugin {
    (name: $name:expr, version: $version:expr, create: $create:path $(,)?) => {
        const _: () = {
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "a C symbol with a documented name")]
            pub static pajamas_plugin_probe_v1: $crate::__private::ProbeV1 =
                $crate::__private::ProbeV1::new($name, $version);

            extern "C" fn create(host: $crate::__private::RawHostBox) -> $crate::__private::Created {
                $crate::__private::create(host, $create)
            }
            extern "C" fn root() -> $crate::__private::RootModuleResult {
                $crate::__private::call_loader(|| $crate::__private::root_module(create))
            }

            // What `#[abi_stable::export_root_module]` would write, without the author naming that crate.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static PAJAMAS_ROOT_MODULE: $crate::__private::LibHeader = {
                // SAFETY: `root` returns the very module type that the type argument names.
                unsafe {
                    $crate::__private::LibHeader::from_constructor::<$crate::__private::RootModule>(
                        root,
                        $crate::__private::CheckTypeLayout::Yes,
                    )
                }
            };
        };
    };
}

/// For `export_plugin!` alone.
#[doc(hidden)]
pub mod __private {
    pub use abi_stable::library::{
        __call_root_module_loader as call_loader, CheckTypeLayout, LibHeader, RootModuleResult,
    };

    pub use crate::abi::plugin_side::{create, root_module};
    pub use crate::abi::raw::{PluginMod_Ref as RootModule, RawHostBox};
    pub use crate::probe_symbol::ProbeV1;

    pub type Created = crate::abi::raw::RawResult<crate::abi::raw::RawPluginBox>;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_exported_name_is_the_one_abi_stable_looks_for() {
        let source = include_str!("export.rs");
        let quoted = format!("{:?}", abi_stable::library::ROOT_MODULE_LOADER_NAME);
        assert!(source.contains(&format!("export_name = {quoted}")), "export_name should be {quoted}");
    }
}
