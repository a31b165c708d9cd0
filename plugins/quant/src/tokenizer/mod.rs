//! A model's vocabulary, as llama.cpp wants it written down.

mod bpe;
mod files;
mod pre;
mod pre_table;
mod protobuf;
mod sentencepiece;
mod special;

use pajamas_llama_cpp::gguf::Writer;
use pajamas_plugin_api::Result;

use crate::architecture::Architecture;
use crate::source::Source;

pub use protobuf::{Piece, pieces};

/// What a token is: llama.cpp's numbers (`llama_token_type`, llama.h).
mod kind {
    pub const NORMAL: i32 = 1;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// A vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vocabulary {
    /// llama.cpp's name for the algorithm.
    model: &'static str,
    /// llama.cpp's name for what splits the text before it.
    pre: String,
    tokens: Vec<String>,
    scores: Option<Vec<f32>>,
    kinds: Vec<i32>,
    /// Whether pairs to merge belong to it.
    merges: bool,
    /// Whether ids of special tokens must lie within it.
    bounded: bool,
}

impl Vocabulary {
    /// Reads a model's vocabulary by its family's ways. `pre` overrides what is found out about the splitting.
    ///
    /// # Errors
    /// `tokenizer-missing`, `tokenizer-invalid`, `pre-tokenizer-unknown`.
    pub fn of(source: &Source, architecture: Architecture, pre: Option<&str>) -> Result<Self> {
        let has_pieces = source.path("tokenizer.model").is_file();
        match architecture {
            Architecture::Bert => bpe::word_pieces(source, pre),
            Architecture::GptOss | Architecture::Qwen3Moe => bpe::of(source, pre),
            Architecture::Phi3 => {
                let class = files::config(source)?;
                match class.get("tokenizer_class").and_then(|c| c.as_str()) {
                    Some("GPT2Tokenizer") => bpe::of(source, pre),
                    _ => sentencepiece::phi3(source),
                }
            }
            Architecture::Gemma2 => sentencepiece::of(source),
            _ if has_pieces => sentencepiece::of(source),
            Architecture::Llama | Architecture::Mistral | Architecture::Mixtral => {
                match sentencepiece::from_json(source)? {
                    Some(vocabulary) => Ok(vocabulary),
                    None => bpe::of(source, pre),
                }
            }
            Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Gemma3 => bpe::of(source, pre),
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Writes the vocabulary, what special tokens there are, and the chat template.
    ///
    /// # Errors
    /// `tokenizer-invalid`.
    pub fn write(self, source: &Source, architecture: Architecture, writer: &mut Writer) -> Result<()> {
        const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
        match architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Mixtral => {
                if let Some(add) = files::config(source)?.get("add_prefix_space").and_then(|v| v.as_bool()) {
                    writer.set(SPACE_PREFIX, add);
                }
            }
            Architecture::Bert => {
                let kinds = source.config.count(&["type_vocab_size"])?.unwrap_or(1);
                writer.set("tokenizer.ggml.token_type_count", kinds);
            }
            _ => {}
        }
        let special = special::Special::of(source, self.merges, self.bounded.then_some(self.tokens.len()))?;
        writer.set("tokenizer.ggml.model", self.model).set("tokenizer.ggml.pre", self.pre);
        writer.set("tokenizer.ggml.tokens", self.tokens);
        if let Some(scores) = self.scores {
            writer.set("tokenizer.ggml.scores", scores);
        }
        writer.set("tokenizer.ggml.token_type", self.kinds);
        special.write(writer);
        let gemma3_pieces = architecture == Architecture::Gemma3 && self.model == "llama";
        if architecture == Architecture::Gemma2 || gemma3_pieces {
            writer.set(SPACE_PREFIX, false);
        }
        Ok(())
    }
}

/// Whether a token that was added looks as if it controlled something, though it is not marked so (conversion/base.py,
/// `does_token_look_special`).
fn looks_special(token: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
        || (token.starts_with("<|") && token.ends_with("|>"))
        || (token.starts_with("<｜") && token.ends_with("｜>"))
        || (token.starts_with("<unused") && token.ends_with('>'))
}
