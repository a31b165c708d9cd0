//! From a Hugging Face folder, or a GGUF file, to files that run: reads the source, tells what it is, and makes artifacts
//! of it.
//!
//! Everything here is Rust: no Python takes part in a conversion. What llama.cpp's own converter and its quantizer write
//! is the measure: tensors and metadata are equal to theirs, and tests compare them.
//!
//! From the ground up: `source` reads models, `architecture` says what they are, `convert` makes GGUF files of plain
//! numbers and `quantize` of blocks; `imatrix` says which columns matter, and `calibrate` finds that out; each quantizer of
//! the plugin (`gguf`, …) puts them behind the plugin API; `evaluate` measures what was made, and
//! `solve` chooses types by such measurements.

pub mod architecture;
pub mod calibrate;
mod convert;
mod describe;
pub mod error;
pub mod evaluate;
mod general;
mod gguf;
mod hash;
pub mod imatrix;
pub mod mlx;
pub mod quantize;
mod resume;
mod scan;
mod solve;
pub mod source;
pub mod tokenizer;

use pajamas_plugin_api::{HostContext, Plugin, PluginInfo, Result};

pub use convert::{Conversion, OutType, Progress};
pub use gguf::GgufQuantizer;

/// Creates the plugin.
///
/// # Errors
/// None.
pub fn plugin(host: HostContext) -> Result<Plugin> {
    let info = PluginInfo {
        name: "quant".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        license: "MIT OR Apache-2.0".into(),
        vendor: "The pajamas authors".into(),
        description: "Makes artifacts out of Hugging Face models".into(),
    };
    Ok(Plugin::new(info).quantizer(GgufQuantizer::new(host)).quantizer(mlx::MlxQuantizer))
}

pajamas_plugin_api::export_plugin!(name: "quant", version: env!("CARGO_PKG_VERSION"), create: plugin);
