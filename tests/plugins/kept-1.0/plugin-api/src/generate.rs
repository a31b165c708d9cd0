//! Text generation and embedding: requests and what comes back beside the tokens.

use serde::{Deserialize, Serialize};

/// Text for a model, as text or already as tokens. A session refuses forms it does not know as `unsupported`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Prompt {
    /// Text that the session tokenizes.
    Text {
        /// The text.
        text: String,
        /// Whether the tokens the model wants around a text (BOS, EOS) are added.
        add_special: bool,
        /// Whether names of special tokens in the text (`<|im_end|>`) become those tokens.
        parse_special: bool,
    },
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
    /// A gap to fill: the session joins both sides as the model was trained to. For sessions with
    /// [`INFILL`](crate::capability::INFILL).
    Infill {
        /// What comes before the gap.
        prefix: String,
        /// What comes after it.
        suffix: String,
    },
    /// Two texts to compare: the session joins them as the model was trained to. For sessions with
    /// [`RERANK`](crate::capability::RERANK).
    Pair {
        /// What is looked for.
        query: String,
        /// What may answer it.
        document: String,
    },
}

impl Prompt {
    /// Plain text: special tokens are added around it and not recognised inside it.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), add_special: true, parse_special: false }
    }
}

/// How the next token is chosen. The defaults are greedy-free and plain: llama.cpp's usual values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0 picks the most likely token.
    pub temperature: f32,
    /// Only the k most likely; 0 for all.
    pub top_k: u32,
    /// The smallest set whose probabilities sum to p; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the most likely one; 0 for all.
    pub min_p: f32,
    /// Divides (multiplies) the logits of tokens seen among the last `penalty_last_n`; 1 for none.
    pub repeat_penalty: f32,
    /// Subtracted once for a token that was seen (OpenAI's `presence_penalty`).
    pub presence_penalty: f32,
    /// Subtracted per time that a token was seen (OpenAI's `frequency_penalty`).
    pub frequency_penalty: f32,
    /// How far the penalties look back; -1 for the whole context.
    pub penalty_last_n: i32,
    /// Equal seeds give equal answers on the same build and device; `None` draws one.
    pub seed: Option<u64>,
    /// Added to the logits of single tokens: (token id, bias).
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_last_n: 64,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

/// What an answer, or a part of it, must look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// The language of the texts that are allowed.
    pub grammar: Grammar,
    /// Texts that switch the grammar on: the answer is free until one of them was generated, then follows the grammar
    /// until that is complete, and is free again. Empty: the whole answer follows the grammar and ends with it.
    #[serde(default)]
    pub after: Vec<String>,
    /// With `after`: the prompt ends with one of those texts, so that the answer begins under the grammar.
    #[serde(default)]
    pub begun: bool,
    /// What a schema says and cannot be enforced is left out of the grammar, rather than refused.
    #[serde(default)]
    pub lenient: bool,
}

/// A language, written down. A session refuses forms it does not know as `unsupported`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Grammar {
    /// JSON that a JSON Schema accepts, without free whitespace between its parts. `{}` accepts any JSON.
    JsonSchema(serde_json::Value),
    /// llama.cpp's GBNF, from its rule `root`.
    Gbnf(String),
}

/// A request to generate text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// What to continue.
    pub prompt: Prompt,
    /// The most tokens to generate; `None` for as many as fit the context.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    #[serde(default)]
    pub sampling: Sampling,
    /// Texts that end the answer; they may span tokens and are not part of the answer.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Whether each token's log-probability is wanted, and how many alternatives with it.
    #[serde(default)]
    pub logprobs: Option<u32>,
    /// Goes on past end-of-generation tokens: for measurements.
    #[serde(default)]
    pub ignore_eos: bool,
    /// Whether control tokens are text of the answer, too, for a caller that reads them. Those that end it never are.
    #[serde(default)]
    pub special: bool,
    /// What the answer must look like. For sessions with [`CONSTRAIN`](crate::capability::CONSTRAIN); others refuse it
    /// as `unsupported`.
    #[serde(default)]
    pub constraint: Option<Constraint>,
    /// Among waiting requests the highest goes first; equal ones in the order of their arrival.
    #[serde(default)]
    pub priority: i32,
    /// What only some backends understand; an unknown name is an error.
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl GenerateRequest {
    /// A request with default sampling and no limit but the context.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            ignore_eos: false,
            special: false,
            constraint: None,
            priority: 0,
            options: serde_json::Map::new(),
        }
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-generation token or a stop string.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The cancel flag was set, or the sink broke.
    Cancelled,
}

/// Tokens counted for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Prompt tokens that were still in the cache and not computed again.
    #[serde(default)]
    pub cached_tokens: u32,
}

/// Where the time of one request went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting for the session.
    #[serde(default)]
    pub queue_ms: f64,
    /// Processing the prompt, up to and with the first token.
    pub prompt_ms: f64,
    /// Generating the tokens after the first.
    pub decode_ms: f64,
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerateSummary {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The stop string that ended it, if one did.
    #[serde(default)]
    pub stop_string: Option<String>,
    /// Tokens counted.
    pub usage: Usage,
    /// Where the time went.
    pub timings: Timings,
}

/// A request to embed texts, or to score pairs of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// The texts; for `rank`, [`Prompt::Pair`]s.
    pub inputs: Vec<Prompt>,
    /// `mean`, `cls` or `last`; `None` for the model's own, or `mean` when it has none. `rank` scores pairs: instead of
    /// `embeddings` the tensor `scores` is written, f32, [number of inputs], the model's raw score of each pair.
    #[serde(default)]
    pub pooling: Option<String>,
    /// Whether each embedding is scaled to length 1.
    #[serde(default)]
    pub normalize: bool,
}
