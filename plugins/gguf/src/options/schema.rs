//! What options there are, and what may be in them.

use pajamas_plugin_api::{PluginError, Result, codes};
use serde_json::{Map, Value, json};

/// The types that llama.cpp's cache may have.
const KV_TYPES: [&str; 9] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"];

/// The most adapters of a model.
const MOST_ADAPTERS: usize = 16;

/// Tokens that a draft model writes at once, unless the options say otherwise.
pub(super) const DRAFT_MAX: u32 = 8;
/// How sure it must be of each.
pub(super) const DRAFT_MIN_PROBABILITY: f64 = 0.5;

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
            "adapters": { "type": "array", "maxItems": MOST_ADAPTERS, "default": [],
                "items": {
                    "type": "object",
                    "required": ["path"],
                    "additionalProperties": false,
                    "properties": { "path": { "type": "string" }, "scale": { "type": "number", "minimum": -1000, "maximum": 1000, "default": 1.0 } },
                },
                "description": "LoRA adapters that all requests use, each as `{ path, scale }`: a GGUF file, seen from \
                 the model's folder, and how strong it is (default 1)." },
            "draft": { "type": "object",
                "required": ["path"],
                "additionalProperties": false,
                "properties": {
                    "path": { "type": "string" },
                    "max": { "type": "integer", "minimum": 1, "maximum": 64, "default": DRAFT_MAX },
                    "min_probability":
                        { "type": "number", "minimum": 0, "maximum": 1, "default": DRAFT_MIN_PROBABILITY },
                },
                "description": "A smaller model of the same vocabulary that writes ahead, as `{ path, max, \
                 min_probability }`: the model itself computes what it wrote in one batch, and keeps what it would have \
                 chosen. Answers stay what they are. At most `max` tokens at once (default 8), shared by the requests \
                 that write, and each at least as likely as `min_probability` (default 0.5)." },
        }
    })
}

/// Checks options, or what one of them consists of, against a schema of properties. `within` is the name of what they
/// are parts of, with a dot at its end.
///
/// # Errors
/// `invalid-option` for an unknown name (with the nearest known one), a wrong type or a value out of range.
pub(super) fn check_all(within: &str, values: &Map<String, Value>, schema: &Value) -> Result<()> {
    let properties = &schema["properties"];
    for (name, value) in values {
        let Some(property) = properties.get(name) else { return Err(unknown(within, name, properties)) };
        check(&format!("{within}{name}"), value, property)?;
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !values.contains_key(name) {
            return Err(invalid(format!("the option `{within}{name}` is missing")));
        }
    }
    Ok(())
}

/// Checks a value against the part of JSON Schema that [`schema`] uses.
fn check(name: &str, value: &Value, property: &Value) -> Result<()> {
    let wanted = match (property["type"].as_str(), value) {
        (Some("object"), Value::Object(values)) => return check_all(&format!("{name}."), values, property),
        (Some("object"), _) => "an object".to_owned(),
        (Some("array"), Value::Array(items)) => {
            let most = property["maxItems"].as_u64().unwrap_or(u64::MAX);
            if items.len() as u64 <= most {
                let mut items = items.iter().enumerate();
                return items
                    .try_for_each(|(i, item)| check(&format!("{name}[{i}]"), item, &property["items"]));
            }
            format!("no longer than {most}")
        }
        (Some("array"), _) => "a list".to_owned(),
        (Some("string"), Value::String(text)) if !text.is_empty() => return Ok(()),
        (Some("string"), _) => "a text".to_owned(),
        (Some("boolean"), Value::Bool(_)) => return Ok(()),
        (Some("boolean"), _) => "true or false".to_owned(),
        (Some("number"), _) => {
            let least = property["minimum"].as_f64().unwrap_or(f64::from(f32::MIN));
            let most = property["maximum"].as_f64().unwrap_or(f64::from(f32::MAX));
            if value.as_f64().is_some_and(|n| (least..=most).contains(&n)) {
                return Ok(());
            }
            format!("a number from {least:?} to {most:?}")
        }
        (Some("integer"), _) => {
            let least = property["minimum"].as_u64().unwrap_or(0);
            let most = property["maximum"].as_u64().unwrap_or(u64::MAX);
            if value.as_u64().is_some_and(|n| (least..=most).contains(&n)) {
                return Ok(());
            }
            format!("an integer from {least} to {most}")
        }
        _ => {
            let choices = property["enum"].as_array().map(Vec::as_slice).unwrap_or_default();
            if choices.contains(value) {
                return Ok(());
            }
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            format!("one of {}", choices.join(", "))
        }
    };
    Err(invalid(format!("the option `{name}` is {value}, and must be {wanted}")))
}

fn unknown(within: &str, name: &str, properties: &Value) -> PluginError {
    let known = || properties.as_object().into_iter().flat_map(Map::keys);
    let nearest = known()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.75);
    let help = match nearest {
        Some((_, known)) => format!("did you mean `{within}{known}`?"),
        None => format!("known options: {}", known().cloned().collect::<Vec<_>>().join(", ")),
    };
    invalid(format!("the gguf backend has no option `{within}{name}`")).help(help)
}

pub(super) fn invalid(message: String) -> PluginError {
    PluginError::new(codes::INVALID_OPTION, message)
}
