//! The gguf backend: GGUF models by llama.cpp, on the processor or on whatever GPU ggml has a library for.
//!
//! From the ground up: the options turn a request's JSON into settings; the engine owns one llama.cpp context
//! per session on a thread of its own and takes jobs from a queue; the session speaks the plugin API to callers; the
//! backend finds, checks, estimates and loads models.
//!
//! llama.cpp's libraries are expected in a folder `llama` beside the plugin; GPU libraries of ggml
//! (`libggml-cuda.so`, `libggml-vulkan.so`) laid there are found by themselves.

mod backend;
mod constrain;
mod cpu;
mod engine;
mod error;
mod files;
mod footprint;
mod joined;
mod options;
mod part;
mod plan;
mod sampling;
mod session;

use pajamas_plugin_api::{HostContext, Plugin, PluginInfo, Result};

pub use backend::GgufBackend;

/// Creates the plugin. Loads nothing yet.
///
/// # Errors
/// None.
pub fn plugin(host: HostContext) -> Result<Plugin> {
    let info = PluginInfo {
        name: "gguf".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        license: "MIT OR Apache-2.0".into(),
        vendor: "The pajamas authors".into(),
        description: "GGUF models by llama.cpp".into(),
    };
    Ok(Plugin::new(info).backend(GgufBackend::new(host)))
}

pajamas_plugin_api::export_plugin!(name: "gguf", version: env!("CARGO_PKG_VERSION"), create: plugin);
