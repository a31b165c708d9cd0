//! A plugin that does on purpose what a plugin must not do.
//!
//! What goes wrong at birth is chosen by the operator's settings (`{"panic": "create"}`, `"describe"` or
//! `"probe"`); what goes wrong later by the word in the model file (see `trouble`), or by the backend `careless`,
//! which breaks the contract of every method quietly.

mod careless;
mod trouble;

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
    let plugin = Plugin::new(info).backend(trouble::Trouble { panic });
    Ok(match settings["careless"].as_bool() {
        Some(true) => plugin.backend(careless::Careless::default()),
        _ => plugin,
    })
}

export_plugin!(name: "misbehaving", version: env!("CARGO_PKG_VERSION"), create: plugin);
