//! Quantizers make an artifact of some format out of a source model.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::extension::Extension;
use crate::sink::{Cancel, ProgressSink};

/// What a quantizer is. Constant over the life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizerInfo {
    /// Unique within the plugin and used on the command line, for example `gguf`.
    pub id: String,
    /// One line for people.
    pub description: String,
    /// Source formats it reads, for example `huggingface`, `gguf`, `onnx`.
    pub sources: Vec<String>,
    /// The format it writes.
    pub target: String,
    /// Precisions it writes, for example `Q4_K_M`.
    pub precisions: Vec<String>,
    /// JSON Schema of [`QuantizeRequest::options`]. An option that names files says `"format": "path"`, or its items do: a
    /// server takes such files from one folder only, and lets no other option name a path out of it.
    #[serde(default)]
    pub options_schema: serde_json::Value,
}

/// A model to quantize.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizeRequest {
    /// The source model: a folder or a file.
    pub source: PathBuf,
    /// The folder to write into. Files appear in it whole or not at all.
    pub output: PathBuf,
    /// One of [`QuantizerInfo::precisions`].
    pub precision: String,
    /// Options after the quantizer's schema.
    #[serde(default)]
    pub options: serde_json::Value,
}

/// One file that a run would write or has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Path below the output folder.
    pub path: PathBuf,
    /// Its exact size.
    pub bytes: u64,
}

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizePlan {
    /// The files it would write.
    pub files: Vec<OutputFile>,
    /// The most memory it would need, in bytes.
    pub peak_memory: u64,
    /// What a person should know: fallback types, tensors kept at high precision.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantizeReport {
    /// The files written.
    pub files: Vec<OutputFile>,
    /// What goes into the manifest's per-format entry.
    #[serde(default)]
    pub metadata: serde_json::Value,
}

/// Makes artifacts of one format. Threads and panics: as for [`Backend`](crate::Backend).
pub trait Quantizer: Send + Sync {
    /// What this quantizer is. Cheap; constant.
    fn describe(&self) -> QuantizerInfo;

    /// What [`run`](Quantizer::run) would do, with exact sizes, without writing.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`, `invalid-option`.
    fn plan(&self, request: &QuantizeRequest) -> Result<QuantizePlan>;

    /// Quantizes. Cancelling leaves nothing half-written.
    ///
    /// # Errors
    /// As for [`plan`](Quantizer::plan); `cancelled`; `io`.
    fn run(
        &self,
        request: &QuantizeRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<QuantizeReport>;

    /// A capability that this version of the traits does not know, by name; `None` when not offered.
    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        None
    }
}
