//! Backends run models. A backend describes itself, says what it would cost to load a model, and loads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::extension::Extension;
use crate::generate::{EmbedRequest, GenerateRequest, GenerateSummary, Prompt, Usage};
use crate::sink::{Cancel, ProgressSink, TensorSink, TokenSink};
use crate::tensor::{NamedTensor, TensorSpec};
use crate::{PluginError, Result};

/// What a backend is. Constant over the life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Unique within the plugin and used in configuration, for example `gguf` or `onnxruntime`.
    pub id: String,
    /// One line for people.
    pub description: String,
    /// Formats of the models it loads, for example `gguf`, `onnx`.
    pub formats: Vec<String>,
    /// Precisions it runs, for example `f16`, `q4_k_m`, `int8`.
    #[serde(default)]
    pub precisions: Vec<String>,
    /// Device kinds it may use, for example `cpu`, `cuda`, `metal`.
    #[serde(default)]
    pub device_kinds: Vec<String>,
    /// Which of [`capability`]'s operations its sessions may offer.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// JSON Schema (an object with `properties`) of the options [`LoadRequest::options`] may hold.
    #[serde(default)]
    pub options_schema: serde_json::Value,
}

/// Names of what a session can do. More may be added; unknown ones are ignored.
pub mod capability {
    /// [`Session::infer`](crate::Session::infer)
    pub const INFER: &str = "infer";
    /// [`Session::generate`](crate::Session::generate)
    pub const GENERATE: &str = "generate";
    /// [`Session::embed`](crate::Session::embed)
    pub const EMBED: &str = "embed";
    /// [`Session::tokenize`](crate::Session::tokenize) and `detokenize`
    pub const TOKENIZE: &str = "tokenize";
    /// [`Session::generate`](crate::Session::generate) with a [`Constraint`](crate::Constraint)
    pub const CONSTRAIN: &str = "constrain";
    /// [`Session::generate`](crate::Session::generate) with [`Prompt::Infill`](crate::Prompt::Infill)
    pub const INFILL: &str = "infill";
    /// [`Session::embed`](crate::Session::embed) with the pooling `rank`, on [`Prompt::Pair`](crate::Prompt::Pair)s
    pub const RERANK: &str = "rerank";
}

/// A place where a model can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `cpu`, `cuda:0`, `metal:0`, `ane`, `vulkan:0` …
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// All of its memory in bytes; 0 when unknown.
    #[serde(default)]
    pub memory_total: u64,
    /// Its free memory in bytes at the time of the probe; 0 when unknown.
    #[serde(default)]
    pub memory_free: u64,
}

/// Whether, where and how well a backend runs on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// 0: not on this machine. Otherwise higher wins among backends of one format: 100 is a portable fallback,
    /// 200 an engine tuned for this processor, 300 and more an accelerator.
    pub score: u32,
    /// Why this score, in words an operator understands ("libonnxruntime 1.31.1 at …", "no CUDA device").
    pub reason: String,
    /// The devices it can use, the preferred one first.
    #[serde(default)]
    pub devices: Vec<DeviceInfo>,
}

/// A model to load, or to estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// The model's main file.
    pub path: PathBuf,
    /// Its format, one of [`BackendInfo::formats`].
    pub format: String,
    /// Where to run it: a [`DeviceInfo::id`], or empty for the backend's preferred device.
    #[serde(default)]
    pub device: String,
    /// Options after the backend's schema; an object, or null for defaults. Unknown names are an
    /// `invalid-option` error, not a silence.
    #[serde(default)]
    pub options: serde_json::Value,
}

/// Bytes that a session will hold, or holds, on one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The device's id.
    pub device: String,
    /// The model's weights, including copies made for speed.
    pub weights: u64,
    /// The key-value cache.
    #[serde(default)]
    pub kv: u64,
    /// Everything else that lives as long as the session: compute buffers, arenas.
    #[serde(default)]
    pub scratch: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.scratch
    }
}

/// What a loaded model takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Signature {
    /// What this session can do, of [`capability`].
    pub capabilities: Vec<String>,
    /// Inputs of [`Session::infer`].
    #[serde(default)]
    pub inputs: Vec<TensorSpec>,
    /// Outputs of [`Session::infer`].
    #[serde(default)]
    pub outputs: Vec<TensorSpec>,
    /// For models of text.
    #[serde(default)]
    pub text: Option<TextSignature>,
    /// The model's own metadata, as far as it is text (for ONNX the `metadata_props`).
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// What a text model is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TextSignature {
    /// The family, for example `llama`.
    pub architecture: String,
    /// Number of tokens in the vocabulary.
    pub vocab_size: u32,
    /// Tokens one request may use, prompt and answer together.
    pub context_length: u32,
    /// The context the model was trained with.
    pub context_train: u32,
    /// Length of an embedding.
    pub embedding_size: u32,
    /// The chat template (Jinja), when the model has one.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// Text of the beginning-of-sequence token.
    #[serde(default)]
    pub bos_token: Option<String>,
    /// Text of the end-of-sequence token.
    #[serde(default)]
    pub eos_token: Option<String>,
    /// Number of parameters; 0 when unknown.
    #[serde(default)]
    pub parameters: u64,
}

/// A request for [`Session::infer`], beside its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InferRequest {
    /// The outputs wanted; empty for all.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id in the vocabulary.
    pub id: u32,
    /// Its bytes as text; bytes that are not UTF-8 on their own appear as U+FFFD.
    pub text: String,
}

/// Runs models of some formats on some devices.
///
/// All methods may be called from any thread and at the same time. None may panic by intent (a panic is caught,
/// reported as `panicked`, and counts against the plugin), and none keeps a reference to its arguments.
pub trait Backend: Send + Sync {
    /// What this backend is. Cheap; constant.
    fn describe(&self) -> BackendInfo;

    /// Whether it runs here, and how well. Must not create a GPU context: a host that supervises holds no VRAM.
    fn probe(&self) -> Probe;

    /// What loading would cost, without loading: one entry per device. Within 10 % of the truth.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`, `invalid-option`.
    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>>;

    /// Loads a model. Blocks until it is ready; reports progress and honours `cancel` at least every second.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`, `invalid-option`, `out-of-memory`, `cancelled`.
    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>>;

    /// A capability that this version of the traits does not know, by name; `None` when not offered.
    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        None
    }
}

/// A loaded model.
///
/// Methods may be called from any thread and at the same time; a session that can only do one thing at a time
/// queues. Dropping the session gives its memory back: the host measures that it did.
pub trait Session: Send + Sync {
    /// What the model takes and gives. Constant.
    fn signature(&self) -> Signature;

    /// Bytes held now, per device.
    fn usage(&self) -> Vec<Memory>;

    /// Runs the model on tensors. Inputs are borrowed for the call; outputs go to the sink.
    ///
    /// # Errors
    /// `invalid-input` (names the input, what was expected and what was given), `output-too-large`, `cancelled`.
    fn infer(
        &self,
        _request: &InferRequest,
        _inputs: &[NamedTensor<'_>],
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<()> {
        Err(PluginError::unsupported("this session", "infer"))
    }

    /// Generates text token by token into the sink, which is called on the caller's thread. Stops at an
    /// end-of-generation token, at a stop string (which is not emitted), at `max_tokens`, on cancel, or when the
    /// sink breaks. `cancel` is honoured within one token, and within one batch of prompt tokens.
    ///
    /// # Errors
    /// `context-length-exceeded` with counts: a prompt is never cut in silence. `invalid-input`.
    fn generate(
        &self,
        _request: &GenerateRequest,
        _tokens: &mut dyn TokenSink,
        _cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        Err(PluginError::unsupported("this session", "generate"))
    }

    /// Embeds texts: writes the tensor `embeddings`, f32, [number of inputs, embedding size]; or scores pairs, as
    /// [`EmbedRequest::pooling`] says.
    ///
    /// # Errors
    /// `context-length-exceeded`, `invalid-input`, `cancelled`.
    fn embed(
        &self,
        _request: &EmbedRequest,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Usage> {
        Err(PluginError::unsupported("this session", "embed"))
    }

    /// Turns text into tokens.
    fn tokenize(&self, _prompt: &Prompt) -> Result<Vec<Token>> {
        Err(PluginError::unsupported("this session", "tokenize"))
    }

    /// Turns tokens into text.
    fn detokenize(&self, _tokens: &[u32]) -> Result<String> {
        Err(PluginError::unsupported("this session", "detokenize"))
    }

    /// A capability that this version of the traits does not know, by name; `None` when not offered.
    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        None
    }
}
