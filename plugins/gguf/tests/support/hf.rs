//! Turns a small Hugging Face llama into GGUF, as far as the tests need it.

use std::collections::BTreeMap;
use std::path::Path;

use pajamas_llama_cpp::gguf::TensorType;
use serde_json::Value;

use super::{Shape, describe, write};

/// Converts a folder with config.json, tokenizer.json and model.safetensors (f32, tied embeddings).
pub fn convert(folder: &Path, to: &Path) {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    let tokenizer: Value = serde_json::from_slice(&read("tokenizer.json")).unwrap();
    let safetensors = read("model.safetensors");
    let n = |key: &str| config[key].as_u64().unwrap();
    let shape = Shape {
        vocab: n("vocab_size"),
        hidden: n("hidden_size"),
        ffn: n("intermediate_size"),
        layers: n("num_hidden_layers"),
        heads: n("num_attention_heads"),
        kv_heads: n("num_key_value_heads"),
        context: n("max_position_embeddings") as u32,
        eps: config["rms_norm_eps"].as_f64().unwrap() as f32,
    };
    let ids: BTreeMap<u64, String> = tokenizer["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(text, id)| (id.as_u64().unwrap(), text.clone()))
        .collect();
    assert_eq!(ids.len() as u64, shape.vocab);

    let header_len = u64::from_le_bytes(safetensors[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&safetensors[8..8 + header_len]).unwrap();
    let data = &safetensors[8 + header_len..];
    let source = |name: &str| -> &[u8] {
        // Tied embeddings may be stored under either name.
        let entry = match &header[name] {
            Value::Null if name == "model.embed_tokens.weight" => &header["lm_head.weight"],
            entry => entry,
        };
        assert_eq!(entry["dtype"], "F32", "{name}");
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        &data[at(0)..at(1)]
    };
    write(to, &describe(shape, ids.into_values().collect(), TensorType::F32), |tensor, out| {
        let bytes = source(&hf_name(&tensor.name));
        let heads = match () {
            () if tensor.name.contains("attn_q.") => shape.heads,
            () if tensor.name.contains("attn_k.") => shape.kv_heads,
            () => return out.write_all(bytes),
        };
        // Rotary pairs lie side by side in GGUF, half a head apart in the source.
        let row = shape.hidden as usize * 4;
        let half = (shape.hidden / shape.heads / 2) as usize;
        for head in 0..heads as usize {
            for i in 0..half {
                for j in 0..2 {
                    let from = (head * 2 * half + j * half + i) * row;
                    out.write_all(&bytes[from..from + row])?;
                }
            }
        }
        Ok(())
    });
}

fn hf_name(name: &str) -> String {
    let plain = match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        name => name.strip_prefix("blk.").unwrap(),
    };
    let (layer, part) = plain.split_once('.').unwrap();
    let part = match part.strip_suffix(".weight").unwrap() {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("{other}"),
    };
    format!("model.layers.{layer}.{part}.weight")
}
