//! llama.cpp's failures in the words of the plugin API.

use std::io::ErrorKind;

use pajamas_llama_cpp::{Error, gguf};
use pajamas_plugin_api::{PluginError, codes};

/// llama.cpp's libraries are missing or do not run here.
pub(crate) const BACKEND_UNAVAILABLE: &str = "backend-unavailable";

/// Translates an error.
pub(crate) fn plugin_error(error: Error) -> PluginError {
    let message = error.to_string();
    let (code, help) = match &error {
        Error::LibraryFolder { .. } | Error::NoCpuLibrary { .. } => {
            (BACKEND_UNAVAILABLE, "reinstall the gguf plugin together with its folder `llama`")
        }
        Error::File { source: gguf::Error::Io(e), .. } if e.kind() == ErrorKind::NotFound => {
            (codes::MODEL_NOT_FOUND, "check the path")
        }
        Error::File { source: gguf::Error::Io(_), .. } => {
            (codes::MODEL_NOT_FOUND, "check the file's permissions")
        }
        Error::File { .. } => (
            codes::MODEL_INVALID,
            "fetch or convert the file again, and compare its size and hash with the source",
        ),
        Error::Load { .. } => {
            (codes::MODEL_INVALID, "the file may be damaged, or of an architecture newer than this llama.cpp")
        }
        Error::Cancelled => return PluginError::cancelled(),
        Error::OutOfMemory { .. } => (
            codes::OUT_OF_MEMORY,
            "use a smaller context_length, kv_type_k and kv_type_v q8_0, or a model of lower precision",
        ),
        Error::Context { .. } => (codes::INVALID_OPTION, "the options do not suit this model or device"),
        Error::VocabularyOnly => (codes::UNSUPPORTED, "load a file that has weights, without vocab_only"),
        Error::NoVocabulary => (codes::UNSUPPORTED, "send token ids instead of text"),
        Error::UnknownToken { .. } | Error::Text => (codes::INVALID_INPUT, ""),
        Error::Batch(_) | Error::Compute { .. } | Error::Quantize { .. } => (codes::INTERNAL, ""),
    };
    PluginError::new(code, message).help(help)
}
