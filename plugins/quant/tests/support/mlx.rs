//! The models of the parity tests as mlx_lm takes them: it is stricter than llama.cpp's converter about what
//! config.json says, and rounds to the type that is named there.

use std::fs;
use std::path::Path;

use pajamas_quant::source::{Dtype, Weights};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::families;
use super::{Model, weights::Tensor};

/// Models that `mlx_lm.convert` converts.
pub fn models() -> Vec<Model> {
    let mut models: Vec<Model> = families::all().into_iter().filter_map(adapted).collect();
    models.extend([experts_here_and_there(), output_of_its_own()]);
    models
}

fn adapted(mut model: Model) -> Option<Model> {
    let config = model.config.as_object_mut().unwrap();
    let mut set = |key: &str, value: Value| _ = config.insert(key.into(), value);
    match model.name {
        // mlx_lm has no class for it; and no name for embeddings that are called output.
        "bge-tiny-en-v1.5" | "llama-output-only" => return None,
        "llama-odd" => set("rms_norm_eps", json!(1e-6)),
        // Rounded: from 32 bits, from the other sort of sixteen, and to 32.
        "qwen2" => set("torch_dtype", json!("bfloat16")),
        "Mistral-120K-v0.1" => set("torch_dtype", json!("float16")),
        "tiny-Llama-3.2-70K-instruct-v2" => set("torch_dtype", json!("float32")),
        "qwen3" => set("torch_dtype", json!("auto")),
        "qwen3-moe" => {
            set("decoder_sparse_step", json!(1));
            set("mlp_only_layers", json!([]));
        }
        "gemma-2-150k-it" => model.tensors.retain(|t| t.name != "lm_head.weight"),
        "gemma3" => {
            set("vocab_size", json!(300));
            // Models of fewer layers than this are loaded, and not run.
            set("sliding_window_pattern", json!(2));
        }
        "gemma3-of-several-senses" => {
            set("vocab_size", json!(288));
            set("vision_config", json!({"hidden_size": 8}));
            set("_name_or_path", json!("somewhere"));
            config["text_config"]["dtype"] = json!("bfloat16");
            config["text_config"]["sliding_window_pattern"] = json!(2);
        }
        _ => {}
    }
    plain_bos(&mut model);
    Some(model)
}

/// transformers 5 wants a special token as a text.
pub fn plain_bos(model: &mut Model) {
    for (_, file) in model.files.iter_mut().filter(|f| f.0 == "tokenizer_config.json") {
        let mut config: Value = serde_json::from_slice(file).unwrap();
        if let Some(content) = config["bos_token"].get("content").cloned() {
            config["bos_token"] = content;
        }
        *file = super::pretty(&config);
    }
}

/// Experts in the second layer only.
fn experts_here_and_there() -> Model {
    let mut model = families::all().into_iter().find(|m| m.name == "qwen3-moe").unwrap();
    model.name = "qwen3-moe-here-and-there";
    let config = model.config.as_object_mut().unwrap();
    config.insert("decoder_sparse_step".into(), json!(2));
    config.insert("mlp_only_layers".into(), json!([]));
    config.insert("intermediate_size".into(), json!(128));
    model.tensors.retain(|t| !t.name.starts_with("model.layers.0.mlp."));
    for (name, shape) in [("gate_proj", [128, 64]), ("up_proj", [128, 64]), ("down_proj", [64, 128])] {
        model.tensors.push(Tensor::new(format!("model.layers.0.mlp.{name}.weight"), Dtype::BF16, &shape));
    }
    model
}

/// A gemma3 with an output beside the embeddings.
fn output_of_its_own() -> Model {
    let mut model = families::all().into_iter().find(|m| m.name == "gemma3").and_then(adapted).unwrap();
    model.name = "gemma3-output";
    model.tensors.push(Tensor::new("lm_head.weight", Dtype::BF16, &[300, 64]));
    model
}

/// A folder taken apart as `parts` of tests/peers/mlx_parity.py does it.
pub fn parts(folder: &Path) -> Value {
    let json =
        |name: &str| -> Value { serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap() };
    let index = json("model.safetensors.index.json");
    let weights = Weights::open(folder).unwrap();
    let mut tensors: Vec<(String, Value)> = weights
        .iter()
        .map(|t| {
            let row = json!([t.info.name, t.info.dtype.name(), t.info.shape, short_hash(t.bytes)]);
            (t.info.name.clone(), row)
        })
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    json!({
        "config": json("config.json"), "metadata": index["metadata"], "weight_map": index["weight_map"],
        "tensors": tensors.into_iter().map(|t| t.1).collect::<Vec<_>>()
    })
}

/// Enough of a hash to tell a difference.
pub fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}
