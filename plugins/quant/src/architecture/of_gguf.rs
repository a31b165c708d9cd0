//! What is known of a model in a GGUF file, read off its metadata and counted from its tensors.

use pajamas_llama_cpp::gguf::{Array, Header, Value};
use pajamas_plugin_api::{PluginError, Result, codes};

use super::facts::{self, Attention, Experts, Facts, Family};
use super::{Parameters, ROWS};

impl Facts {
    /// Reads them off the header of a file.
    ///
    /// # Errors
    /// `model-invalid` when it lacks what every model has.
    pub fn of_gguf(header: &Header) -> Result<Self> {
        let family = header.architecture().unwrap_or_default();
        let required = |key: &str| {
            number(header, key).filter(|n| *n > 0).ok_or_else(|| {
                let what = format!("the metadata entry `{family}.{key}` is missing");
                PluginError::new(codes::MODEL_INVALID, what).help("fetch or convert the file again")
            })
        };
        let (layers, heads) = (required("block_count")?, required("attention.head_count")?);
        let hidden_size = required("embedding_length")?;
        let key_value_heads = number(header, "attention.head_count_kv").unwrap_or(heads).max(1);
        let experts = number(header, "expert_count").filter(|n| *n > 0).map(|count| Experts {
            count,
            active: number(header, "expert_used_count").unwrap_or(count),
            shared: number(header, "expert_shared_count").unwrap_or(0),
        });
        let window = number(header, "attention.sliding_window").filter(|n| *n > 0);
        let windowed_layers = if window.is_some() { windowed(header, family, layers) } else { 0 };
        let encoder = header.value(&format!("{family}.attention.causal")) == Some(&Value::Bool(false));
        let parameters = count(header, experts);
        let scaling = header.value(&format!("{family}.rope.scaling.type")).and_then(Value::as_text);
        let has_rope = !encoder || header.value(&format!("{family}.rope.freq_base")).is_some();
        let rope_base = match header.value(&format!("{family}.rope.freq_base")) {
            // As it was written down: the shortest number that is the same in 32 bits.
            Some(Value::F32(base)) => base.to_string().parse().ok(),
            _ => None,
        };
        // Files share names between families; the first that has the name stands for all.
        let name = ROWS.iter().find(|row| row.gguf == family).map_or(family, |row| row.name);
        Ok(Self {
            architecture: name.to_owned().into(),
            family: Family::of(encoder, experts.is_some(), windowed_layers, layers),
            attention: Attention {
                kind: Attention::kind(heads, key_value_heads),
                heads,
                key_value_heads,
                ratio: heads / key_value_heads,
                head_size: number(header, "attention.key_length").unwrap_or(hidden_size / heads),
                window,
                windowed_layers,
            },
            experts,
            layers,
            hidden_size,
            context: required("context_length")?,
            vocabulary: vocabulary(header),
            positions: match (has_rope, scaling) {
                (false, _) => "absolute".into(),
                (true, Some(scaling)) if scaling != "none" => format!("rope-{scaling}"),
                (true, _) => "rope".into(),
            },
            rope_base,
            tied_embeddings: !header.tensors.iter().any(|t| t.name == "output.weight"),
            tokenizer: match header.value("tokenizer.ggml.model").and_then(Value::as_text) {
                Some("gpt2") => "bpe",
                Some("llama") => "sentencepiece",
                Some("bert") => "wordpiece",
                _ => "none",
            },
            bytes: facts::sizes(&parameters),
            parameters,
        })
    }
}

/// A number among the family's entries, or the largest of a list with one for each layer.
fn number(header: &Header, key: &str) -> Option<u32> {
    let number = match header.value(&format!("{}.{key}", header.architecture()?))? {
        Value::Array(Array { items, .. }) => items.iter().filter_map(Value::as_u64).max(),
        value => value.as_u64(),
    };
    number.and_then(|n| u32::try_from(n).ok())
}

fn vocabulary(header: &Header) -> u32 {
    match header.value("tokenizer.ggml.tokens") {
        Some(Value::Array(Array { len, .. })) => u32::try_from(*len).unwrap_or(u32::MAX),
        _ => number(header, "vocab_size").unwrap_or(0),
    }
}

/// How many layers look no further than the window: llama.cpp knows it of each family (`set_swa_pattern`).
fn windowed(header: &Header, family: &str, layers: u32) -> u32 {
    if let Some(Value::Array(list)) = header.value(&format!("{family}.attention.sliding_window_pattern")) {
        return list.items.iter().filter(|v| **v == Value::Bool(true)).count() as u32;
    }
    match family {
        "gemma2" | "gpt-oss" => layers.div_ceil(2),
        "gemma3" => layers - layers / number(header, "attention.sliding_window_pattern").unwrap_or(6).max(1),
        _ => layers,
    }
}

fn count(header: &Header, experts: Option<Experts>) -> Parameters {
    let mut counted = Parameters::default();
    let mut of_experts = 0;
    for tensor in &header.tensors {
        // Factors of rotations are computed, not trained.
        if tensor.name.starts_with("rope_f") {
            continue;
        }
        let elements = tensor.elements();
        counted.total += elements;
        let embeddings = ["token_embd.weight", "output.weight", "position_embd.weight", "token_types.weight"];
        if !embeddings.contains(&tensor.name.as_str()) {
            counted.non_embedding += elements;
        }
        if tensor.dimensions.len() > 1 {
            counted.matrices += elements;
        }
        if tensor.name.contains("_exps.") {
            of_experts += elements;
        }
    }
    counted.active = match experts {
        None => counted.total,
        Some(e) => counted.total - of_experts + of_experts / u64::from(e.count) * u64::from(e.active),
    };
    counted
}
