//! What batching gives, and what the engine costs in it: tokens per second of 1, 4, 8 and 16 sequences through a
//! session, and of a bare loop of llama.cpp's batched decode on the same file in the same process, taking turns. Each
//! sequence reads a prompt of its own and then writes; both parts count.
//!
//! ```sh
//! cargo run --release -p pajamas-gguf --example batched -- [MODEL.gguf] [TOKENS] [ROUNDS] [THREADS]
//! ```
//!
//! Without a model, or with `-`, one of 24 layers in Q8_0 with random weights is written (about 230 MB).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement stops at the first trouble")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::{
    Batch, Context, ContextParams, Decoded, Library, Model, ModelParams, Sampler, Sequence, Token,
};
use pajamas_plugin_api::{Backend, Cancel, Session};
use support::{Shape, greedy, run};

const PROMPT: usize = 32;
const CONTEXT: u32 = 256;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = match arguments.next().filter(|m| m != "-") {
        Some(model) => PathBuf::from(model),
        None => {
            let path = folder.path().join("random.gguf");
            let shape = Shape {
                vocab: 8192,
                hidden: 768,
                ffn: 2816,
                layers: 24,
                heads: 12,
                kv_heads: 4,
                context: 4096,
                eps: 1e-5,
            };
            support::write_random(&path, shape, TensorType::Q8_0);
            path
        }
    };
    let mut number = |default: usize| arguments.next().map_or(default, |n| n.parse().expect("a number"));
    let (tokens, rounds, threads) = (number(48), number(3), number(2));
    println!(
        "{:>10} {:>14} {:>14} {:>8}   (medians of {rounds})",
        "sequences", "engine tok/s", "bare tok/s", "ratio"
    );
    for sequences in [1, 4, 8, 16] {
        let session = load(&model, sequences, threads);
        let mut bare = Bare::load(&model, sequences, threads);
        let (mut through, mut direct) = (Vec::new(), Vec::new());
        // The first round warms both up.
        for round in 0..=rounds {
            let one = timed(sequences * tokens, || engine(&*session, sequences, tokens));
            let other = timed(sequences * tokens, || bare.run(sequences, tokens));
            if round > 0 {
                through.push(one);
                direct.push(other);
            }
        }
        let (through, direct) = (median(through), median(direct));
        println!("{sequences:>10} {through:>14.1} {direct:>14.1} {:>8.4}", through / direct);
    }
}

fn timed(tokens: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    tokens as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A prompt of its own for each sequence: nothing is shared.
fn prompt(sequence: usize) -> Vec<u32> {
    (0..PROMPT).map(|i| (300 + (i * 7 + sequence * 131) % 3000) as u32).collect()
}

fn load(model: &Path, sequences: usize, threads: usize) -> Box<dyn Session> {
    let options = serde_json::json!({
        "context_length": CONTEXT, "parallel": sequences, "threads": threads, "prompt_cache": "off",
    });
    let request = support::request(model, options);
    let mut go_on = |_: f32, _: &str| std::ops::ControlFlow::Continue(());
    support::backend().load(&request, &mut go_on, &Cancel::new()).unwrap_or_else(|e| panic!("{e}"))
}

fn engine(session: &dyn Session, sequences: usize, tokens: usize) {
    std::thread::scope(|scope| {
        for sequence in 0..sequences {
            scope.spawn(move || run(session, &greedy(&prompt(sequence), tokens as u32)));
        }
    });
}

/// The loop of llama.cpp's own benchmark: no queue, no text, no slots.
struct Bare {
    context: Context,
    batch: Batch,
}

impl Bare {
    fn load(model: &Path, sequences: usize, threads: usize) -> Self {
        let library = Library::open(&support::plugin_dir().join("llama"), |_, _| {}).expect("libraries");
        let model = Model::load(library, model, &ModelParams::default(), &mut |_| true).expect("a model");
        let params = ContextParams {
            context_length: CONTEXT * sequences as u32,
            sequences: sequences as u32,
            outputs: sequences as u32,
            threads: threads as u32,
            threads_batch: threads as u32,
            ..Default::default()
        };
        Self { context: Context::new(Arc::new(model), &params).expect("a context"), batch: Batch::new() }
    }

    fn run(&mut self, sequences: usize, tokens: usize) {
        let mut samplers: Vec<Sampler> = (0..sequences).map(|_| Sampler::new().greedy()).collect();
        self.batch.clear();
        let mut outputs = Vec::new();
        for sequence in 0..sequences {
            self.context.remove(sequence as Sequence, 0);
            for (i, token) in prompt(sequence).into_iter().enumerate() {
                let last = i + 1 == PROMPT;
                let index = self.batch.add(token as Token, i as u32, sequence as Sequence, last);
                if last {
                    outputs.push(index);
                }
            }
        }
        for position in PROMPT..PROMPT + tokens {
            let decoded = self.context.decode(&mut self.batch, &|| false).expect("a batch");
            assert_eq!(decoded, Decoded::Done);
            let next: Vec<Token> = samplers
                .iter_mut()
                .zip(&outputs)
                .map(|(sampler, index)| sampler.sample(&mut self.context, *index).expect("logits"))
                .collect();
            self.batch.clear();
            outputs.clear();
            for (sequence, token) in next.into_iter().enumerate() {
                outputs.push(self.batch.add(token, position as u32, sequence as Sequence, true));
            }
        }
    }
}
