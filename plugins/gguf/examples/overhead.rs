//! What the engine costs: tokens per second through a session, and of a bare llama.cpp loop on the same file in the
//! same process, taking turns; and the processor's time for both, which also means something on a busy machine (with
//! one thread: several of them wait for each other by spinning).
//!
//! ```sh
//! cargo run --release -p pajamas-gguf --example overhead -- MODEL.gguf [PROMPT] [TOKENS] [ROUNDS] [THREADS]
//! ```

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pajamas_gguf::GgufBackend;
use pajamas_llama_cpp::{
    Batch, Context, ContextParams, Decoded, Library, Model, ModelParams, Sampler, Token,
};
use pajamas_plugin_api::{
    Backend, Cancel, GenerateRequest, HostContext, HostServices, Level, LoadRequest, Prompt, Sampling,
    Session, TokenEvent, TokenSink,
};

/// Tokens per second, of the prompt and of what was generated after the first token; milliseconds of processor time
/// for all of it.
#[derive(Clone, Copy)]
struct Speed {
    prompt: f64,
    decode: f64,
    processor: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = PathBuf::from(arguments.next().ok_or("name a model")?);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |n| n.parse::<u32>());
    let (prompt, tokens, rounds, threads) = (number(512)?, number(64)?, number(5)?, number(2)?);

    let session = load(&model, prompt + tokens, threads)?;
    let mut bare = Bare::load(&model, prompt + tokens, threads)?;
    let vocab = session.signature().text.map_or(1, |t| t.vocab_size);
    let text: Vec<u32> = (0..prompt).map(|i| 3 + i * 7 % (vocab - 3)).collect();

    let (mut through, mut direct) = (Vec::new(), Vec::new());
    // The first round warms both up.
    for round in 0..=rounds {
        let start = processor_time();
        let mut engine = engine(&*session, &text, tokens)?;
        let middle = processor_time();
        let mut direct_speed = bare.run(&text, tokens)?;
        engine.processor = middle - start;
        direct_speed.processor = processor_time() - middle;
        if round > 0 {
            through.push(engine);
            direct.push(direct_speed);
        }
    }
    println!("{:>8} {:>12} {:>12} {:>12}", "", "prompt tok/s", "decode tok/s", "processor ms");
    let (through, direct) = (median(through), median(direct));
    let line = |name: &str, s: Speed| {
        println!("{name:>8} {:12.1} {:12.1} {:12.2}", s.prompt, s.decode, s.processor);
    };
    line("engine", through);
    line("bare", direct);
    println!(
        "{:>8} {:12.4} {:12.4} {:12.4}   (medians of {rounds}, {threads} threads)",
        "ratio",
        through.prompt / direct.prompt,
        through.decode / direct.decode,
        through.processor / direct.processor
    );
    Ok(())
}

fn median(mut speeds: Vec<Speed>) -> Speed {
    let mut middle = |key: fn(&Speed) -> f64| {
        speeds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&speeds[speeds.len() / 2])
    };
    Speed { prompt: middle(|s| s.prompt), decode: middle(|s| s.decode), processor: middle(|s| s.processor) }
}

/// Milliseconds that the threads of this process have run; 0 where the system is not Linux.
fn processor_time() -> f64 {
    let nanoseconds = |task: std::fs::DirEntry| -> Option<f64> {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(nanoseconds).sum::<f64>() / 1e6
}

/// `target/<profile>`, above the folder of the examples.
fn plugin_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

struct Quiet;

impl HostServices for Quiet {
    fn log(&self, _: Level, _: &str) {}
    fn plugin_dir(&self) -> PathBuf {
        plugin_dir()
    }
}

fn load(model: &Path, context: u32, threads: u32) -> Result<Box<dyn Session>, Box<dyn Error>> {
    let options = serde_json::json!({ "context_length": context, "threads": threads, "prompt_cache": "off" });
    let request = LoadRequest { path: model.into(), format: "gguf".into(), device: "cpu".into(), options };
    let backend = GgufBackend::new(HostContext::new(Quiet));
    println!("{}", backend.probe().reason);
    Ok(backend.load(&request, &mut |_: f32, _: &str| ControlFlow::Continue(()), &Cancel::new())?)
}

struct Discard;

impl TokenSink for Discard {
    fn token(&mut self, _: TokenEvent<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

fn engine(session: &dyn Session, prompt: &[u32], tokens: u32) -> Result<Speed, Box<dyn Error>> {
    let mut request = GenerateRequest::new(Prompt::Tokens(prompt.to_vec()));
    request.sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    request.max_tokens = Some(tokens);
    request.ignore_eos = true;
    let timings = session.generate(&request, &mut Discard, &Cancel::new())?.timings;
    Ok(Speed {
        prompt: prompt.len() as f64 * 1000.0 / timings.prompt_ms,
        decode: f64::from(tokens - 1) * 1000.0 / timings.decode_ms,
        processor: 0.0,
    })
}

/// The loop of llama.cpp's own benchmark: no queue, no text, no slots.
struct Bare {
    context: Context,
    batch: Batch,
}

impl Bare {
    fn load(model: &Path, context: u32, threads: u32) -> Result<Self, Box<dyn Error>> {
        let library = Library::open(&plugin_dir().join("llama"), |_, _| {})?;
        let model = Model::load(library, model, &ModelParams::default(), &mut |_| true)?;
        let params =
            ContextParams { context_length: context, threads, threads_batch: threads, ..Default::default() };
        Ok(Self { context: Context::new(Arc::new(model), &params)?, batch: Batch::new() })
    }

    fn run(&mut self, prompt: &[u32], tokens: u32) -> Result<Speed, Box<dyn Error>> {
        self.context.remove(0, 0);
        let mut sampler = Sampler::new().greedy();
        let start = Instant::now();
        self.batch.clear();
        for (i, token) in prompt.iter().enumerate() {
            self.batch.add(*token as Token, i as u32, 0, i + 1 == prompt.len());
        }
        let mut next = self.step(&mut sampler)?;
        let first = Instant::now();
        for i in 1..tokens {
            self.batch.clear();
            self.batch.add(next, prompt.len() as u32 + i - 1, 0, true);
            next = self.step(&mut sampler)?;
        }
        Ok(Speed {
            prompt: prompt.len() as f64 / (first - start).as_secs_f64(),
            decode: f64::from(tokens - 1) / first.elapsed().as_secs_f64(),
            processor: 0.0,
        })
    }

    fn step(&mut self, sampler: &mut Sampler) -> Result<Token, Box<dyn Error>> {
        if self.context.decode(&mut self.batch, &|| false)? != Decoded::Done {
            return Err("the batch was not computed".into());
        }
        Ok(sampler.sample(&mut self.context, self.batch.len() - 1).ok_or("no logits")?)
    }
}
