//! The options of a load, from JSON to settings.

mod schema;

use std::path::PathBuf;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::{FlashAttention, KvType};
use pajamas_plugin_api::Result;
use serde_json::Value;

use schema::invalid;
pub(crate) use schema::schema;

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
    pub adapters: Vec<AdapterOption>,
    pub draft: Option<DraftOption>,
}

/// An adapter to load with the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdapterOption {
    /// Its file, seen from the model's folder.
    pub path: PathBuf,
    /// How strong it is.
    pub scale: f32,
}

/// A model that drafts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DraftOption {
    /// Its file, seen from the model's folder.
    pub path: PathBuf,
    /// The most tokens drafted at once.
    pub max: u32,
    /// How sure it must be of each.
    pub min_probability: f32,
}

impl DraftOption {
    /// Takes a value that agrees with the schema.
    fn new(value: &Value) -> Self {
        let max = value["max"].as_u64().and_then(|n| u32::try_from(n).ok());
        Self {
            path: value["path"].as_str().unwrap_or_default().into(),
            max: max.unwrap_or(schema::DRAFT_MAX),
            min_probability: value["min_probability"].as_f64().unwrap_or(schema::DRAFT_MIN_PROBABILITY)
                as f32,
        }
    }
}

impl AdapterOption {
    /// Takes a value that agrees with the schema.
    fn new(value: &Value) -> Self {
        Self {
            path: value["path"].as_str().unwrap_or_default().into(),
            scale: value["scale"].as_f64().unwrap_or(1.0) as f32,
        }
    }
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
            adapters: Vec::new(),
            draft: None,
        }
    }
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
        schema::check_all("", object, &schema())?;
        for (name, value) in object {
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
            "adapters" => {
                self.adapters = value.as_array().into_iter().flatten().map(AdapterOption::new).collect();
            }
            "draft" => self.draft = Some(DraftOption::new(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::codes;
    use serde_json::json;

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
                None => vec![
                    json!(true),
                    json!(false),
                    json!(3),
                    json!({ "path": "a" }),
                    json!([{ "path": "a" }]),
                ],
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
        let adapters = |adapters: Value| error(json!({ "adapters": adapters }));
        assert!(adapters(json!("a.gguf")).message.contains("a list"));
        assert!(
            adapters(json!(["a.gguf"]))
                .message
                .contains("`adapters[0]` is \"a.gguf\", and must be an object")
        );
        assert!(adapters(json!([{ "scale": 1 }])).message.contains("`adapters[0].path` is missing"));
        assert!(adapters(json!([{ "path": "a", "scales": 1 }])).help.contains("`adapters[0].scale`"));
        let draft = error(json!({ "draft": { "path": "a", "min_probability": 1.5 } }));
        assert!(
            draft.message.contains("`draft.min_probability` is 1.5, and must be a number from 0.0 to 1.0")
        );
        assert!(error(json!({ "draft": { "path": "" } })).message.contains("`draft.path`"));
        let infinite = adapters(json!([{ "path": "a", "scale": 1e39 }]));
        assert!(infinite.message.contains("`adapters[0].scale` is 1e+39"), "{infinite}");
    }

    #[test]
    fn batches_are_whole_micro_batches() {
        let options = LoadOptions::parse(&json!({ "batch_size": 1000, "micro_batch_size": 300 })).unwrap();
        assert_eq!((options.batch_size, options.micro_batch_size), (900, 300));
        let options = LoadOptions::parse(&json!({ "batch_size": 8 })).unwrap();
        assert_eq!((options.batch_size, options.micro_batch_size), (8, 8));
    }
}
