//! The options of a load, from JSON to settings.

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::{FlashAttention, KvType};
use pajamas_plugin_api::{PluginError, Result, codes};
use serde_json::{Map, Value, json};

/// The types that llama.cpp's cache may have.
const KV_TYPES: [&str; 9] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"];

/// Which computed prompt tokens a later request may build on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptCache {
    /// None.
    Off,
    /// Those that computing the whole prompt anew would give bit for bit: whole micro-batches of a prompt that was
    /// computed alone.
    Exact,
    /// Every common token. Faster; results may differ in the last bits.
    Prefix,
}

/// How a model is loaded; see [`schema`] for the meaning of each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoadOptions {
    pub context_length: Option<u32>,
    pub batch_size: u32,
    pub micro_batch_size: u32,
    pub prompt_chunk: u32,
    pub parallel: u32,
    pub cache_tokens: Option<u32>,
    pub threads: Option<u32>,
    pub threads_batch: Option<u32>,
    pub gpu_layers: Option<u32>,
    pub kv_type_k: KvType,
    pub kv_type_v: KvType,
    pub flash_attention: FlashAttention,
    pub prompt_cache: PromptCache,
    pub mmap: bool,
    pub mlock: bool,
    pub vocab_only: Option<bool>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            context_length: None,
            batch_size: 2048,
            micro_batch_size: 512,
            prompt_chunk: 128,
            parallel: 4,
            cache_tokens: None,
            threads: None,
            threads_batch: None,
            gpu_layers: None,
            kv_type_k: TensorType::F16,
            kv_type_v: TensorType::F16,
            flash_attention: FlashAttention::Auto,
            prompt_cache: PromptCache::Prefix,
            mmap: true,
            mlock: false,
            vocab_only: None,
        }
    }
}

/// JSON Schema of the options.
pub(crate) fn schema() -> Value {
    let count = |most: u32, description: &str| json!({ "type": "integer", "minimum": 1, "maximum": most, "description": description });
    let kv = |description: &str| json!({ "enum": KV_TYPES, "default": "f16", "description": description });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "context_length": count(1 << 24,
                "Tokens that one request may use, prompt and answer together. Default: what the model was trained \
                 with, at most 4096."),
            "batch_size": count(1 << 20, "The most prompt tokens handed to llama.cpp at once. Default 2048."),
            "micro_batch_size": count(1 << 16, "Tokens computed together. Default 512."),
            "prompt_chunk": count(1 << 20,
                "The most prompt tokens in a batch with which other requests write: fewer keep their tokens coming, \
                 more read prompts faster. Default 128."),
            "parallel": count(256, "Requests computed at the same time. Default 4."),
            "cache_tokens": count(1 << 28,
                "Tokens the cache has room for, over all requests; at least `context_length`. With fewer than \
                 `parallel` times `context_length` requests share the cache, and when it is full the youngest waits and \
                 is computed again. Default: `parallel` times `context_length`."),
            "threads": count(1024, "Threads for generating. Default: the number of cores."),
            "threads_batch": count(1024, "Threads for prompts. Default: as `threads`."),
            "gpu_layers": { "type": "integer", "minimum": 0, "maximum": 100_000,
                "description": "Layers on the GPU, when the device is one. Default: all." },
            "kv_type_k": kv("Type of the key cache."),
            "kv_type_v": kv("Type of the value cache. Quantized types need flash attention."),
            "flash_attention": { "enum": ["auto", "on", "off"], "default": "auto",
                "description": "Whether attention is computed without writing out all scores." },
            "prompt_cache": { "enum": ["exact", "prefix", "off"], "default": "prefix",
                "description": "Whether a request builds on what an earlier one left in the cache: `prefix` wherever \
                 tokens agree (with quantized weights the last bits of results may differ), `exact` only where results \
                 are the same bit for bit, `off` never." },
            "mmap": { "type": "boolean", "default": true, "description": "Map the file instead of reading it." },
            "mlock": { "type": "boolean", "default": false, "description": "Keep the weights from being swapped." },
            "vocab_only": { "type": "boolean",
                "description": "Load no weights: only tokenizing works. Default: true for files without tensors." },
        }
    })
}

impl LoadOptions {
    /// Reads options; `null` is none.
    ///
    /// # Errors
    /// `invalid-option` for an unknown name (with the nearest known one), a wrong type or a value out of range.
    pub fn parse(options: &Value) -> Result<Self> {
        let mut parsed = Self::default();
        let object = match options {
            Value::Null => return Ok(parsed),
            Value::Object(object) => object,
            other => return Err(invalid(format!("the options of a model must be an object, not {other}"))),
        };
        let schema = schema();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        for (name, value) in object {
            let Some(property) = properties.get(name) else { return Err(unknown(name, &properties)) };
            check(name, value, property)?;
            parsed.set(name, value);
        }
        let quantized = parsed.kv_type_v.block_len() > 1;
        if quantized && parsed.flash_attention == FlashAttention::Off {
            return Err(invalid(format!(
                "kv_type_v = \"{}\" needs flash attention, which flash_attention = \"off\" forbids",
                parsed.kv_type_v
            ))
            .help("use flash_attention = \"auto\", or kv_type_v = \"f16\""));
        }
        // Batches are cut into micro-batches: whole ones, so that prompts are cut alike wherever they start.
        parsed.micro_batch_size = parsed.micro_batch_size.min(parsed.batch_size);
        parsed.batch_size -= parsed.batch_size % parsed.micro_batch_size;
        Ok(parsed)
    }

    /// Takes a value that agrees with the schema.
    fn set(&mut self, name: &str, value: &Value) {
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        let text = value.as_str().unwrap_or_default();
        let flag = value.as_bool().unwrap_or_default();
        match name {
            "context_length" => self.context_length = Some(number),
            "batch_size" => self.batch_size = number,
            "micro_batch_size" => self.micro_batch_size = number,
            "prompt_chunk" => self.prompt_chunk = number,
            "parallel" => self.parallel = number,
            "cache_tokens" => self.cache_tokens = Some(number),
            "threads" => self.threads = Some(number),
            "threads_batch" => self.threads_batch = Some(number),
            "gpu_layers" => self.gpu_layers = Some(number),
            "kv_type_k" => self.kv_type_k = TensorType::from_name(text).unwrap_or(TensorType::F16),
            "kv_type_v" => self.kv_type_v = TensorType::from_name(text).unwrap_or(TensorType::F16),
            "flash_attention" => {
                self.flash_attention = match text {
                    "on" => FlashAttention::On,
                    "off" => FlashAttention::Off,
                    _ => FlashAttention::Auto,
                }
            }
            "prompt_cache" => {
                self.prompt_cache = match text {
                    "off" => PromptCache::Off,
                    "prefix" => PromptCache::Prefix,
                    _ => PromptCache::Exact,
                }
            }
            "mmap" => self.mmap = flag,
            "mlock" => self.mlock = flag,
            "vocab_only" => self.vocab_only = Some(flag),
            _ => {}
        }
    }
}

/// Checks a value against the part of JSON Schema that [`schema`] uses.
fn check(name: &str, value: &Value, property: &Value) -> Result<()> {
    let wanted = if let Some(choices) = property["enum"].as_array() {
        if choices.contains(value) {
            return Ok(());
        }
        let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
        format!("one of {}", choices.join(", "))
    } else if property["type"] == "boolean" {
        if value.is_boolean() {
            return Ok(());
        }
        "true or false".to_owned()
    } else {
        let least = property["minimum"].as_u64().unwrap_or(0);
        let most = property["maximum"].as_u64().unwrap_or(u64::MAX);
        if value.as_u64().is_some_and(|n| (least..=most).contains(&n)) {
            return Ok(());
        }
        format!("an integer from {least} to {most}")
    };
    Err(invalid(format!("the option `{name}` is {value}, and must be {wanted}")))
}

fn unknown(name: &str, properties: &Map<String, Value>) -> PluginError {
    let nearest = properties
        .keys()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.75);
    let help = match nearest {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("known options: {}", properties.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    invalid(format!("the gguf backend has no option `{name}`")).help(help)
}

fn invalid(message: String) -> PluginError {
    PluginError::new(codes::INVALID_OPTION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_defaults() {
        assert_eq!(LoadOptions::parse(&Value::Null).unwrap(), LoadOptions::default());
        assert_eq!(LoadOptions::parse(&json!({})).unwrap(), LoadOptions::default());
    }

    /// Every property of the schema must be taken: a value other than the default must change something.
    #[test]
    fn schema_and_parser_agree() {
        let schema = schema();
        for (name, property) in schema["properties"].as_object().unwrap() {
            let candidates = match property["enum"].as_array() {
                Some(choices) => choices.clone(),
                None => vec![json!(true), json!(false), json!(3)],
            };
            let changed = candidates
                .into_iter()
                .filter_map(|value| LoadOptions::parse(&json!({ name: value })).ok())
                .any(|options| options != LoadOptions::default());
            assert!(changed, "`{name}` has no effect");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let error = |options: Value| LoadOptions::parse(&options).unwrap_err();
        let typo = error(json!({ "contxt_length": 5 }));
        assert_eq!(typo.code, codes::INVALID_OPTION);
        assert!(typo.help.contains("`context_length`"), "{typo}");
        assert!(error(json!({ "zzz": 5 })).help.contains("prompt_cache"));
        assert!(error(json!({ "threads": "many" })).message.contains("an integer from 1"));
        assert!(error(json!({ "threads": 0 })).message.contains("an integer from 1"));
        assert!(error(json!({ "mmap": 1 })).message.contains("true or false"));
        assert!(error(json!({ "kv_type_k": "q9" })).message.contains("\"q8_0\""));
        assert!(error(json!({ "kv_type_v": "q8_0", "flash_attention": "off" })).help.contains("auto"));
        assert!(error(json!([1])).message.contains("object"));
    }

    #[test]
    fn batches_are_whole_micro_batches() {
        let options = LoadOptions::parse(&json!({ "batch_size": 1000, "micro_batch_size": 300 })).unwrap();
        assert_eq!((options.batch_size, options.micro_batch_size), (900, 300));
        let options = LoadOptions::parse(&json!({ "batch_size": 8 })).unwrap();
        assert_eq!((options.batch_size, options.micro_batch_size), (8, 8));
    }
}
