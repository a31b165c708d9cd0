//! What tensors are called: by Hugging Face, and in a GGUF file.
//!
//! The names are those of `gguf-py`'s tensor map (llama.cpp, MIT licence), restricted as there to the tensors that
//! each family has.

use crate::architecture::Architecture;

/// A tensor's place in a model: outside of the layers, or inside of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The layer, if it lies in one.
    pub layer: Option<u32>,
    /// The rest of the name, without `.weight` or `.bias`.
    pub rest: &'a str,
    /// `.weight` or `.bias`.
    pub suffix: &'a str,
}

/// Splits Hugging Face's name of a tensor.
pub(super) fn place(name: &str) -> Option<Place<'_>> {
    let (stem, suffix) = match name.strip_suffix(".bias") {
        Some(stem) => (stem, ".bias"),
        None => (name.strip_suffix(".weight")?, ".weight"),
    };
    for prefix in ["model.layers.", "encoder.layer."] {
        if let Some(inside) = stem.strip_prefix(prefix) {
            let (layer, rest) = inside.split_once('.')?;
            return Some(Place { layer: Some(layer.parse().ok()?), rest, suffix });
        }
    }
    Some(Place { layer: None, rest: stem, suffix })
}

/// The name of a tensor in a GGUF file; `None` for one that the family does not have.
pub(super) fn gguf(architecture: Architecture, name: &str) -> Option<String> {
    let place = place(name)?;
    let stem = match place.layer {
        None => outer(architecture, place.rest)?.to_owned(),
        Some(layer) => format!("blk.{layer}.{}", inner(architecture, place.rest)?),
    };
    Some(stem + place.suffix)
}

fn outer(architecture: Architecture, rest: &str) -> Option<&'static str> {
    use Architecture::{Bert, Gemma2};
    Some(match (architecture, rest) {
        (Bert, "embeddings.word_embeddings") => "token_embd",
        (Bert, "embeddings.position_embeddings") => "position_embd",
        (Bert, "embeddings.token_type_embeddings") => "token_types",
        (Bert, "embeddings.LayerNorm") => "token_embd_norm",
        (Bert, _) => return None,
        (_, "model.embed_tokens") => "token_embd",
        (_, "model.norm") => "output_norm",
        (Gemma2, "lm_head") => return None,
        (_, "lm_head") => "output",
        _ => return None,
    })
}

fn inner(architecture: Architecture, rest: &str) -> Option<&'static str> {
    use Architecture::{Bert, Gemma2, Gemma3, GptOss, Llama, Mistral, Mixtral, Phi3, Qwen3, Qwen3Moe};
    if architecture == Bert {
        return Some(match rest {
            "attention.self.query" => "attn_q",
            "attention.self.key" => "attn_k",
            "attention.self.value" => "attn_v",
            "attention.output.dense" => "attn_output",
            "attention.output.LayerNorm" => "attn_output_norm",
            "intermediate.dense" => "ffn_up",
            "output.dense" => "ffn_down",
            "output.LayerNorm" => "layer_output_norm",
            _ => return None,
        });
    }
    let gated = !matches!(architecture, Mixtral | Qwen3Moe | GptOss);
    Some(match (architecture, rest) {
        (_, "input_layernorm") => "attn_norm",
        (Phi3, "self_attn.qkv_proj") => "attn_qkv",
        (_, "self_attn.q_proj") => "attn_q",
        (_, "self_attn.k_proj") => "attn_k",
        (_, "self_attn.v_proj") => "attn_v",
        (_, "self_attn.o_proj") => "attn_output",
        (Qwen3 | Qwen3Moe | Gemma3, "self_attn.q_norm") => "attn_q_norm",
        (Qwen3 | Qwen3Moe | Gemma3, "self_attn.k_norm") => "attn_k_norm",
        (GptOss, "self_attn.sinks") => "attn_sinks",
        (Gemma2 | Gemma3 | GptOss, "post_attention_layernorm") => "post_attention_norm",
        (_, "post_attention_layernorm") => "ffn_norm",
        (Gemma2 | Gemma3, "pre_feedforward_layernorm") => "ffn_norm",
        (Gemma2 | Gemma3, "post_feedforward_layernorm") => "post_ffw_norm",
        (Phi3, "mlp.gate_up_proj") => "ffn_up",
        (Phi3, "mlp.gate_proj" | "mlp.up_proj") => return None,
        (_, "mlp.gate_proj") if gated => "ffn_gate",
        (_, "mlp.up_proj") if gated => "ffn_up",
        (_, "mlp.down_proj") if gated => "ffn_down",
        (Mixtral, "block_sparse_moe.gate") => "ffn_gate_inp",
        (Qwen3Moe, "mlp.gate") | (GptOss, "mlp.router") => "ffn_gate_inp",
        (GptOss | Qwen3Moe, "mlp.experts.gate_proj") | (Mixtral, "block_sparse_moe.experts.w1") => {
            "ffn_gate_exps"
        }
        (GptOss | Qwen3Moe, "mlp.experts.down_proj") | (Mixtral, "block_sparse_moe.experts.w2") => {
            "ffn_down_exps"
        }
        (GptOss | Qwen3Moe, "mlp.experts.up_proj") | (Mixtral, "block_sparse_moe.experts.w3") => {
            "ffn_up_exps"
        }
        // Dense models of the llama kind with experts in some layers only share its names.
        (Llama | Mistral, "block_sparse_moe.gate") => "ffn_gate_inp",
        _ => return None,
    })
}

/// Tensors that belong to other senses than reading, which a text model leaves out as llama.cpp's converter does.
pub(super) fn of_another_sense(name: &str) -> bool {
    const STARTS: [&str; 4] = ["vit.", "vpm.", "merger.", "resampler."];
    const PARTS: [&str; 7] =
        ["visual.", "vision.", "audio.", "vision_", "audio_", "projector.", "patch_embed"];
    STARTS.iter().any(|s| name.starts_with(s)) || PARTS.iter().any(|p| name.contains(p))
}

/// What is computed from the configuration and not trained.
pub(super) fn is_buffer(name: &str) -> bool {
    [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"]
        .iter()
        .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_family() {
        use Architecture::{Gemma2, GptOss, Llama, Phi3, Qwen3};
        for (architecture, name, wanted) in [
            (Llama, "model.layers.11.self_attn.q_proj.weight", Some("blk.11.attn_q.weight")),
            (Llama, "model.layers.0.post_attention_layernorm.weight", Some("blk.0.ffn_norm.weight")),
            (
                Gemma2,
                "model.layers.0.post_attention_layernorm.weight",
                Some("blk.0.post_attention_norm.weight"),
            ),
            (Qwen3, "model.layers.3.self_attn.k_norm.weight", Some("blk.3.attn_k_norm.weight")),
            (Llama, "model.layers.3.self_attn.k_norm.weight", None),
            (Phi3, "model.layers.3.mlp.gate_up_proj.weight", Some("blk.3.ffn_up.weight")),
            (GptOss, "model.layers.3.mlp.up_proj.weight", None),
            (Llama, "lm_head.weight", Some("output.weight")),
            (Gemma2, "lm_head.weight", None),
            (Llama, "model.layers.x.self_attn.q_proj.weight", None),
            (Llama, "model.layers.0.weight", None),
            (Llama, "nonsense", None),
        ] {
            assert_eq!(gguf(architecture, name).as_deref(), wanted, "{name}");
        }
    }
}
