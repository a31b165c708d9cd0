//! One thread owns a session's llama.cpp context; requests reach it through a queue.
//!
//! The caller of a request blocks, receives tokens over a channel of its own and hands them to its sink on its own
//! thread: a slow sink never holds up the engine. The worker computes all running requests together in one batch,
//! each in a slot with its own sequence, sampler and text; how many slots there are is a load option.

mod embed;
mod generate;
mod logprobs;
mod slot;
mod text;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use pajamas_llama_cpp::{Context, Pooling, Sampler, Token};
use pajamas_plugin_api::{
    Cancel, FinishReason, GenerateSummary, PluginError, Result, TokenEvent, TokenSink, codes,
};

use crate::options::PromptCache;

/// What a worker needs to know beside its context.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Tokens of one request, prompt and answer together.
    pub context_length: u32,
    /// Requests at the same time.
    pub slots: u32,
    /// What later requests may build on.
    pub prompt_cache: PromptCache,
}

/// A generation, ready for the engine.
pub(crate) struct Generate {
    pub prompt: Vec<Token>,
    /// At least 1, and with the prompt no more than the context.
    pub max_tokens: u32,
    pub sampler: Sampler,
    pub stops: Vec<String>,
    pub logprobs: Option<u32>,
    pub ignore_end: bool,
}

/// An embedding of several texts, ready for the engine.
pub(crate) struct Embed {
    pub inputs: Vec<Vec<Token>>,
    pub pooling: Pooling,
    pub normalize: bool,
}

/// Whether a request still wants its answer.
#[derive(Clone)]
struct Stop {
    cancel: Cancel,
    /// Set when the caller no longer listens, also when it panicked.
    gone: Arc<AtomicBool>,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.cancel.is_cancelled() || self.gone.load(Ordering::Acquire)
    }
}

/// The caller's end of a request: dropping it frees the slot.
struct Listener(Arc<AtomicBool>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A token on its way to the sink.
struct Produced {
    id: u32,
    text: String,
    logprob: f32,
    extras: String,
}

enum Reply {
    Token(Produced),
    Done(Result<GenerateSummary>),
}

struct GenerateJob {
    request: Generate,
    stop: Stop,
    reply: Sender<Reply>,
    submitted: Instant,
}

struct EmbedJob {
    request: Embed,
    stop: Stop,
    reply: Sender<Result<Vec<f32>>>,
}

enum Job {
    Generate(Box<GenerateJob>),
    Embed(EmbedJob),
}

/// The queue to a worker thread. Dropping it ends the thread and frees the context.
pub(crate) struct Engine {
    queue: Option<Sender<Job>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts a worker on a context.
    ///
    /// # Errors
    /// `internal` when the system gives no thread.
    pub fn start(context: Context, settings: Settings) -> Result<Self> {
        let (queue, jobs) = mpsc::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("pajamas-gguf".into())
            .spawn(move || worker::Worker::new(context, settings, jobs, flag).run())
            .map_err(|e| {
                PluginError::new(codes::INTERNAL, format!("the engine's thread cannot be started: {e}"))
            })?;
        Ok(Self { queue: Some(queue), stopping, thread: Some(thread) })
    }

    /// Generates into a sink, which is called on this thread.
    ///
    /// # Errors
    /// Those of computing; `session-poisoned` when the worker has ended.
    pub fn generate(
        &self,
        request: Generate,
        sink: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let (reply, replies) = mpsc::channel();
        let (listener, stop) = listen(cancel);
        let job = GenerateJob { request, stop, reply, submitted: Instant::now() };
        self.submit(Job::Generate(Box::new(job)))?;
        deliver(&replies, &listener, sink, cancel)
    }

    /// Embeds texts: the rows of the result, one after the other.
    ///
    /// # Errors
    /// `cancelled`, those of computing; `session-poisoned` when the worker has ended.
    pub fn embed(&self, request: Embed, cancel: &Cancel) -> Result<Vec<f32>> {
        let (reply, replies) = mpsc::channel();
        let (_listener, stop) = listen(cancel);
        self.submit(Job::Embed(EmbedJob { request, stop, reply }))?;
        replies.recv().unwrap_or_else(|_| Err(ended()))
    }

    fn submit(&self, job: Job) -> Result<()> {
        self.queue.as_ref().and_then(|queue| queue.send(job).ok()).ok_or_else(ended)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // An error is the worker's panic, which its callers have been told.
            let _ = thread.join();
        }
    }
}

fn listen(cancel: &Cancel) -> (Listener, Stop) {
    let gone = Arc::new(AtomicBool::new(false));
    (Listener(Arc::clone(&gone)), Stop { cancel: cancel.clone(), gone })
}

fn ended() -> PluginError {
    PluginError::new(codes::SESSION_POISONED, "the model's engine has stopped after a fault")
        .help("load the model again; the log says what happened")
}

/// Hands tokens from the engine to the sink until the summary comes.
fn deliver(
    replies: &Receiver<Reply>,
    listener: &Listener,
    sink: &mut dyn TokenSink,
    cancel: &Cancel,
) -> Result<GenerateSummary> {
    let mut delivered = 0;
    let mut broken = false;
    loop {
        match replies.recv() {
            Ok(Reply::Token(token)) => {
                // The engine may be some tokens ahead: what it produced after a stop is not shown.
                if broken || cancel.is_cancelled() {
                    continue;
                }
                delivered += 1;
                let Produced { id, text, logprob, extras } = &token;
                if sink.token(TokenEvent { id: *id, text, logprob: *logprob, extras }).is_break() {
                    broken = true;
                    listener.0.store(true, Ordering::Release);
                }
            }
            Ok(Reply::Done(result)) => {
                return result.map(|mut summary| {
                    if broken || (cancel.is_cancelled() && delivered < summary.usage.completion_tokens) {
                        summary.finish_reason = FinishReason::Cancelled;
                        summary.stop_string = None;
                        summary.usage.completion_tokens = delivered;
                    }
                    summary
                });
            }
            Err(_) => return Err(ended()),
        }
    }
}
