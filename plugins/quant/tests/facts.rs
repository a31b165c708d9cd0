//! What is known of a model is read off its configuration and counted from its tensors.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::path::Path;

use pajamas_quant::architecture::{Experts, Facts, Family};
use pajamas_quant::source::{Dtype, Source};
use support::families;

fn facts(name: &str) -> Facts {
    let parent = tempfile::tempdir().unwrap();
    let model = families::all().into_iter().find(|m| m.name == name).unwrap();
    Facts::of(&Source::open(&model.write(parent.path())).unwrap()).unwrap()
}

#[test]
fn every_family_is_recognised() {
    for (name, architecture, family, attention, positions, tokenizer) in [
        ("llama", "llama", Family::Dense, "gqa", "rope", "bpe"),
        ("llama-odd", "llama", Family::Dense, "mqa", "rope-linear", "bpe"),
        ("tiny-Llama-3.2-70K-instruct-v2", "llama", Family::Dense, "mqa", "rope-llama3", "bpe"),
        ("Mistral-120K-v0.1", "mistral", Family::Dense, "gqa", "rope", "sentencepiece"),
        ("mixtral", "mixtral", Family::MixtureOfExperts, "gqa", "rope", "sentencepiece"),
        ("qwen2", "qwen2", Family::Dense, "gqa", "rope", "bpe"),
        ("qwen3", "qwen3", Family::Dense, "gqa", "rope-yarn", "bpe"),
        ("qwen3-moe", "qwen3-moe", Family::MixtureOfExperts, "gqa", "rope", "bpe"),
        ("gemma-2-150k-it", "gemma2", Family::HybridLocalGlobal, "gqa", "rope", "sentencepiece"),
        ("gemma3", "gemma3", Family::HybridLocalGlobal, "gqa", "rope", "sentencepiece"),
        ("Phi-3-mini-4k-instruct", "phi3", Family::Dense, "gqa", "rope", "sentencepiece"),
        ("phi3-long", "phi3", Family::Dense, "gqa", "rope-longrope", "sentencepiece"),
        ("gpt-oss", "gpt-oss", Family::SparseMixtureAlternating, "gqa", "rope-yarn", "bpe"),
        ("bge-tiny-en-v1.5", "bert", Family::Encoder, "mha", "absolute", "wordpiece"),
    ] {
        let facts = facts(name);
        let found = (
            &*facts.architecture,
            facts.family,
            facts.attention.kind,
            facts.positions.as_str(),
            facts.tokenizer,
        );
        assert_eq!(found, (architecture, family, attention, positions, tokenizer), "{name}");
        assert_eq!(
            (facts.layers, facts.hidden_size),
            (2, if name == "llama-odd" { 80 } else { 64 }),
            "{name}"
        );
    }
}

#[test]
fn windows_and_experts_are_counted() {
    let gemma = facts("gemma3");
    assert_eq!((gemma.attention.window, gemma.attention.windowed_layers), (Some(128), 1));
    let mistral = facts("Mistral-120K-v0.1");
    assert_eq!((mistral.attention.window, mistral.attention.windowed_layers), (Some(512), 2));
    assert_eq!(facts("llama").attention.window, None);
    assert_eq!(facts("qwen3-moe").experts, Some(Experts { count: 11, active: 2, shared: 0 }));
    assert!(facts("qwen2").tied_embeddings && !facts("llama").tied_embeddings);
    assert!(facts("llama-output-only").tied_embeddings);
}

#[test]
fn parameters_are_counted_from_tensors() {
    for model in families::all() {
        let counted = facts(model.name).parameters;
        let elements = |wanted: &dyn Fn(&str) -> bool| -> u64 {
            let tensors = model.tensors.iter().filter(|t| wanted(&t.name) && !t.name.ends_with("_scales"));
            tensors.map(|t| t.shape.iter().product::<u64>() * if t.dtype == Dtype::U8 { 2 } else { 1 }).sum()
        };
        assert_eq!(counted.total, elements(&|_| true), "{}", model.name);
        let embedding = |n: &str| {
            let ends = ["embed_tokens.weight", "lm_head.weight", "_embeddings.weight"];
            ends.iter().any(|end| n.ends_with(end))
        };
        assert_eq!(counted.non_embedding, elements(&|n| !embedding(n)), "{}", model.name);
    }
    // Two of eleven experts of three matrices, in two layers.
    let (moe, matrix) = (facts("qwen3-moe").parameters, 64 * 32);
    assert_eq!(moe.total - moe.active, 2 * 9 * 3 * matrix);
    let llama = facts("llama");
    assert_eq!(llama.parameters.active, llama.parameters.total);
    assert_eq!(llama.bytes["F32"], llama.parameters.total * 4);
    assert!(llama.bytes["Q4_K"] < llama.bytes["Q8_0"] && llama.bytes["Q8_0"] < llama.bytes["F16"]);
}

#[test]
fn the_chat_model_is_what_its_readme_says() {
    let source = Source::open(&support::repository().join("models/chat/hf")).unwrap();
    let facts = Facts::of(&source).unwrap();
    assert_eq!((facts.layers, facts.vocabulary, facts.context), (3, 1280, 1024));
    assert_eq!((facts.attention.kind, facts.attention.ratio, facts.tied_embeddings), ("gqa", 2, true));
    assert!(Source::open(Path::new("models/chat/nothing")).is_err());
}
