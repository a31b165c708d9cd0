//! LoRA adapters against a model into which the same change was merged.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::io::Write;
use std::path::Path;

use pajamas_llama_cpp::gguf::{TensorType, Writer};
use pajamas_plugin_api::{Backend, Memory, codes};
use serde_json::{Value, json};
use support::{TINY, backend, describe, greedy, load, request, run, try_load, vocabulary, write};

const CHANGED: &str = "blk.0.attn_q.weight";
const RANK: u64 = 4;
const ALPHA: f32 = 8.0;

/// Made-up numbers, another row of them for each tensor.
fn values(name: &str, count: u64, most: f32) -> Vec<f32> {
    let mut state = name.bytes().fold(7u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(b)));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state as f32 / u32::MAX as f32 - 0.5) * most
    };
    (0..count).map(|_| if name.contains("norm") { 1.0 } else { next() }).collect()
}

fn put(out: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
}

/// Writes the model, changed by the adapter at this scale.
fn write_model(path: &Path, scale: f32) {
    let hidden = TINY.hidden as usize;
    let (a, b) = (values("a", TINY.hidden * RANK, 0.4), values("b", TINY.hidden * RANK, 0.4));
    write(path, &describe(TINY, vocabulary(TINY.vocab), TensorType::F32), |tensor, out| {
        let mut weights = values(&tensor.name, tensor.elements(), 0.5);
        if tensor.name == CHANGED {
            for row in 0..hidden {
                for column in 0..hidden {
                    let change: f32 =
                        (0..RANK as usize).map(|r| b[row * RANK as usize + r] * a[r * hidden + column]).sum();
                    weights[row * hidden + column] += scale * ALPHA / RANK as f32 * change;
                }
            }
        }
        put(out, &weights)
    });
}

fn write_adapter(path: &Path, change: impl FnOnce(&mut Writer)) {
    let mut writer = Writer::new("llama");
    writer.set("general.type", "adapter").set("adapter.type", "lora").set("adapter.lora.alpha", ALPHA);
    writer.tensor(&format!("{CHANGED}.lora_a"), TensorType::F32, &[TINY.hidden, RANK]);
    writer.tensor(&format!("{CHANGED}.lora_b"), TensorType::F32, &[RANK, TINY.hidden]);
    change(&mut writer);
    write(path, &writer, |tensor, out| {
        put(out, &values(&tensor.name[tensor.name.len() - 1..], tensor.elements(), 0.4))
    });
}

/// Log-probabilities of all tokens after a prompt.
fn logprobs(path: &Path, options: Value) -> Vec<f64> {
    let mut request = greedy(&[1, 300, 301, 302], 1);
    request.logprobs = Some(TINY.vocab as u32);
    let (got, _) = run(&*load(path, options), &request);
    let extras: Value = serde_json::from_str(&got.extras[0]).unwrap();
    let mut all: Vec<(u64, f64)> = extras["top_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["id"].as_u64().unwrap(), t["logprob"].as_f64().unwrap()))
        .collect();
    all.sort_by_key(|(id, _)| *id);
    all.into_iter().map(|(_, logprob)| logprob).collect()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn an_adapter_is_what_merging_it_gives() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("base.gguf"), 0.0);
    write_model(&path("merged.gguf"), 0.5);
    write_adapter(&path("lora.gguf"), |_| {});
    let plain = logprobs(&path("base.gguf"), json!({}));
    let merged = logprobs(&path("merged.gguf"), json!({}));
    let adapted =
        logprobs(&path("base.gguf"), json!({ "adapters": [{ "path": "lora.gguf", "scale": 0.5 }] }));
    assert!(difference(&plain, &merged) > 0.02, "the change is none: {}", difference(&plain, &merged));
    assert!(difference(&adapted, &merged) < 1e-3, "differs by {}", difference(&adapted, &merged));
    let none = logprobs(&path("base.gguf"), json!({ "adapters": [{ "path": "lora.gguf", "scale": 0 }] }));
    assert_eq!(none, plain);
    // Twice the half is the whole.
    write_model(&path("whole.gguf"), 1.0);
    let half = json!({ "path": "lora.gguf", "scale": 0.5 });
    let twice = logprobs(&path("base.gguf"), json!({ "adapters": [half, half] }));
    let whole = logprobs(&path("whole.gguf"), json!({}));
    assert!(difference(&twice, &whole) < 1e-3, "differs by {}", difference(&twice, &whole));
    let weights = |options: Value| -> u64 {
        let memory = backend().estimate(&request(&path("base.gguf"), options)).unwrap();
        memory.iter().map(|m: &Memory| m.weights).sum()
    };
    let added = 2 * TINY.hidden * RANK * 4;
    assert_eq!(weights(json!({ "adapters": [half] })), weights(json!({})) + added);
    let used: u64 =
        load(&path("base.gguf"), json!({ "adapters": [half] })).usage().iter().map(|m| m.weights).sum();
    assert_eq!(used, weights(json!({})) + added);
    // An absolute path is what it is; answers follow the adapter as they follow the merged weights.
    let answer =
        |name: &str, options: Value| run(&*load(&path(name), options), &greedy(&[1, 300, 310], 20)).0.ids;
    let absolute = json!({ "adapters": [{ "path": path("lora.gguf"), "scale": 0.5 }] });
    assert_eq!(answer("base.gguf", absolute), answer("merged.gguf", json!({})));
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("base.gguf"), 0.0);
    let refuse = |name: &str, code: &str, why: &str| {
        let options = json!({ "adapters": [{ "path": name }] });
        let error = try_load(&path("base.gguf"), options.clone()).err().unwrap();
        assert!(error.message.contains(name) && error.message.contains(why), "{error}");
        assert_eq!(error.code, code);
        assert_eq!(backend().estimate(&request(&path("base.gguf"), options)).unwrap_err().code, code);
    };
    let invalid = |name: &str, why: &str, change: &dyn Fn(&mut Writer)| {
        write_adapter(&path(name), change);
        refuse(name, codes::MODEL_INVALID, why);
    };
    refuse("missing.gguf", codes::MODEL_NOT_FOUND, "");
    refuse("base.gguf", codes::MODEL_INVALID, "no LoRA adapter");
    std::fs::write(path("text.gguf"), b"no model").unwrap();
    refuse("text.gguf", codes::MODEL_INVALID, "");
    invalid("typed.gguf", "alpha", &|w| _ = w.set("adapter.lora.alpha", 8u32));
    invalid("other.gguf", "`qwen2`, not `llama`", &|w| _ = w.set("general.architecture", "qwen2"));
    invalid("kind.gguf", "adapter.type", &|w| _ = w.set("adapter.type", "lokr"));
    invalid("stray.gguf", "not part", &|w| _ = w.tensor("blk.0.attn_q.weight.a", TensorType::F32, &[4]));
    let pair = |w: &mut Writer, base: &str, a: &[u64], b: &[u64]| {
        w.tensor(&format!("{base}.lora_a"), TensorType::F32, a);
        w.tensor(&format!("{base}.lora_b"), TensorType::F32, b);
    };
    let other = "blk.1.attn_q.weight";
    invalid("half.gguf", "other half", &|w| {
        _ = w.tensor(&format!("{other}.lora_a"), TensorType::F32, &[64, 4])
    });
    invalid("whole.gguf", "type i32", &|w| {
        _ = w.tensor(&format!("{other}.lora_a"), TensorType::from_name("i32").unwrap(), &[64, 4])
    });
    invalid("deeper.gguf", "no tensor `blk.9", &|w| pair(w, "blk.9.attn_q.weight", &[64, 4], &[4, 64]));
    for (name, base, a, b) in [
        ("wide.gguf", other, &[32, 4][..], &[4, 64][..]),
        ("rank.gguf", other, &[64, 4], &[8, 64]),
        ("deep.gguf", other, &[64, 4, 2], &[4, 64, 2]),
        ("rows.gguf", "token_embd.weight", &[8, 400], &[4, 64]),
    ] {
        invalid(name, "shape", &|w| pair(w, base, a, b));
    }
}
