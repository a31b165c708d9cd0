//! `config.json`, with what its family's configuration class in transformers adds to it.

use serde_json::{Map, Value, json};

use crate::error::{self, Result};

/// The values of `config.json`, those of its `text_config` beside them, and defaults for what it leaves out.
#[derive(Debug, Clone)]
pub struct Config {
    values: Map<String, Value>,
    given: Map<String, Value>,
    architecture: String,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// `model-config-invalid` when it names no architecture.
    pub fn new(given: Map<String, Value>) -> Result<Self> {
        let text = given.get("text_config").and_then(Value::as_object).cloned().unwrap_or_default();
        let named = |config: &Map<String, Value>| {
            config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).map(str::to_owned)
        };
        let Some(architecture) = named(&text).or_else(|| named(&given)) else {
            return Err(error::config("`architectures` names none")
                .help("a model's config.json names its class, for example [\"LlamaForCausalLM\"]"));
        };
        // The inner object of a model of several kinds of input describes its language model.
        let own = |key: &str| text.get(key).or_else(|| given.get(key));
        let family = own("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut values = defaults(&family);
        values.extend(given.clone());
        values.extend(text);
        derive(&family, &mut values);
        Ok(Self { values, given, architecture })
    }

    /// The class that the model was saved from, for example `LlamaForCausalLM`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// `config.json` as it is, without defaults.
    pub fn given(&self) -> &Map<String, Value> {
        &self.given
    }

    /// A value that is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    /// The value of the first of these keys that is there; null counts as there.
    pub fn first(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().find_map(|key| self.values.get(*key)).filter(|v| !v.is_null())
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// A flag.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    /// A count, when the key is there.
    ///
    /// # Errors
    /// `model-config-invalid` when it is no count that fits 32 bits.
    pub fn count(&self, keys: &[&str]) -> Result<Option<u32>> {
        self.first(keys).map(|value| count(keys[0], value)).transpose()
    }

    /// A count that must be there and above zero.
    ///
    /// # Errors
    /// `model-config-invalid`.
    pub fn required(&self, keys: &[&str]) -> Result<u32> {
        match self.count(keys)? {
            Some(0) => Err(error::config(format!("`{}` is 0", keys[0]))),
            Some(count) => Ok(count),
            None => Err(error::config(format!("`{}` is missing", keys[0]))),
        }
    }

    /// A number, when the key is there.
    ///
    /// # Errors
    /// `model-config-invalid` when it is none.
    pub fn number(&self, keys: &[&str]) -> Result<Option<f64>> {
        let number = |v: &Value| v.as_f64().ok_or_else(|| wrong(keys[0], v, "a number"));
        self.first(keys).map(number).transpose()
    }
}

/// A value as a count that fits 32 bits.
pub(crate) fn count(key: &str, value: &Value) -> Result<u32> {
    let count = value.as_u64().and_then(|n| u32::try_from(n).ok());
    count.ok_or_else(|| wrong(key, value, "a count"))
}

fn wrong(key: &str, value: &Value, what: &str) -> pajamas_plugin_api::PluginError {
    error::config(format!("`{key}` is {value}, not {what}"))
}

/// What the classes of transformers 4.57 put in place of a value that `config.json` leaves out, as far as a
/// conversion reads it.
fn defaults(family: &str) -> Map<String, Value> {
    let values = match family {
        "llama" => json!({"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}),
        "mistral" => json!({
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "num_key_value_heads": 8, "sliding_window": 4096
        }),
        "mixtral" => json!({
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_key_value_heads": 8,
            "num_local_experts": 8, "num_experts_per_tok": 2
        }),
        "qwen2" => json!({
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "num_key_value_heads": 32
        }),
        "qwen3" => json!({
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "num_key_value_heads": 32, "head_dim": 128
        }),
        "qwen3_moe" => json!({
            "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "num_key_value_heads": 4,
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768
        }),
        "gemma2" => json!({
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "num_key_value_heads": 4,
            "head_dim": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0, "tie_word_embeddings": true
        }),
        "gemma3_text" => json!({
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
            "sliding_window": 4096, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "vocab_size": 262_208, "tie_word_embeddings": true
        }),
        "phi3" => json!({
            "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "partial_rotary_factor": 1.0
        }),
        "gpt_oss" => json!({
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 150_000.0,
            "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "rope_scaling": {
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
                "original_max_position_embeddings": 4096
            }
        }),
        "bert" => json!({
            "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "type_vocab_size": 2, "hidden_size": 768,
            "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30522,
            "tie_word_embeddings": true
        }),
        _ => json!({}),
    };
    match values {
        Value::Object(values) => values,
        _ => Map::new(),
    }
}

/// What those classes compute from other values.
fn derive(family: &str, values: &mut Map<String, Value>) {
    let absent = |values: &Map<String, Value>, key: &str| values.get(key).is_none_or(Value::is_null);
    let computes_heads = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3", "gpt_oss"];
    if computes_heads.contains(&family)
        && absent(values, "num_key_value_heads")
        && let Some(heads) = values.get("num_attention_heads").cloned()
    {
        values.insert("num_key_value_heads".into(), heads);
    }
    // Of these, llama's class alone keeps what it computes.
    if family == "llama"
        && absent(values, "head_dim")
        && let (Some(hidden), Some(heads)) = (
            values.get("hidden_size").and_then(Value::as_u64),
            values.get("num_attention_heads").and_then(Value::as_u64),
        )
    {
        values.insert("head_dim".into(), hidden.checked_div(heads).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: Value) -> Result<Config> {
        Config::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn defaults_are_the_familys_own() {
        let config = config(json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
            "num_attention_heads": 4, "head_dim": null, "rms_norm_eps": 1e-5
        }));
        let config = config.unwrap();
        assert_eq!(config.count(&["head_dim"]).unwrap(), Some(16));
        assert_eq!(config.count(&["num_key_value_heads"]).unwrap(), Some(4));
        assert_eq!(config.number(&["rms_norm_eps"]).unwrap(), Some(1e-5));
        assert_eq!(config.number(&["rope_theta"]).unwrap(), Some(1e4));
        assert_eq!(config.required(&["vocab_size"]).unwrap_err().code, "model-config-invalid");
    }

    #[test]
    fn the_inner_text_configuration_wins() {
        let config = config(json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "hidden_size": 1,
            "text_config": {"model_type": "gemma3_text", "hidden_size": 64}
        }));
        let config = config.unwrap();
        assert_eq!(config.architecture(), "Gemma3ForConditionalGeneration");
        assert_eq!(config.count(&["hidden_size"]).unwrap(), Some(64));
        assert_eq!(config.count(&["sliding_window"]).unwrap(), Some(4096));
    }

    #[test]
    fn wrong_types_are_named() {
        assert_eq!(config(json!({})).unwrap_err().code, "model-config-invalid");
        let config = config(json!({"architectures": ["X"], "a": "b", "c": -1})).unwrap();
        for key in ["a", "c"] {
            assert!(config.count(&[key]).unwrap_err().message.contains(&format!("`{key}`")));
        }
    }
}
