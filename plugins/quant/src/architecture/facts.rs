//! What is known of a model: how it is built, and how large it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Architecture, Parameters, count};
use crate::error::Result;
use crate::source::Source;

/// How a model is built, as far as a strategy for its precision cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Every token passes through every weight.
    Dense,
    /// A token passes through some of the experts.
    MixtureOfExperts,
    /// Experts, and layers that take turns in looking near and far.
    SparseMixtureAlternating,
    /// Layers that look near beside layers that look at everything.
    HybridLocalGlobal,
    /// Reads a text as a whole, and makes one vector of it.
    Encoder,
}

/// How a model's attention is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// `mha`, `gqa` or `mqa`.
    pub kind: &'static str,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub key_value_heads: u32,
    /// Heads of queries to each head of keys and values.
    pub ratio: u32,
    /// Elements of a head.
    pub head_size: u32,
    /// How far windowed layers look, when there are any.
    pub window: Option<u32>,
    /// Layers that look no further than the window.
    pub windowed_layers: u32,
}

impl Family {
    /// The family of a model of so many layers, of which some look no further than a window.
    pub(super) fn of(encoder: bool, experts: bool, windowed: u32, layers: u32) -> Self {
        match (experts, (1..layers).contains(&windowed)) {
            _ if encoder => Self::Encoder,
            (true, true) => Self::SparseMixtureAlternating,
            (true, false) => Self::MixtureOfExperts,
            (false, true) => Self::HybridLocalGlobal,
            (false, false) => Self::Dense,
        }
    }
}

impl Attention {
    /// What it is called by its heads.
    pub(super) fn kind(heads: u32, key_value_heads: u32) -> &'static str {
        match key_value_heads {
            n if n == heads => "mha",
            1 => "mqa",
            _ => "gqa",
        }
    }
}

/// The experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Experts {
    /// How many a layer has.
    pub count: u32,
    /// How many a token passes through.
    pub active: u32,
    /// How many every token passes through.
    pub shared: u32,
}

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// Its family's name.
    pub architecture: Cow<'static, str>,
    /// How it is built.
    pub family: Family,
    /// Its attention.
    pub attention: Attention,
    /// Its experts, if it has any.
    pub experts: Option<Experts>,
    /// Layers.
    pub layers: u32,
    /// Elements of what passes from layer to layer.
    pub hidden_size: u32,
    /// Tokens it can look back on.
    pub context: u32,
    /// Words it knows.
    pub vocabulary: u32,
    /// How positions are encoded: `rope`, `rope-llama3`, `rope-yarn`, …, or `absolute`.
    pub positions: String,
    /// The base of rotations, if positions are rotations.
    pub rope_base: Option<f64>,
    /// Whether the output is the embeddings.
    pub tied_embeddings: bool,
    /// `bpe`, `sentencepiece`, `wordpiece` or `none`.
    pub tokenizer: &'static str,
    /// Counted parameters.
    pub parameters: Parameters,
    /// Bytes in a precision, roughly: matrices in it, the rest in 32 bits.
    pub bytes: BTreeMap<&'static str, u64>,
}

/// Bits for each weight of a precision: blocks with their scales.
const PRECISIONS: [(&str, f64); 7] = [
    ("F32", 32.0),
    ("BF16", 16.0),
    ("F16", 16.0),
    ("Q8_0", 8.5),
    ("Q6_K", 6.5625),
    ("Q4_K", 4.5),
    ("Q2_K", 2.625),
];

impl Facts {
    /// Reads them off a model.
    ///
    /// # Errors
    /// `architecture-unsupported`; `model-config-invalid` when the configuration lacks what every model has.
    pub fn of(source: &Source) -> Result<Self> {
        let architecture = Architecture::detect(source)?;
        let config = &source.config;
        let layers = config.required(&["num_hidden_layers"])?;
        let hidden_size = config.required(&["hidden_size"])?;
        let heads = config.required(&["num_attention_heads"])?;
        let key_value_heads = config.count(&["num_key_value_heads"])?.unwrap_or(heads).max(1);
        let head_size = config.count(&["head_dim"])?.unwrap_or(hidden_size / heads);
        let experts = experts(source, architecture)?;
        let (window, windowed_layers) = window(source, architecture, layers)?;
        let family =
            Family::of(architecture == Architecture::Bert, experts.is_some(), windowed_layers, layers);
        let (all, active) = experts.map_or((0, 0), |e| (u64::from(e.count), u64::from(e.active)));
        let parameters = Parameters::of(source, all, active);
        let rope = config.get("rope_parameters").or_else(|| config.get("rope_scaling"));
        let scaling = rope.and_then(|r| r.get("rope_type").or_else(|| r.get("type"))).and_then(Value::as_str);
        let positions = match (architecture, scaling) {
            (Architecture::Bert, _) => "absolute".to_owned(),
            (_, Some(scaling)) if scaling != "default" => format!("rope-{scaling}"),
            _ => "rope".to_owned(),
        };
        let base = rope.and_then(|r| r.get("rope_theta")).and_then(Value::as_f64);
        Ok(Self {
            architecture: architecture.name().into(),
            family,
            attention: Attention {
                kind: Attention::kind(heads, key_value_heads),
                heads,
                key_value_heads,
                ratio: heads / key_value_heads,
                head_size,
                window,
                windowed_layers,
            },
            experts,
            layers,
            hidden_size,
            context: config.required(&["max_position_embeddings"])?,
            vocabulary: config.required(&["vocab_size"])?,
            rope_base: match positions.as_str() {
                "absolute" => None,
                _ => config.number(&["rope_theta"])?.or(base),
            },
            positions,
            tied_embeddings: count::tied(source, architecture),
            tokenizer: tokenizer(source),
            bytes: sizes(&parameters),
            parameters,
        })
    }
}

/// Bytes in each precision, roughly.
pub(super) fn sizes(parameters: &Parameters) -> BTreeMap<&'static str, u64> {
    PRECISIONS.iter().map(|(name, bits)| (*name, count::bytes(parameters, *bits))).collect()
}

fn experts(source: &Source, architecture: Architecture) -> Result<Option<Experts>> {
    if !matches!(architecture, Architecture::Mixtral | Architecture::Qwen3Moe | Architecture::GptOss) {
        return Ok(None);
    }
    let config = &source.config;
    Ok(Some(Experts {
        count: config.required(&["num_local_experts", "num_experts"])?,
        active: config.required(&["num_experts_per_tok"])?,
        shared: config.count(&["n_shared_experts"])?.unwrap_or(0),
    }))
}

/// The window, and how many layers have it.
fn window(source: &Source, architecture: Architecture, layers: u32) -> Result<(Option<u32>, u32)> {
    let config = &source.config;
    let Some(window) = config.count(&["sliding_window"])?.filter(|w| *w > 0) else { return Ok((None, 0)) };
    if let Some(types) = config.get("layer_types").and_then(Value::as_array) {
        let windowed = types.iter().filter(|t| t.as_str() == Some("sliding_attention")).count() as u32;
        return Ok((Some(window).filter(|_| windowed > 0), windowed));
    }
    let windowed = match architecture {
        // One layer in two, beginning with a windowed one.
        Architecture::Gemma2 | Architecture::GptOss => layers.div_ceil(2),
        Architecture::Gemma3 => {
            let pattern = config.count(&["sliding_window_pattern"])?.unwrap_or(6).max(1);
            layers - layers / pattern
        }
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe => {
            match config.flag("use_sliding_window") {
                Some(true) => layers.saturating_sub(config.count(&["max_window_layers"])?.unwrap_or(layers)),
                _ => 0,
            }
        }
        _ => layers,
    };
    Ok((Some(window).filter(|_| windowed > 0), windowed))
}

fn tokenizer(source: &Source) -> &'static str {
    if source.path("tokenizer.model").is_file() {
        return "sentencepiece";
    }
    let described = source.json("tokenizer.json", crate::error::codes::TOKENIZER_INVALID).ok().flatten();
    let model = described.as_ref().and_then(|t| t.get("model"));
    match model.and_then(|m| m.get("type")).and_then(Value::as_str) {
        Some("BPE") => "bpe",
        Some("WordPiece") => "wordpiece",
        Some("Unigram") => "sentencepiece",
        _ => "none",
    }
}
