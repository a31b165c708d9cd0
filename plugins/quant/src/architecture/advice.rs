//! What a model's build says about how to quantize it, in words: the reasons of the strategy `architecture`, and how to
//! keep keys and values.

use serde::Serialize;

use super::{Facts, Family};

/// Why shared experts are raised.
pub(crate) const SHARED_EXPERTS: &str = "every token passes through the shared experts";
/// Why full attention is raised.
pub(crate) const FULL_ATTENTION: &str = "layers that see everything carry what the windowed ones cannot";
/// Why the attention of models with experts is raised.
pub(crate) const ATTENTION_OF_EXPERTS: &str =
    "every token passes through the attention, and few through an expert";
/// Why some layers' experts are raised.
pub(crate) const SHORT_EXPERTS: &str = "few tokens of the calibration reached some of these experts";
/// Why values are raised.
pub(crate) const VALUES: &str = "values are mixed as they are, so that their error is that of the attention";
/// Why down projections are raised.
pub(crate) const DOWN: &str =
    "their error goes straight into what passes from layer to layer, at both ends first";
/// Why the outputs of attention are raised.
pub(crate) const ATTENTION_OUTPUT: &str = "its error goes straight into what passes from layer to layer";
/// Why the down projections of experts are raised.
pub(crate) const DOWN_OF_EXPERTS: &str = "the error of an expert's output is that of its tokens";
/// Why anything else is raised.
pub(crate) const REST: &str = "what the preset would have spent was left";

/// Why keys and values are raised that several heads of queries share.
pub(crate) fn shared_heads(ratio: u64) -> String {
    format!("each head of keys and values serves {ratio} heads of queries")
}

/// The share of the model's size from which on a cache of keys and values is large.
const LARGE: u64 = 4;

/// What to do with a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What the strategy `architecture` raises, and why; in its order.
    pub strategy: Vec<String>,
    /// How to keep keys and values; none for models that keep none.
    pub key_value_cache: Option<CacheAdvice>,
}

/// How to keep keys and values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheAdvice {
    /// `f16` or `q8_0`.
    pub precision: &'static str,
    /// Bytes of one token in it.
    pub bytes_per_token: u64,
    /// Bytes of a full context in it, were every layer to see all of it.
    pub bytes_of_context: u64,
    /// Why.
    pub reason: String,
}

impl Advice {
    /// For a model whose weights take so many bytes.
    pub fn of(facts: &Facts, weights: u64) -> Self {
        let mut strategy = Vec::new();
        let ratio = u64::from(facts.attention.ratio);
        if facts.experts.is_some_and(|experts| experts.shared > 0) {
            strategy.push(format!("shared experts: {SHARED_EXPERTS}"));
        }
        if ratio > 1 {
            strategy.push(format!("keys and values: {}", shared_heads(ratio)));
        }
        if matches!(facts.family, Family::HybridLocalGlobal | Family::SparseMixtureAlternating) {
            strategy.push(format!("layers of full attention: {FULL_ATTENTION}"));
        }
        if facts.experts.is_some() {
            strategy.push(format!("attention: {ATTENTION_OF_EXPERTS}"));
            strategy.push("routers: they stay in 32 bits".into());
            strategy.push(format!("experts, where use was measured: {SHORT_EXPERTS}"));
        }
        if ratio <= 1 {
            strategy.push(format!("values: {VALUES}"));
        }
        strategy.push(format!("down projections: {DOWN}"));
        if facts.family == Family::Encoder {
            return Self { strategy, key_value_cache: None };
        }
        Self { strategy, key_value_cache: Some(cache(facts, weights)) }
    }
}

fn cache(facts: &Facts, weights: u64) -> CacheAdvice {
    let attention = &facts.attention;
    let numbers =
        2 * u64::from(facts.layers) * u64::from(attention.key_value_heads) * u64::from(attention.head_size);
    // Two bytes for a number; or blocks of 32 with 34 bytes.
    let (half, eighth) = (numbers * 2, numbers * 34 / 32);
    let context = u64::from(facts.context);
    let large = half * context > weights / LARGE;
    let (precision, bytes_per_token) = if large { ("q8_0", eighth) } else { ("f16", half) };
    let share = |bytes: u64| bytes as f64 * 100.0 / weights.max(1) as f64;
    CacheAdvice {
        precision,
        bytes_per_token,
        bytes_of_context: bytes_per_token * context,
        reason: match large {
            true => format!(
                "in f16 a full context would take {:.0} % of the weights' bytes",
                share(half * context)
            ),
            false => format!("a full context takes {:.1} % of the weights' bytes", share(half * context)),
        },
    }
}
