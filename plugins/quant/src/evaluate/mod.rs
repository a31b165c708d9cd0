//! The extension `pajamas.evaluate/1`: how close a model of fewer bits is to the one that it was made of.
//!
//! Both are loaded, and read the same text side by side, a few tokens at a time: memory is that of two models, and no
//! logits are ever written down. What is computed is what llama.cpp's `llama-perplexity` computes: the text is cut into
//! windows, each read from an empty cache, and the second half of each window is scored.

mod compare;
mod generation;
mod model;
mod reference;
mod routing;
mod run;

use std::path::PathBuf;

use pajamas_plugin_api::{
    Cancel, EventSink, Extension, HostContext, NamedTensor, PluginError, Result, TensorSink, codes,
};
use serde::{Deserialize, Serialize};

pub use compare::{Comparison, Distribution, Estimate};
pub use generation::Generation;
pub use model::TensorBits;
pub(crate) use model::library;
pub(crate) use reference::{Pieces, Reference};
pub use routing::{Routing, Worst};

/// The extension's name.
pub(crate) const NAME: &str = "pajamas.evaluate/1";

/// What is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    /// A GGUF file, or a Hugging Face folder.
    original: PathBuf,
    /// A GGUF file, or an MLX folder.
    candidate: PathBuf,
    /// A file of text in UTF-8.
    text: PathBuf,
    /// A folder for files that are made for the run: folders become GGUF files there. The caller removes it.
    scratch: PathBuf,
    /// Tokens of a window; otherwise 512, or what the model was trained with if that is less.
    #[serde(default)]
    window: Option<u32>,
    /// The most windows; otherwise as many as the text has.
    #[serde(default)]
    chunks: Option<usize>,
    /// Texts to continue; otherwise beginnings of windows.
    #[serde(default)]
    prompts: Vec<String>,
    /// Tokens to continue each by.
    #[serde(default = "default_tokens")]
    tokens: usize,
    /// Threads; otherwise one for each processor.
    #[serde(default)]
    threads: Option<u32>,
}

fn default_tokens() -> usize {
    32
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// Tokens of a window.
    window: u32,
    /// Windows that were read.
    chunks: usize,
    /// Tokens that the text has.
    text_tokens: usize,
    #[serde(flatten)]
    comparison: Comparison,
    generation: Generation,
    /// Of models with experts, which of them both choose.
    routing: Option<Routing>,
    /// The original's bytes of tensors, and bits a weight.
    original: model::Size,
    /// The candidate's.
    candidate: model::Size,
    /// The candidate's tensors: how many bits a number of each takes.
    tensors: Vec<TensorBits>,
    /// What a person should know.
    notes: Vec<String>,
}

/// Measures models with llama.cpp, on the processor.
pub(crate) struct Evaluate(pub HostContext);

impl Extension for Evaluate {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: Call = serde_json::from_slice(input)
            .map_err(|e| PluginError::invalid_input(format!("the call of {NAME}: {e}")))?;
        let mut told = |fraction: f64, what: &str| {
            let event = serde_json::json!({ "fraction": fraction, "message": what }).to_string();
            match events.event("progress", event.as_bytes()) {
                std::ops::ControlFlow::Continue(()) => cancel.check(),
                std::ops::ControlFlow::Break(()) => Err(PluginError::cancelled()),
            }
        };
        let answer = run::run(&self.0, &call, &mut told, cancel)?;
        serde_json::to_vec(&answer).map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))
    }
}
