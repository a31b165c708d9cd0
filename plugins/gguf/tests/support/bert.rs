//! A tiny encoder with made-up weights.

use std::path::Path;

use pajamas_llama_cpp::gguf::{TensorType, Writer};

use super::write;

const HIDDEN: u64 = 32;
const VOCAB: u64 = 40;
const CONTEXT: u64 = 24;

/// Writes a one-layer BERT whose own pooling is that of the first token.
pub fn write_bert(path: &Path) {
    write_encoder(path, false);
}

/// Writes the same one with a classification head, which adds up what the first token became.
pub fn write_ranker(path: &Path) {
    write_encoder(path, true);
}

fn write_encoder(path: &Path, ranks: bool) {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let tokens: Vec<String> = special
        .into_iter()
        .chain(
            (5..VOCAB)
                .map(|i| format!("▁{}", (b'a' + (i % 26) as u8) as char) + &"x".repeat(i as usize / 26)),
        )
        .collect();
    let mut w = Writer::new("bert");
    w.set("bert.context_length", CONTEXT as u32)
        .set("bert.embedding_length", HIDDEN as u32)
        .set("bert.block_count", 1u32)
        .set("bert.feed_forward_length", 64u32)
        .set("bert.attention.head_count", 2u32)
        .set("bert.attention.layer_norm_epsilon", 1e-5f32)
        .set("bert.attention.causal", false)
        .set("bert.pooling_type", if ranks { 4u32 } else { 2 })
        .set("tokenizer.ggml.model", "bert")
        .set("tokenizer.ggml.token_type_count", 2u32)
        .set("tokenizer.ggml.token_type", (0..VOCAB).map(|i| if i < 5 { 3 } else { 1 }).collect::<Vec<i32>>())
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.unknown_token_id", 1u32)
        .set("tokenizer.ggml.bos_token_id", 2u32)
        .set("tokenizer.ggml.cls_token_id", 2u32)
        .set("tokenizer.ggml.seperator_token_id", 3u32)
        .set("tokenizer.ggml.padding_token_id", 0u32);
    let mut add = |name: &str, dimensions: &[u64]| _ = w.tensor(name, TensorType::F32, dimensions);
    add("token_embd.weight", &[HIDDEN, VOCAB]);
    add("token_types.weight", &[HIDDEN, 2]);
    add("position_embd.weight", &[HIDDEN, CONTEXT]);
    for norm in ["token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"] {
        add(&format!("{norm}.weight"), &[HIDDEN]);
        add(&format!("{norm}.bias"), &[HIDDEN]);
    }
    for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
        add(&format!("blk.0.{part}.weight"), &[HIDDEN, HIDDEN]);
        add(&format!("blk.0.{part}.bias"), &[HIDDEN]);
    }
    add("blk.0.ffn_up.weight", &[HIDDEN, 64]);
    add("blk.0.ffn_up.bias", &[64]);
    add("blk.0.ffn_down.weight", &[64, HIDDEN]);
    add("blk.0.ffn_down.bias", &[HIDDEN]);
    if ranks {
        add("cls.output.weight", &[HIDDEN, 1]);
    }
    let mut state = 7u32;
    write(path, &w, |tensor, out| {
        if tensor.name.starts_with("cls") {
            return (0..tensor.elements()).try_for_each(|_| out.write_all(&1f32.to_le_bytes()));
        }
        (0..tensor.elements()).try_for_each(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            out.write_all(&(state as f32 / u32::MAX as f32 - 0.5).to_le_bytes())
        })
    });
}
