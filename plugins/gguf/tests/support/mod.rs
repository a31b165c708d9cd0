//! Models for the tests: written here, so that they need neither Python nor a download.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_gguf::GgufBackend;
use pajamas_llama_cpp::gguf::{TensorInfo, TensorType, Writer};
use pajamas_plugin_api::{
    Backend, Cancel, EngineStats, GenerateRequest, GenerateSummary, HostContext, LoadRequest, OutputSpec,
    Prompt, Result, Sampling, Session, TensorSink, TensorViewMut, TokenEvent, TokenSink,
};

pub mod bert;
pub mod hf;

/// The folder of the built plugin: `target/<profile>`, above the test program's `deps`.
pub fn plugin_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_path_buf()
}

pub fn backend() -> GgufBackend {
    struct Quiet;
    impl pajamas_plugin_api::HostServices for Quiet {
        fn log(&self, _: pajamas_plugin_api::Level, _: &str) {}
        fn plugin_dir(&self) -> PathBuf {
            plugin_dir()
        }
    }
    GgufBackend::new(HostContext::new(Quiet))
}

/// Real models and vocabularies, where the machine has them.
pub fn assets() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    if !path.is_dir() {
        eprintln!("skipped: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

/// A load on the processor; with one thread, for more of them only wait for each other on models this small.
pub fn request(path: &Path, mut options: serde_json::Value) -> LoadRequest {
    if let Some(options) = options.as_object_mut() {
        options.entry("threads").or_insert(1.into());
    }
    LoadRequest { path: path.to_owned(), format: "gguf".into(), device: "cpu".into(), options }
}

pub fn load(path: &Path, options: serde_json::Value) -> Box<dyn Session> {
    try_load(path, options).unwrap_or_else(|e| panic!("{e}"))
}

pub fn try_load(path: &Path, options: serde_json::Value) -> Result<Box<dyn Session>> {
    backend().load(&request(path, options), &mut |_: f32, _: &str| ControlFlow::Continue(()), &Cancel::new())
}

/// The shape of a llama.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub vocab: u64,
    pub hidden: u64,
    pub ffn: u64,
    pub layers: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub context: u32,
    pub eps: f32,
}

/// Small and quick.
pub const TINY: Shape =
    Shape { vocab: 400, hidden: 64, ffn: 128, layers: 2, heads: 4, kv_heads: 2, context: 512, eps: 1e-5 };

/// A vocabulary: three special tokens, the 256 bytes, and words.
pub fn vocabulary(size: u64) -> Vec<String> {
    ["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()]
        .into_iter()
        .chain((0..256).map(|b| format!("<0x{b:02X}>")))
        .chain((259..size).map(|i| format!("▁w{i}é")))
        .collect()
}

/// Describes a llama of this shape; norms are always f32.
pub fn describe(shape: Shape, tokens: Vec<String>, weights: TensorType) -> Writer {
    let head = shape.hidden / shape.heads;
    let mut w = Writer::new("llama");
    w.set("llama.context_length", shape.context)
        .set("llama.embedding_length", shape.hidden as u32)
        .set("llama.block_count", shape.layers as u32)
        .set("llama.feed_forward_length", shape.ffn as u32)
        .set("llama.rope.dimension_count", head as u32)
        .set("llama.attention.head_count", shape.heads as u32)
        .set("llama.attention.head_count_kv", shape.kv_heads as u32)
        .set("llama.attention.layer_norm_rms_epsilon", shape.eps)
        .set("llama.rope.freq_base", 10000f32)
        .set("llama.vocab_size", shape.vocab as u32)
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.scores", (0..shape.vocab).map(|i| -(i as f32)).collect::<Vec<f32>>())
        .set("tokenizer.ggml.token_type", tokens.iter().enumerate().map(token_type).collect::<Vec<i32>>())
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.bos_token_id", 1u32)
        .set("tokenizer.ggml.eos_token_id", 2u32)
        .set("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}");
    w.tensor("token_embd.weight", weights, &[shape.hidden, shape.vocab]);
    w.tensor("output_norm.weight", TensorType::F32, &[shape.hidden]);
    for layer in 0..shape.layers {
        let mut add = |name: &str, t, d: &[u64]| {
            w.tensor(&format!("blk.{layer}.{name}.weight"), t, d);
        };
        add("attn_norm", TensorType::F32, &[shape.hidden]);
        add("attn_q", weights, &[shape.hidden, shape.hidden]);
        add("attn_k", weights, &[shape.hidden, shape.kv_heads * head]);
        add("attn_v", weights, &[shape.hidden, shape.kv_heads * head]);
        add("attn_output", weights, &[shape.hidden, shape.hidden]);
        add("ffn_norm", TensorType::F32, &[shape.hidden]);
        add("ffn_gate", weights, &[shape.hidden, shape.ffn]);
        add("ffn_up", weights, &[shape.hidden, shape.ffn]);
        add("ffn_down", weights, &[shape.ffn, shape.hidden]);
    }
    w
}

fn token_type((id, text): (usize, &String)) -> i32 {
    match id {
        0 => 2,
        1 | 2 => 3,
        _ if text.starts_with("<0x") => 6,
        _ => 1,
    }
}

/// Writes a llama with random weights.
pub fn write_random(path: &Path, shape: Shape, weights: TensorType) {
    write_seeded(path, shape, weights, 0);
}

/// The same with other numbers for each seed.
pub fn write_seeded(path: &Path, shape: Shape, weights: TensorType, seed: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_add(seed);
    write(path, &describe(shape, vocabulary(shape.vocab), weights), |tensor, out| {
        random(tensor, out, &mut state)
    });
}

pub fn write(path: &Path, writer: &Writer, data: impl FnMut(&TensorInfo, &mut dyn Write) -> io::Result<()>) {
    writer.write(BufWriter::new(File::create(path).unwrap()), data).unwrap();
}

fn random(tensor: &TensorInfo, out: &mut dyn Write, state: &mut u64) -> io::Result<()> {
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    let norm = tensor.name.contains("norm");
    match tensor.tensor_type {
        TensorType::F32 => (0..tensor.elements()).try_for_each(|_| {
            let uniform = (next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            out.write_all(&(if norm { 1.0 } else { uniform * 0.5 }).to_le_bytes())
        }),
        TensorType::Q8_0 => (0..tensor.bytes / 34).try_for_each(|_| {
            // 2^-9 as f16, then 32 signed bytes.
            out.write_all(&0x1800u16.to_le_bytes())?;
            (0..4).try_for_each(|_| out.write_all(&next().to_le_bytes()))
        }),
        other => panic!("the tests write no {other}"),
    }
}

/// A tiny model in a folder of its own.
pub fn tiny() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    write_random(&path, TINY, TensorType::F32);
    (folder, path)
}

/// Keeps what a generation produced, and may stop after some tokens.
#[derive(Default)]
pub struct Collected {
    pub ids: Vec<u32>,
    pub text: String,
    pub texts: Vec<String>,
    pub logprobs: Vec<f32>,
    pub extras: Vec<String>,
    pub stop_after: Option<usize>,
}

impl TokenSink for Collected {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        self.ids.push(event.id);
        self.text += event.text;
        self.texts.push(event.text.to_owned());
        self.logprobs.push(event.logprob);
        self.extras.push(event.extras.to_owned());
        if self.stop_after == Some(self.ids.len()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

pub fn greedy(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Tokens(prompt.to_vec()));
    request.sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    request.max_tokens = Some(max_tokens);
    request.ignore_eos = true;
    request
}

pub fn run(session: &dyn Session, request: &GenerateRequest) -> (Collected, GenerateSummary) {
    let mut collected = Collected::default();
    let summary = session.generate(request, &mut collected, &Cancel::new()).unwrap_or_else(|e| panic!("{e}"));
    (collected, summary)
}

/// A load in which sums differ by no more than their last bits, whatever order a shared cache puts them in: a cache in
/// f16 and flash attention round more, and a model with random weights soon turns that into another token.
pub fn exact(path: &Path, mut options: serde_json::Value) -> Box<dyn Session> {
    options["kv_type_k"] = "f32".into();
    options["kv_type_v"] = "f32".into();
    options["flash_attention"] = "off".into();
    load(path, options)
}

pub fn together(session: &dyn Session, requests: &[GenerateRequest]) -> Vec<Vec<u32>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests.iter().map(|r| scope.spawn(|| run(session, r).0.ids)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

pub fn stats(session: &dyn Session) -> EngineStats {
    EngineStats::of(session).unwrap().unwrap()
}

/// Looks until something holds; the engine works on meanwhile.
pub fn until(session: &dyn Session, holds: impl Fn(&EngineStats) -> bool) -> EngineStats {
    for _ in 0..1_000_000 {
        let stats = stats(session);
        if holds(&stats) {
            return stats;
        }
        std::thread::yield_now();
    }
    panic!("still {:?}", stats(session))
}

/// Keeps one f32 tensor.
#[derive(Default)]
pub struct Rows {
    pub shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Rows {
    pub fn values(&self) -> Vec<f32> {
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn row(&self, index: usize) -> Vec<f32> {
        let size = self.shape[1] as usize * 4;
        let bytes = &self.bytes[index * size..(index + 1) * size];
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

impl TensorSink for Rows {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        self.shape = outputs[0].shape.to_vec();
        self.bytes = vec![0; pajamas_plugin_api::byte_len(outputs[0].dtype, outputs[0].shape)?];
        Ok(vec![TensorViewMut::new(outputs[0].dtype, outputs[0].shape, &mut self.bytes)?])
    }
}
