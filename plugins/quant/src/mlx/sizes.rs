//! Sizes of a model as mlx_lm's classes read them off `config.json`.

use pajamas_plugin_api::Result;
use serde_json::Value;

use crate::architecture::Architecture;
use crate::error;
use crate::source::Source;

/// Sizes of a model.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub hidden: u64,
    pub layers: u64,
    pub vocabulary: u64,
    pub heads: u64,
    pub key_heads: u64,
    pub head: u64,
    pub feed_forward: u64,
    pub feed_forward_bias: bool,
    pub attention_bias: bool,
    pub output_bias: bool,
    pub experts: u64,
    pub expert_feed_forward: u64,
    /// Every so many layers have experts.
    expert_step: u64,
    /// Layers that have none all the same.
    without_experts: Vec<u64>,
    /// Whether the output is the embeddings.
    pub tied: bool,
    /// Whether the language model lies inside of one that sees too.
    pub several_senses: bool,
}

impl Sizes {
    /// Reads them.
    ///
    /// # Errors
    /// `model-config-invalid` when a size is missing, or too large for numbers of 64 bits together.
    pub fn of(source: &Source, architecture: Architecture) -> Result<Self> {
        let config = &source.config;
        let required = |keys: &[&str]| config.required(keys).map(u64::from);
        let hidden = required(&["hidden_size"])?;
        let heads = required(&["num_attention_heads"])?;
        // These classes have heads that share the hidden size, whatever else `head_dim` says.
        let sharing = [Architecture::Mixtral, Architecture::Qwen2, Architecture::Phi3];
        let head = match config.count(&["head_dim"])?.filter(|_| !sharing.contains(&architecture)) {
            Some(head) => u64::from(head),
            None => hidden / heads,
        };
        let has_experts = [Architecture::Mixtral, Architecture::Qwen3Moe, Architecture::GptOss];
        let experts = match has_experts.contains(&architecture) {
            true => required(&["num_local_experts", "num_experts"])?,
            false => 0,
        };
        let feed_forward = required(&["intermediate_size"])?;
        let biased = |key: &str| config.flag(key).unwrap_or(false);
        let llama = matches!(architecture, Architecture::Llama | Architecture::Mistral);
        let attention_bias = match architecture {
            Architecture::Qwen2 | Architecture::GptOss => true,
            _ => llama && biased("attention_bias"),
        };
        Ok(Self {
            hidden,
            layers: required(&["num_hidden_layers"])?,
            vocabulary: required(&["vocab_size"])?,
            heads,
            key_heads: config.count(&["num_key_value_heads"])?.map_or(heads, u64::from),
            head,
            feed_forward,
            feed_forward_bias: llama && biased("mlp_bias"),
            attention_bias,
            output_bias: attention_bias && architecture != Architecture::Qwen2,
            experts,
            expert_feed_forward: config.count(&["moe_intermediate_size"])?.map_or(feed_forward, u64::from),
            expert_step: config.count(&["decoder_sparse_step"])?.map_or(1, u64::from).max(1),
            without_experts: layers_without_experts(source)?,
            tied: tied(source, architecture),
            several_senses: several_senses(source),
        })
    }

    /// Whether a layer of a model with experts has them.
    pub fn has_experts(&self, layer: u64) -> bool {
        (layer + 1).is_multiple_of(self.expert_step) && !self.without_experts.contains(&layer)
    }
}

fn layers_without_experts(source: &Source) -> Result<Vec<u64>> {
    let Some(given) = source.config.get("mlp_only_layers") else { return Ok(Vec::new()) };
    let layers = given.as_array().and_then(|l| l.iter().map(Value::as_u64).collect());
    layers.ok_or_else(|| error::config(format!("`mlp_only_layers` is {given}, not a list of layers")))
}

/// Whether the language model lies inside of another: what mlx_lm tells by the type of the whole.
pub(super) fn several_senses(source: &Source) -> bool {
    source.config.given().get("model_type").and_then(Value::as_str) == Some("gemma3")
}

/// Whether the model's class has no output of its own.
fn tied(source: &Source, architecture: Architecture) -> bool {
    let has_output = source.weights.iter().any(|t| t.info.name.ends_with("lm_head.weight"));
    match architecture {
        Architecture::Gemma2 => true,
        Architecture::Gemma3 => !has_output || source.output_is_embeddings(),
        Architecture::GptOss => false,
        _ => !has_output || source.config.flag("tie_word_embeddings").unwrap_or(false),
    }
}
