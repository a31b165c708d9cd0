//! `config.json` of the folder: the source's own, with what mlx_lm adds, leaves out and asks for.

use pajamas_plugin_api::{PluginError, Result};
use serde_json::{Map, Value, json};

use super::affine::Affine;
use super::layout::Role;
use super::numbers::Float;
use super::plan::Tensor;
use super::recipe::Recipe;
use super::sizes::Sizes;
use crate::architecture::Architecture;
use crate::error::{self, codes};
use crate::source::Source;

/// The vocabulary that mlx_lm takes for a model of several senses which does not name one.
const GEMMA3_VOCABULARY: u64 = 262_208;

/// What is written, and what a person should know about it.
pub(super) struct Described {
    pub config: Map<String, Value>,
    pub notes: Vec<String>,
}

/// Refuses what mlx_lm has no class for, and what was quantized already.
///
/// # Errors
/// `architecture-unsupported`, `model-config-invalid`, `tensor-dtype-unsupported`.
pub(super) fn check(source: &Source, architecture: Architecture) -> Result<()> {
    let given = source.config.given();
    let kinds: &[&str] = match architecture {
        Architecture::Llama => &["llama"],
        Architecture::Mistral => &["mistral"],
        Architecture::Mixtral => &["mixtral"],
        Architecture::Qwen2 => &["qwen2"],
        Architecture::Qwen3 => &["qwen3"],
        Architecture::Qwen3Moe => &["qwen3_moe"],
        Architecture::Gemma2 => &["gemma2"],
        Architecture::Gemma3 => &["gemma3_text", "gemma3"],
        Architecture::Phi3 => &["phi3"],
        Architecture::GptOss => &["gpt_oss"],
        Architecture::Bert => {
            let what = "mlx_lm runs models that write text, and a BERT model does not";
            return Err(PluginError::new(codes::ARCHITECTURE_UNSUPPORTED, what).help("convert it to GGUF"));
        }
    };
    let kind = given.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if !kinds.contains(&kind) {
        let what = format!(
            "`model_type`, by which mlx_lm takes a class, is `{}`, not `{}`",
            kind.escape_debug(),
            kinds.join("` or `")
        );
        return Err(error::config(what));
    }
    let quantized = ["quantization", "quantization_config"].iter().find_map(|k| source.config.get(k));
    let method = quantized.map(|q| q.get("quant_method").and_then(Value::as_str).unwrap_or("unknown"));
    match method {
        None => Ok(()),
        Some("mxfp4") if architecture == Architecture::GptOss => Ok(()),
        Some(method) => {
            let what = format!("the model is quantized already, with the method `{}`", method.escape_debug());
            Err(PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what)
                .help("take the model in F32, F16 or BF16"))
        }
    }
}

/// The type that `config.json` asks for.
pub(super) fn dtype(source: &Source) -> Option<Float> {
    let given = source.config.given();
    let outer = given.get("torch_dtype").filter(|v| !v.is_null());
    let asked = outer.or_else(|| given.get("text_config").and_then(|t| t.get("dtype")));
    asked.and_then(Value::as_str).and_then(Float::from_name)
}

/// Makes it.
pub(super) fn describe(
    source: &Source,
    architecture: Architecture,
    sizes: &Sizes,
    recipe: &Recipe,
    tensors: &[Tensor<'_>],
) -> Result<Described> {
    let mut config = source.config.given().clone();
    let mut notes = Vec::new();
    config.remove("_name_or_path");
    config.remove("vision_config");
    end_of_text(source, &mut config)?;
    required(source, architecture, &mut config, &mut notes);
    if architecture != Architecture::Gemma2 && architecture != Architecture::Gemma3 {
        ties(architecture, sizes, &mut config, &mut notes);
    }
    if sizes.several_senses {
        inner(sizes, &mut config);
    }
    if let Some(quantization) = quantization(architecture, recipe, tensors) {
        config.insert("quantization".into(), quantization.clone());
        config.insert("quantization_config".into(), quantization);
    }
    config.sort_keys();
    Ok(Described { config, notes })
}

/// The tokens that end a text: those that generation is configured with win.
fn end_of_text(source: &Source, config: &mut Map<String, Value>) -> Result<()> {
    let generation = source.json("generation_config.json", codes::CONFIG_INVALID)?;
    let tokens = generation.and_then(|g| g.get("eos_token_id").cloned());
    let counts = |v: &Value| !v.is_null() && v != &json!(0) && v != &json!([]) && v != &json!(false);
    if let Some(tokens) = tokens.filter(counts) {
        config.insert("eos_token_id".into(), tokens);
    }
    Ok(())
}

/// Values that mlx_lm's classes ask for and transformers' classes have defaults for.
fn required(
    source: &Source,
    architecture: Architecture,
    config: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) {
    let more: &[(&str, Value)] = match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Phi3 => &[("rms_norm_eps", Value::Null)],
        Architecture::Qwen2 => &[("num_key_value_heads", Value::Null), ("rms_norm_eps", Value::Null)],
        Architecture::Qwen3 => &[
            ("rms_norm_eps", Value::Null),
            ("num_key_value_heads", Value::Null),
            ("max_position_embeddings", Value::Null),
            ("head_dim", Value::Null),
        ],
        Architecture::Qwen3Moe => &[
            ("rms_norm_eps", Value::Null),
            ("num_key_value_heads", Value::Null),
            ("max_position_embeddings", Value::Null),
            ("head_dim", Value::Null),
            ("rope_theta", Value::Null),
            ("num_experts", Value::Null),
            ("num_experts_per_tok", Value::Null),
            ("moe_intermediate_size", Value::Null),
            ("decoder_sparse_step", json!(1)),
            ("mlp_only_layers", json!([])),
            ("norm_topk_prob", json!(false)),
        ],
        Architecture::Gemma2 => {
            &[("rms_norm_eps", Value::Null), ("num_key_value_heads", Value::Null), ("head_dim", Value::Null)]
        }
        _ => &[],
    };
    let mut add = |key: &str, default: &Value| {
        if config.get(key).is_some_and(|v| !v.is_null()) {
            return;
        }
        if let Some(value) = source.config.get(key).or_else(|| Some(default).filter(|d| !d.is_null())) {
            notes.push(format!("config.json lacks `{key}`, which mlx_lm asks for: {value} is added"));
            config.insert(key.to_owned(), value.clone());
        }
    };
    more.iter().for_each(|(key, default)| add(key, default));
}

/// Says whether the output is the embeddings, where mlx_lm would take it otherwise than the tensors are.
fn ties(architecture: Architecture, sizes: &Sizes, config: &mut Map<String, Value>, notes: &mut Vec<String>) {
    const KEY: &str = "tie_word_embeddings";
    let usual = match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => Some(true),
        Architecture::Mixtral | Architecture::Phi3 => Some(false),
        // Asked for.
        Architecture::Qwen3 | Architecture::Qwen3Moe => None,
        _ => return,
    };
    if config.get(KEY).and_then(Value::as_bool).or(usual) != Some(sizes.tied) {
        notes.push(format!("config.json is given `{KEY}`: {}, which is what the tensors say", sizes.tied));
        config.insert(KEY.into(), sizes.tied.into());
    }
}

/// mlx_lm takes the vocabulary of the inner model from the outer one, and writes down what it filled in.
fn inner(sizes: &Sizes, config: &mut Map<String, Value>) {
    let outer = config.get("vocab_size").and_then(Value::as_u64).unwrap_or(GEMMA3_VOCABULARY);
    if outer != sizes.vocabulary {
        config.insert("vocab_size".into(), sizes.vocabulary.into());
    }
    if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        text.insert("vocab_size".into(), sizes.vocabulary.into());
        text.entry("num_attention_heads").or_insert(sizes.heads.into());
        text.entry("num_key_value_heads").or_insert(sizes.key_heads.into());
    }
}

/// What is quantized, and how: one rule for all, and one for each tensor that differs.
fn quantization(architecture: Architecture, recipe: &Recipe, tensors: &[Tensor<'_>]) -> Option<Value> {
    let all = |a: Affine| json!({"group_size": a.group, "bits": a.bits, "mode": "affine"});
    let packed = architecture == Architecture::GptOss;
    // Experts that came quantized are the rule of their models, and every other matrix differs.
    let mut rules = match (packed, recipe.body()) {
        (true, _) => json!({"group_size": 32, "bits": 4, "mode": "mxfp4"}),
        (false, Some(body)) => all(body),
        (false, None) => return None,
    };
    for tensor in tensors {
        let (Some(affine), Some(path)) = (tensor.affine(), tensor.name.strip_suffix(".weight")) else {
            continue;
        };
        let rule = match tensor.role {
            Role::Router => json!({"group_size": affine.group, "bits": affine.bits}),
            _ if packed || Some(affine) != recipe.body() => all(affine),
            _ => continue,
        };
        rules[path] = rule;
    }
    Some(rules)
}
