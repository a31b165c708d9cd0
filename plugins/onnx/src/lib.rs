//! Two engines behind one format: ONNX Runtime where a library is installed, rten where none is.
//!
//! The plugin exports two backends for `onnx`. `onnxruntime` (score 200) opens a library that it finds at run time
//! and runs every ONNX model; without a library its score is 0 and its reason says where it looked. `rten`
//! (score 100) is compiled in, small and always there.
//!
//! Both read the model file themselves before an engine touches it, report the model's own types and shapes, and
//! convert or refuse where an engine knows less. One setting: `onnxruntime = "PATH"` names the library, or the
//! folder that holds it.

mod device;
mod element;
mod embedded;
mod error;
mod fitness;
mod gate;
mod input;
mod model;
mod onnxruntime;
mod options;
mod ports;
mod seq2seq;

use std::path::PathBuf;

use pajamas_plugin_api::{HostContext, Plugin, PluginError, PluginInfo, Result, codes};
use serde::Deserialize;

/// The plugin's settings in the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The ONNX Runtime library, or the folder that holds it.
    onnxruntime: Option<PathBuf>,
}

/// The plugin: its two backends, the preferred one first. Opens nothing yet.
///
/// # Errors
/// `invalid-option` for settings that it does not know.
pub fn plugin(host: HostContext) -> Result<Plugin> {
    let settings = match host.settings() {
        serde_json::Value::Null => Settings::default(),
        settings => serde_json::from_value(settings).map_err(|e| {
            PluginError::new(codes::INVALID_OPTION, format!("settings of the plugin onnx: {e}"))
                .help("the only setting is `onnxruntime`, the path of the library or of its folder")
        })?,
    };
    let info = PluginInfo {
        name: "onnx".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        license: "MIT OR Apache-2.0".to_owned(),
        vendor: "pajamas".to_owned(),
        description: "ONNX models by ONNX Runtime or the embedded rten".to_owned(),
    };
    Ok(Plugin::new(info)
        .backend(onnxruntime::OnnxRuntime::new(host.clone(), settings.onnxruntime))
        .backend(embedded::Rten::new(host)))
}

pajamas_plugin_api::export_plugin!(name: "onnx", version: env!("CARGO_PKG_VERSION"), create: plugin);
