//! How this crate refuses: stable codes, and the shapes that its messages share.

use std::io;
use std::path::Path;

use pajamas_plugin_api::PluginError;
pub use pajamas_plugin_api::Result;
use pajamas_plugin_api::codes::MODEL_NOT_FOUND;

/// Codes of this crate's own, beside those of [`pajamas_plugin_api::codes`].
pub mod codes {
    /// A folder lacks a file that a model needs, or a file cannot be read.
    pub const SOURCE_NOT_FOUND: &str = "source-not-found";
    /// `config.json` does not parse, or lacks a value, or holds one of another type.
    pub const CONFIG_INVALID: &str = "model-config-invalid";
    /// A weights file ends before what its header promises.
    pub const SAFETENSORS_TRUNCATED: &str = "safetensors-truncated";
    /// The header of a weights file is no header.
    pub const SAFETENSORS_INVALID: &str = "safetensors-invalid";
    /// The header of a weights file is longer than any sane one.
    pub const SAFETENSORS_HEADER_TOO_LARGE: &str = "safetensors-header-too-large";
    /// Two tensors share bytes, or bytes belong to no tensor.
    pub const SAFETENSORS_OVERLAP: &str = "safetensors-overlap";
    /// A tensor's bytes are not what its type and shape ask for.
    pub const SAFETENSORS_SIZE_MISMATCH: &str = "safetensors-size-mismatch";
    /// A name stands twice, in one file or in two.
    pub const SAFETENSORS_DUPLICATE: &str = "safetensors-duplicate";
    /// The index names a file that is not there.
    pub const SHARD_MISSING: &str = "shard-missing";
    /// The index does not parse, or tells another story than the files.
    pub const INDEX_MISMATCH: &str = "index-mismatch";
    /// A model of a family that is not converted.
    pub const ARCHITECTURE_UNSUPPORTED: &str = "architecture-unsupported";
    /// The model lacks a tensor that its family has.
    pub const TENSOR_MISSING: &str = "tensor-missing";
    /// The model has a tensor that its family does not know.
    pub const TENSOR_UNEXPECTED: &str = "tensor-unexpected";
    /// A tensor has another shape than the configuration promises.
    pub const TENSOR_SHAPE: &str = "tensor-shape";
    /// A tensor's element type cannot be converted.
    pub const TENSOR_DTYPE_UNSUPPORTED: &str = "tensor-dtype-unsupported";
    /// A weight is not a number, or infinite.
    pub const WEIGHT_NOT_FINITE: &str = "weight-not-finite";
    /// The folder has no tokenizer of a kind that the family uses.
    pub const TOKENIZER_MISSING: &str = "tokenizer-missing";
    /// The tokenizer does not parse, or contradicts itself.
    pub const TOKENIZER_INVALID: &str = "tokenizer-invalid";
    /// How the tokenizer splits text before merging is none of the ways that llama.cpp knows.
    pub const PRE_TOKENIZER_UNKNOWN: &str = "pre-tokenizer-unknown";
    /// A type or precision that needs an importance matrix, and none was given.
    pub const IMPORTANCE_MISSING: &str = "importance-missing";
    /// The file is no importance matrix, or a damaged one.
    pub const IMPORTANCE_INVALID: &str = "importance-invalid";
    /// The importance matrix was collected on another model.
    pub const IMPORTANCE_MISMATCH: &str = "importance-mismatch";
    /// What the model computes on the calibration text is not finite.
    pub const IMPORTANCE_NOT_FINITE: &str = "importance-not-finite";
    /// A calibration text has too few tokens.
    pub const CALIBRATION_TOO_SHORT: &str = "calibration-too-short";
    /// There is no calibration domain of this name.
    pub const DOMAIN_NOT_FOUND: &str = "domain-not-found";
    /// What a calibration that was stopped left is of another model or text.
    pub const CHECKPOINT_MISMATCH: &str = "checkpoint-mismatch";
    /// llama.cpp's libraries are not there, or do not run here.
    pub const BACKEND_UNAVAILABLE: &str = "backend-unavailable";
    /// The model is quantized already, and would lose twice.
    pub const REQUANTIZE_REFUSED: &str = "requantize-refused";
    /// A tensor's numbers do not fit the type that was chosen for it.
    pub const QUANTIZE_FAILED: &str = "quantize-failed";
    /// A text has fewer tokens than are needed.
    pub const TEXT_TOO_SHORT: &str = "text-too-short";
    /// No types of a model's tensors come to the size or the divergence that is asked for.
    pub const TARGET_UNREACHABLE: &str = "target-unreachable";
    /// Two models whose tokens do not mean the same.
    pub const VOCABULARY_MISMATCH: &str = "vocabulary-mismatch";
    /// A file cannot be written.
    pub const WRITE_FAILED: &str = "write-failed";
}

/// An error about a file.
pub(crate) fn at(code: &str, path: &Path, what: impl std::fmt::Display) -> PluginError {
    PluginError::new(code, format!("{}: {what}", path.display()))
}

/// Refuses a model that is not there at all.
pub(crate) fn must_exist(model: &Path) -> Result<()> {
    if model.exists() {
        return Ok(());
    }
    Err(at(MODEL_NOT_FOUND, model, "no such file or folder").help("check the path"))
}

/// A file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> PluginError {
    at(codes::SOURCE_NOT_FOUND, path, format!("cannot be read: {error}"))
}

/// A file that cannot be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> PluginError {
    at(codes::WRITE_FAILED, path, format!("cannot be written: {error}"))
        .help("check the folder's permissions and the space on its disk")
}

/// An error about `config.json`.
pub(crate) fn config(what: impl std::fmt::Display) -> PluginError {
    PluginError::new(codes::CONFIG_INVALID, format!("config.json: {what}"))
}

/// An error about the tokenizer's files.
pub(crate) fn tokenizer(what: impl std::fmt::Display) -> PluginError {
    PluginError::new(codes::TOKENIZER_INVALID, format!("the tokenizer {what}"))
}
