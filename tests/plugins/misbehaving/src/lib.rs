//! A plugin that does on purpose what a plugin must not do.
//!
//! What goes wrong at birth is chosen by the operator's settings (`{"panic": "create"}`, `"describe"` or
//! `"probe"`); what goes wrong later by the word in the model file (see `words`), which is a source of the quantizer
//! `scribbler`, too; or by the backend and the quantizer `careless`, which break the contract of every method quietly.

mod careless;
mod extension;
mod scribbler;
mod trouble;
mod words;

use pajamas_plugin_api::{HostContext, Plugin, PluginInfo, Result, export_plugin};

fn plugin(host: HostContext) -> Result<Plugin> {
    let settings = host.settings();
    let panic = settings["panic"].as_str().unwrap_or_default().to_owned();
    assert!(panic != "create", "told to panic in create");
    let info = PluginInfo {
        name: "misbehaving".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        license: "MIT OR Apache-2.0".into(),
        vendor: "pajamas".into(),
        description: "Does what a plugin must not do".into(),
    };
    // What panics at birth has nothing else to offer.
    let is_born = panic.is_empty();
    let plugin = Plugin::new(info).backend(trouble::Trouble { panic });
    let plugin = if is_born { plugin.quantizer(scribbler::Scribbler::default()) } else { plugin };
    Ok(match settings["careless"].as_bool() {
        Some(true) => plugin.backend(careless::Careless::default()).quantizer(careless::Careless::default()),
        _ => plugin,
    })
}

export_plugin!(name: "misbehaving", version: env!("CARGO_PKG_VERSION"), create: plugin);
