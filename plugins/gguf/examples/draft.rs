//! What a draft model gives: tokens per second of a session with and without one, on the same requests in the same
//! process, taking turns; of one request alone and of several together.
//!
//! ```sh
//! cargo run --release -p pajamas-gguf --example draft -- [MODEL.gguf] [DRAFT.gguf] [TOKENS] [ROUNDS] [THREADS] [MAX] [LEAST]
//! ```
//!
//! Without models, or with `-`, a pair with random weights is written: 24 layers in Q8_0 (about 230 MB), and a draft
//! that is the first two of them. The other layers say little, so that the draft is right more often than not, as one of
//! a family is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first trouble")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use pajamas_llama_cpp::gguf::{TensorInfo, TensorType};
use pajamas_plugin_api::{EngineStats, Session};
use serde_json::json;
use support::{Shape, describe, greedy, run, stats, until, vocabulary, write};

const LARGE: Shape = Shape {
    vocab: 8192,
    hidden: 768,
    ffn: 2816,
    layers: 24,
    heads: 12,
    kv_heads: 4,
    context: 4096,
    eps: 1e-5,
};
const DRAFT_LAYERS: u64 = 2;
const PROMPT: u32 = 32;
/// Scales of weights as f16: a 512th, and a 32nd of that.
const LOUD: u16 = 0x1800;
const FAINT: u16 = 0x0400;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |index: usize, default: &str| {
        arguments.get(index).filter(|a| *a != "-").cloned().unwrap_or_else(|| default.to_owned())
    };
    let number = |index: usize, default: usize| text(index, &default.to_string()).parse().expect("a number");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, draft) = match (arguments.first(), arguments.get(1)) {
        (Some(model), Some(draft)) if model != "-" => (PathBuf::from(model), PathBuf::from(draft)),
        _ => {
            let (model, draft) = (folder.path().join("large.gguf"), folder.path().join("draft.gguf"));
            write_pair(&model, LARGE);
            write_pair(&draft, Shape { layers: DRAFT_LAYERS, ..LARGE });
            (model, draft)
        }
    };
    let (tokens, rounds, threads) = (number(2, 96), number(3, 3), number(4, 2));
    let (max, least): (usize, f64) = (number(5, 8), text(6, "0.5").parse().expect("a number"));
    println!(
        "{:>9} {:>12} {:>12} {:>7} {:>10} {:>14}   (medians of {rounds})",
        "requests", "plain tok/s", "draft tok/s", "ratio", "accepted", "tokens a batch"
    );
    for requests in [1, 2, 4] {
        let options =
            json!({ "context_length": 512, "parallel": requests, "threads": threads, "prompt_cache": "off" });
        let mut with = options.clone();
        with["draft"] = json!({ "path": draft, "max": max, "min_probability": least });
        let sessions = [support::load(&model, options), support::load(&model, with)];
        let mut speeds = [Vec::new(), Vec::new()];
        // The first round warms both up.
        for round in 0..=rounds {
            for (session, speeds) in sessions.iter().zip(&mut speeds) {
                let speed = timed(&**session, requests, tokens);
                if round > 0 {
                    speeds.push(speed);
                }
            }
        }
        let [plain, drafted] = speeds.map(median);
        let EngineStats { drafted: wrote, accepted, generated_tokens, batches, .. } = stats(&*sessions[1]);
        println!(
            "{requests:>9} {plain:>12.1} {drafted:>12.1} {:>7.3} {:>9.1}% {:>14.2}",
            drafted / plain,
            100.0 * accepted as f64 / (wrote as f64).max(1.0),
            generated_tokens as f64 / batches as f64
        );
    }
}

/// Tokens per second of several requests together, their prompts included.
fn timed(session: &dyn Session, requests: usize, tokens: usize) -> f64 {
    let prompt = |request: usize| (0..PROMPT).map(move |i| 300 + (i * 7 + request as u32 * 131) % 3000);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for request in 0..requests {
            scope.spawn(move || run(session, &greedy(&prompt(request).collect::<Vec<_>>(), tokens as u32)));
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    until(session, |s| s.busy == 0);
    (requests * tokens) as f64 / seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes a model whose tensors have the same numbers whatever else is in the file, and whose layers beyond those of the
/// draft add little.
fn write_pair(path: &Path, shape: Shape) {
    write(path, &describe(shape, vocabulary(shape.vocab), TensorType::Q8_0), |tensor: &TensorInfo, out| {
        if tensor.tensor_type == TensorType::F32 {
            // The last norm makes both as sure of themselves as models that were trained.
            let norm = if tensor.name == "output_norm.weight" { 3f32 } else { 1f32 };
            return (0..tensor.elements()).try_for_each(|_| out.write_all(&norm.to_le_bytes()));
        }
        let layer =
            tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
        let adds = ["attn_output", "ffn_down"].iter().any(|part| tensor.name.contains(part));
        let scale: u16 = if adds && layer.is_some_and(|l| l >= DRAFT_LAYERS) { FAINT } else { LOUD };
        let seed = tensor
            .name
            .bytes()
            .fold(14_695_981_039_346_656_037u64, |h, b| (h ^ u64::from(b)).wrapping_mul(1_099_511_628_211));
        let mut state = seed | 1;
        (0..tensor.bytes / 34).try_for_each(|_| {
            out.write_all(&scale.to_le_bytes())?;
            (0..4).try_for_each(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                out.write_all(&state.to_le_bytes())
            })
        })
    });
}
