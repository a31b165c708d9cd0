//! The plugin's own error codes, and the errors that both engines give.

use std::path::Path;

use pajamas_plugin_api::{PluginError, codes};

/// The model is well-formed, but this engine cannot run it: an operator, an encoding or a type it lacks.
pub(crate) const MODEL_UNSUPPORTED: &str = "model-unsupported";
/// An input or output has an element type that this engine cannot take or give.
pub(crate) const DTYPE_UNSUPPORTED: &str = "dtype-unsupported";
/// No usable ONNX Runtime library on this machine.
pub(crate) const RUNTIME_NOT_FOUND: &str = "runtime-not-found";

/// The engine failed on these inputs.
pub(crate) const INFERENCE_FAILED: &str = "inference-failed";

/// How to get the engine that runs everything.
pub(crate) const FETCH: &str = "cargo xtask fetch-onnxruntime";

/// The model file is missing or cannot be opened.
pub(crate) fn not_found(path: &Path, error: &std::io::Error) -> PluginError {
    let what = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    };
    PluginError::new(codes::MODEL_NOT_FOUND, format!("{}: {what}", path.display()))
        .help("check the model's path in the configuration or on the command line")
}

/// The model file is damaged or of another format.
pub(crate) fn invalid(path: &Path, what: impl std::fmt::Display) -> PluginError {
    PluginError::new(codes::MODEL_INVALID, format!("{}: {what}", path.display()))
        .help("fetch or export the model again, and compare its size and hash with the original")
}

/// The model is fine, but `engine` cannot run it.
pub(crate) fn unsupported(engine: &str, path: &Path, what: impl std::fmt::Display) -> PluginError {
    PluginError::new(MODEL_UNSUPPORTED, format!("{engine} cannot run {}: {what}", path.display()))
}

/// A fault that is neither the caller's nor the model's.
pub(crate) fn internal(engine: &str, what: impl std::fmt::Display) -> PluginError {
    PluginError::new(codes::INTERNAL, format!("{engine}: {what}"))
}
