//! The layer on a tiny llama with made-up weights, written here.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_llama_cpp::gguf::{TensorType, Writer};
use pajamas_llama_cpp::{
    Batch, Context, ContextParams, Decoded, DeviceKind, Error, Library, Model, ModelParams, Operation,
    OperationKind, Sampler, Token, Watch, Weights, Windows,
};

const VOCAB: u64 = 300;
const HIDDEN: u64 = 32;

fn library() -> &'static Library {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.ancestors().nth(2).map(|p| p.join("llama")).unwrap_or_default();
    Library::open(&folder, |_, _| {}).unwrap_or_else(|e| panic!("{e}"))
}

/// A one-layer llama.
fn write(path: &Path) -> std::io::Result<()> {
    let tokens: Vec<String> = ["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()]
        .into_iter()
        .chain((3..VOCAB).map(|i| format!("▁w{i}")))
        .collect();
    let mut w = Writer::new("llama");
    w.set("llama.context_length", 256u32)
        .set("llama.embedding_length", HIDDEN as u32)
        .set("llama.block_count", 1u32)
        .set("llama.feed_forward_length", 64u32)
        .set("llama.attention.head_count", 2u32)
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5f32)
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.scores", (0..VOCAB).map(|i| -(i as f32)).collect::<Vec<f32>>())
        .set("tokenizer.ggml.token_type", (0..VOCAB).map(|i| if i < 3 { 3 } else { 1 }).collect::<Vec<i32>>())
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.eos_token_id", 2u32);
    w.tensor("token_embd.weight", TensorType::F32, &[HIDDEN, VOCAB]);
    w.tensor("output_norm.weight", TensorType::F32, &[HIDDEN]);
    for (name, dimensions) in [
        ("attn_norm", &[HIDDEN][..]),
        ("attn_q", &[HIDDEN, HIDDEN]),
        ("attn_k", &[HIDDEN, HIDDEN]),
        ("attn_v", &[HIDDEN, HIDDEN]),
        ("attn_output", &[HIDDEN, HIDDEN]),
        ("ffn_norm", &[HIDDEN]),
        ("ffn_gate", &[HIDDEN, 64]),
        ("ffn_up", &[HIDDEN, 64]),
        ("ffn_down", &[64, HIDDEN]),
    ] {
        w.tensor(&format!("blk.0.{name}.weight"), TensorType::F32, dimensions);
    }
    let mut state = 1u32;
    w.write(std::io::BufWriter::new(std::fs::File::create(path)?), |tensor, out| {
        (0..tensor.elements()).try_for_each(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = if tensor.name.contains("norm") { 1.0 } else { state as f32 / u32::MAX as f32 - 0.5 };
            out.write_all(&value.to_le_bytes())
        })
    })
}

struct House {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn house() -> House {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let path = folder.path().join("one.gguf");
    write(&path).unwrap_or_else(|e| panic!("{e}"));
    House { _folder: folder, path }
}

fn model(house: &House, weights: Weights) -> Arc<Model> {
    let params = ModelParams { weights, ..ModelParams::default() };
    Arc::new(Model::load(library(), &house.path, &params, &mut |_| true).unwrap_or_else(|e| panic!("{e}")))
}

fn params() -> ContextParams {
    ContextParams { context_length: 256, batch_size: 64, micro_batch_size: 32, ..ContextParams::default() }
}

fn context(house: &House, params: &ContextParams) -> Context {
    Context::new(model(house, Weights::Mapped), params).unwrap_or_else(|e| panic!("{e}"))
}

/// Computes tokens from a position on and returns the logits after the last.
fn logits(context: &mut Context, sequence: i32, from: u32, tokens: &[Token]) -> Vec<f32> {
    let mut batch = Batch::new();
    for (i, token) in tokens.iter().enumerate() {
        batch.add(*token, from + i as u32, sequence, i + 1 == tokens.len());
    }
    assert_eq!(context.decode(&mut batch, &|| false).unwrap_or_else(|e| panic!("{e}")), Decoded::Done);
    context.logits(tokens.len() - 1).map(<[f32]>::to_vec).unwrap_or_default()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!((a.len(), b.len()), (VOCAB as usize, VOCAB as usize));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_library_knows_its_devices() {
    let cpu = library().device("cpu").unwrap();
    assert_eq!(cpu.kind(), DeviceKind::Cpu);
    assert!(cpu.memory().1 > 0);
    assert!(library().device("cuda:99").is_none());
    assert!(!library().version().is_empty());
}

#[test]
fn a_cache_can_be_cut_copied_and_moved() {
    let house = house();
    let unified = ContextParams { sequences: 3, unified: true, ..params() };
    let mut context = context(&house, &unified);
    let straight = logits(&mut context, 0, 0, &[10, 11, 12, 13]);
    // Cut back and go on with the same token.
    assert!(context.remove(0, 3));
    assert!(difference(&straight, &logits(&mut context, 0, 3, &[13])) < 1e-3);
    // A copy of the first part goes on like the original.
    context.copy(0, 1, 3);
    assert!(difference(&straight, &logits(&mut context, 1, 3, &[13])) < 1e-3);
    // Another sequence knows nothing of it.
    assert!(difference(&straight, &logits(&mut context, 2, 0, &[13])) > 1e-2);
    // Without its first token and moved forward, the rest is a text of its own.
    assert!(context.remove(2, 0) && context.shift(0, 2, 5));
    assert_eq!(context.first_position(0), Some(0));
    assert_eq!(context.first_position(2), None);
}

#[test]
fn sampling_is_greedy_or_repeats_with_its_seed() {
    let house = house();
    let mut context = context(&house, &params());
    let row = logits(&mut context, 0, 0, &[20, 21]);
    let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    assert_eq!(Sampler::new().greedy().sample(&mut context, 1), Some(best as Token));
    let mut draw = |seed| Sampler::new().temperature(5.0).random(seed).sample(&mut context, 1);
    assert_eq!(draw(7), draw(7));
    assert!((0..20).any(|seed| draw(seed) != draw(7)));
    // What llama.cpp would assert: no choice at the end, no logits at the index.
    assert_eq!(Sampler::new().top_k(3).sample(&mut context, 1), None);
    assert_eq!(Sampler::new().greedy().sample(&mut context, 0), None);
    assert_eq!(Sampler::new().greedy().sample(&mut context, 9), None);
}

#[test]
fn what_llama_cpp_asserts_is_an_error_here() {
    let house = house();
    let mut context = context(&house, &params());
    let mut refuse = |fill: &dyn Fn(&mut Batch)| {
        let mut batch = Batch::new();
        fill(&mut batch);
        context.decode(&mut batch, &|| false).unwrap_err()
    };
    assert!(matches!(refuse(&|_| {}), Error::Batch(_)));
    assert!(matches!(refuse(&|b| (0..65).for_each(|i| _ = b.add(5, i, 0, false))), Error::Batch(_)));
    assert!(matches!(refuse(&|b| (0..2).for_each(|i| _ = b.add(5, i, 0, true))), Error::Batch(_)));
    assert!(matches!(refuse(&|b| _ = b.add(5, 0, 1, true)), Error::Batch(_)));
    assert!(matches!(refuse(&|b| _ = b.add(300, 0, 0, true)), Error::UnknownToken { token: 300, size: 300 }));
    assert!(context.logits(0).is_none() && context.embedding(0).is_none());
}

#[test]
fn a_batch_can_be_aborted_and_the_context_goes_on() {
    let house = house();
    let mut context = context(&house, &params());
    let before = logits(&mut context, 0, 0, &[30, 31]);
    let mut batch = Batch::new();
    batch.add(32, 2, 0, true);
    assert_eq!(context.decode(&mut batch, &|| true).unwrap(), Decoded::Aborted);
    assert!(context.logits(0).is_none());
    assert!(context.remove(0, 0));
    assert!(difference(&before, &logits(&mut context, 0, 0, &[30, 31])) < 1e-6);
    assert!(
        difference(&before, &{
            context.remove(0, 0);
            logits(&mut context, 0, 0, &[30, 31])
        }) < 1e-3
    );
}

#[test]
fn a_full_cache_is_told() {
    let house = house();
    let mut context = context(&house, &params());
    let length = context.sequence_length();
    for start in (0..length).step_by(64) {
        logits(&mut context, 0, start, &[40; 64]);
    }
    let mut batch = Batch::new();
    batch.add(40, length, 0, true);
    assert_eq!(context.decode(&mut batch, &|| false).unwrap(), Decoded::Full);
}

#[test]
fn a_simulation_counts_what_the_real_one_holds() {
    let house = house();
    let sum = |weights: Weights| {
        let context = Context::new(model(&house, weights), &params()).unwrap();
        let buffers = context.memory();
        let total = |f: fn(&pajamas_llama_cpp::BufferMemory) -> u64| buffers.iter().map(f).sum::<u64>();
        (total(|b| b.weights), total(|b| b.cache), total(|b| b.compute))
    };
    let (real, simulated) = (sum(Weights::Read), sum(Weights::Simulated));
    assert_eq!(real, simulated);
    assert!(real.0 > 0 && real.1 > 0 && real.2 > 0, "{real:?}");
    let mut context = Context::new(model(&house, Weights::Simulated), &params()).unwrap();
    let mut batch = Batch::new();
    batch.add(5, 0, 0, true);
    assert!(matches!(context.decode(&mut batch, &|| false), Err(Error::Batch(_))));
}

#[test]
fn a_vocabulary_needs_no_weights() {
    let house = house();
    let model = model(&house, Weights::VocabularyOnly);
    assert_eq!(model.vocab_size(), VOCAB as Token);
    assert_eq!(model.piece(2, true).unwrap(), b"</s>");
    assert!(model.is_end(2) && !model.is_end(5) && !model.is_end(-1));
    assert!(matches!(model.piece(300, true), Err(Error::UnknownToken { .. })));
    assert!(matches!(model.token(u32::MAX), Err(Error::UnknownToken { .. })));
    assert_eq!(model.metadata_value("llama.block_count").as_deref(), Some("1"));
    assert!(matches!(Context::new(model, &params()), Err(Error::VocabularyOnly)));
}

#[test]
fn a_panic_in_the_progress_of_a_load_comes_out_of_it() {
    let house = house();
    let caught = std::panic::catch_unwind(|| {
        let _ = Model::load(library(), &house.path, &ModelParams::default(), &mut |_| panic!("on purpose"));
    });
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
}

/// Sums what the weights of a name are multiplied by.
struct Sums {
    name: &'static str,
    sum: f64,
    seen: Vec<String>,
    panics: bool,
}

impl Sums {
    fn of(name: &'static str) -> Self {
        Self { name, sum: 0.0, seen: Vec::new(), panics: false }
    }
}

impl Watch for Sums {
    fn wants(&mut self, operation: &Operation<'_>) -> bool {
        let weights = operation.operand(0).map(|w| w.name().into_owned()).unwrap_or_default();
        operation.kind() == OperationKind::Product && weights.starts_with(self.name)
    }

    fn see(&mut self, operation: &Operation<'_>) {
        assert!(!self.panics, "on purpose");
        let (weights, inputs) = (operation.operand(0).unwrap(), operation.operand(1).unwrap());
        self.seen.push(weights.name().into_owned());
        let [columns, rows, ..] = inputs.sizes();
        assert!(inputs.is_f32() && inputs.integers(&mut Vec::new()).is_none());
        let mut scratch = Vec::new();
        let floats = inputs.floats(&mut scratch).unwrap();
        (0..rows).for_each(|row| {
            assert_eq!(floats.row([row, 0, 0]).len(), columns);
            self.sum += floats.row([row, 0, 0]).iter().map(|x| f64::from(x * x)).sum::<f64>();
        });
        assert!(floats.row([rows, 7, 7]).is_empty());
    }
}

#[test]
fn operations_can_be_watched() {
    let house = house();
    let mut context = context(&house, &ContextParams { watched: true, outputs: 32, ..params() });
    let mut compute = |watch: Option<&mut Sums>| {
        context.remove(0, 0);
        let mut batch = Batch::new();
        (0..32).for_each(|i| _ = batch.add(40 + i as Token, i, 0, true));
        let decoded = match watch {
            Some(watch) => context.decode_watched(&mut batch, &|| false, watch),
            None => context.decode(&mut batch, &|| false),
        };
        assert_eq!(decoded.unwrap(), Decoded::Done);
        context.logits(31).unwrap().to_vec()
    };
    let unwatched = compute(None);
    let mut all = Sums::of("blk.0.");
    // Who watches changes nothing.
    assert!(difference(&unwatched, &compute(Some(&mut all))) < 1e-6);
    all.seen.sort();
    let names = ["attn_k", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up"];
    assert_eq!(all.seen, names.map(|name| format!("blk.0.{name}.weight")));
    // A norm without weights of its own: every row of 32 elements has a sum of squares of about 32.
    let mut query = Sums::of("blk.0.attn_q");
    compute(Some(&mut query));
    assert!((query.sum / (32.0 * 32.0) - 1.0).abs() < 1e-3, "{}", query.sum);
    // Nobody watches any more.
    assert!(difference(&unwatched, &compute(None)) < 1e-6);
}

#[test]
fn a_panic_of_who_watches_comes_out_and_the_context_goes_on() {
    let house = house();
    let mut watched = context(&house, &ContextParams { watched: true, ..params() });
    let before = logits(&mut watched, 0, 0, &[30, 31]);
    watched.remove(0, 0);
    let mut batch = Batch::new();
    batch.add(30, 0, 0, true);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut watch = Sums { panics: true, ..Sums::of("blk.") };
        let _ = watched.decode_watched(&mut batch, &|| false, &mut watch);
    }));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    watched.remove(0, 0);
    assert!(difference(&before, &logits(&mut watched, 0, 0, &[30, 31])) < 1e-6);
    let refused = context(&house, &params()).decode_watched(&mut batch, &|| false, &mut Sums::of("blk."));
    assert!(matches!(refused, Err(Error::Batch(_))));
}

#[test]
fn windows_give_the_logits_of_a_context() {
    let house = house();
    let mut context = context(&house, &params());
    let tokens: Vec<Token> = (3..35).collect();
    let wanted = logits(&mut context, 0, 0, &tokens);

    let mut windows = Windows::new(model(&house, Weights::Mapped), 64, 1).unwrap_or_else(|e| panic!("{e}"));
    for _ in 0..2 {
        windows.begin();
        windows.skip(&tokens[..20], &|| false).unwrap_or_else(|e| panic!("{e}"));
        let rows = windows.advance(&tokens[20..], &|| false).unwrap_or_else(|e| panic!("{e}")).to_vec();
        assert_eq!(rows.len(), 12 * VOCAB as usize);
        let last = &rows[11 * VOCAB as usize..];
        let worst = last.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    }
    windows.begin();
    assert!(matches!(windows.skip(&tokens, &|| true), Err(Error::Cancelled)));
    windows.begin();
    assert!(matches!(windows.advance(&[3; 65], &|| false), Err(Error::Batch(_))));
    assert!(matches!(windows.advance(&[VOCAB as Token], &|| false), Err(Error::UnknownToken { .. })));
}
