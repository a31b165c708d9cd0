//! What part of a model a tensor is, as far as the choice of its type cares (llama-quant.cpp).

/// Broad categories, the same in every family (`tensor_category`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Embeddings,
    Query,
    Value,
    Key,
    Joined,
    KeyValue,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Output,
    Other,
}

impl Category {
    /// `tensor_get_category`.
    pub fn of(name: &str) -> Self {
        const PARTS: [(&str, Category); 9] = [
            ("attn_qkv.weight", Category::Joined),
            ("attn_kv_b.weight", Category::KeyValue),
            ("attn_v.weight", Category::Value),
            ("attn_k.weight", Category::Key),
            ("attn_q.weight", Category::Query),
            ("attn_output.weight", Category::AttentionOutput),
            ("ffn_up", Category::Up),
            ("ffn_gate", Category::Gate),
            ("ffn_down", Category::Down),
        ];
        match name {
            "output.weight" => Self::Output,
            _ if is_embeddings(name) => Self::Embeddings,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |(_, c)| *c),
        }
    }

    /// Whether it holds values of the attention, which suffer most (`category_is_attn_v`).
    pub fn has_values(self) -> bool {
        matches!(self, Self::Value | Self::Joined | Self::KeyValue)
    }
}

/// `tensor_name_match_token_embd`.
pub(super) fn is_embeddings(name: &str) -> bool {
    name == "token_embd.weight" || name == PER_LAYER_EMBEDDINGS
}

/// A large table beside the embeddings.
pub(super) const PER_LAYER_EMBEDDINGS: &str = "per_layer_token_embd.weight";

/// Names that keep a tensor as it is, wherever they stand in its name (`tensor_allows_quantization`).
const KEPT: &[&str] = &[
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// The same for one family alone.
const KEPT_GLM5_NEXT: &[&str] = &[
    "hc_",
    "indexer.attn_q_b",
    "indexer.attn_k",
    "indexer.proj",
    "indexer_compressor_gate",
    "indexer_compressor_ape",
    "ssm_f_a.weight",
    "ssm_f_b.weight",
    "ssm_g_a.weight",
    "ssm_g_b.weight",
    "ssm_beta.weight",
    "attn_kv_a_mqa.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
];

/// Whether a tensor may be of another type than it is (`tensor_allows_quantization`). Dimensions are innermost first.
pub(super) fn may_change(family: &str, name: &str, dimensions: &[u64]) -> bool {
    // Dimensions of one element at the end are none (`ggml_n_dims`).
    let rank = dimensions.iter().rposition(|n| *n > 1).map_or(1, |last| last + 1);
    rank >= 2
        && name.ends_with("weight")
        && !KEPT.iter().any(|part| name.contains(part))
        && !["position_embd.weight", "token_types.weight"].contains(&name)
        && !(family == "glm5-next" && KEPT_GLM5_NEXT.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_their_names() {
        for (name, wanted) in [
            ("output.weight", Category::Output),
            ("token_embd.weight", Category::Embeddings),
            ("blk.3.attn_qkv.weight", Category::Joined),
            ("blk.3.attn_output.weight", Category::AttentionOutput),
            ("blk.3.ffn_gate_exps.weight", Category::Gate),
            ("blk.3.attn_q.weight", Category::Query),
            ("blk.3.something.weight", Category::Other),
        ] {
            assert_eq!(Category::of(name), wanted, "{name}");
        }
    }

    #[test]
    fn small_and_sensitive_tensors_stay() {
        for (name, dimensions, wanted) in [
            ("blk.0.attn_q.weight", &[64, 64][..], true),
            ("blk.0.attn_q.bias", &[64, 64], false),
            ("blk.0.attn_q.weight", &[64, 1], false),
            ("blk.0.attn_norm.weight", &[64, 64], false),
            ("blk.0.ffn_gate_inp.weight", &[64, 8], false),
            ("blk.0.ffn_gate_exps.weight", &[64, 8, 4], true),
            ("token_types.weight", &[64, 2], false),
        ] {
            assert_eq!(may_change("llama", name, dimensions), wanted, "{name} {dimensions:?}");
        }
    }
}
