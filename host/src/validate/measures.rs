//! What the extension `pajamas.evaluate/1` answers, and what of it an artifact keeps.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// How far the mean of other texts of this kind would be, typically.
    pub error: f64,
}

/// How the divergence of the candidate's distribution from the original's is distributed over tokens, in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Distribution {
    pub mean: f64,
    pub error: f64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What both models write after the same prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Prompts that were continued.
    pub prompts: u64,
    /// Those that both continue in the same way to the end.
    pub exact: u64,
    /// Tokens that the original wrote.
    pub tokens: u64,
    /// Those of them before the first difference.
    pub common: u64,
    /// The share of tokens before the first difference.
    pub match_rate: f64,
}

/// How alike both choose experts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Routing {
    /// Layers with experts.
    pub layers: u64,
    /// Experts of a layer.
    pub experts: u64,
    /// Those that a token is given.
    pub active: u64,
    /// Choices that were compared: tokens, once for each layer.
    pub choices: u64,
    /// The share of the original's experts of a token that the candidate chooses too.
    pub agreement: Estimate,
    /// How often both choose all the same.
    pub same: Estimate,
    /// Correlation of how often each expert is chosen, over the experts of all layers.
    pub usage_correlation: f64,
    /// The layer in which they agree least.
    pub worst: Worst,
}

/// A layer, and how alike both choose there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Its number.
    pub layer: u64,
    /// The share of the original's experts that the candidate chooses too.
    pub agreement: f64,
}

/// How large a model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes of its tensors.
    pub tensor_bytes: u64,
    /// Bits that a weight takes on average.
    pub bits_per_weight: f64,
}

/// How many bits the numbers of a tensor take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorBits {
    /// Its name.
    pub name: String,
    /// How it is stored.
    #[serde(rename = "type")]
    pub stored: String,
    /// Its numbers.
    pub elements: u64,
    /// Bits of each.
    pub bits: f64,
}

/// What was measured on one form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measures {
    /// Tokens of a window.
    pub window: u64,
    /// Windows that were read.
    pub chunks: u64,
    /// Tokens that the text has.
    pub text_tokens: u64,
    /// Tokens whose probability was compared.
    pub scored: u64,
    /// Perplexity of the candidate.
    pub perplexity: Estimate,
    /// Perplexity of the original.
    pub original_perplexity: Estimate,
    /// The first divided by the second.
    pub perplexity_ratio: Estimate,
    /// Divergence.
    pub kld: Distribution,
    /// Root of the mean square of the differences of the right token's probability.
    pub probability_rms: Estimate,
    /// The mean of these differences.
    pub probability_shift: Estimate,
    /// How often both find the same token the likeliest.
    pub top1: Estimate,
    /// Texts that both wrote.
    pub generation: Generation,
    /// Of models with experts, which of them both choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// The original's size.
    pub original: Size,
    /// The candidate's.
    pub candidate: Size,
    /// The candidate's tensors.
    pub tensors: Vec<TensorBits>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Measures {
    /// What an artifact's manifest keeps of it.
    pub(super) fn quality(&self) -> Map<String, Value> {
        let Self { perplexity, perplexity_ratio, kld, probability_rms, top1, generation, .. } = self;
        let quality = json!({
            "perplexity": rounded(perplexity.value),
            "perplexity_error": rounded(perplexity.error),
            "perplexity_ratio": rounded(perplexity_ratio.value),
            "kld_mean": rounded(kld.mean),
            "kld_error": rounded(kld.error),
            "kld_median": rounded(kld.median),
            "kld_p99": rounded(kld.p99),
            "kld_max": rounded(kld.max),
            "top1_agreement": rounded(top1.value),
            "probability_rms": rounded(probability_rms.value),
            "generation_match": rounded(generation.match_rate),
            "generation_exact": generation.exact,
            "generation_prompts": generation.prompts,
        });
        let Value::Object(mut quality) = quality else { return Map::new() };
        if let Some(routing) = &self.routing {
            quality.insert("router_agreement".into(), rounded(routing.agreement.value).into());
            quality.insert("expert_usage_correlation".into(), rounded(routing.usage_correlation).into());
        }
        quality
    }
}

/// Six digits behind the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
