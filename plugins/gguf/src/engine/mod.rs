//! One thread owns a session's llama.cpp context; requests reach it through a queue.
//!
//! The caller of a request blocks, receives tokens over a channel of its own and hands them to its sink on its own
//! thread: a slow sink never holds up the engine. The worker computes all running requests together in one batch,
//! each in a slot with its own sequence, sampler and text; how many slots there are is a load option. Between two
//! batches requests join and leave. A draft model may write ahead for them, which changes how many tokens a batch is
//! good for and nothing else. When the cache has no room for all of them, the youngest gives up its place and is
//! computed again later: it only takes longer. While nothing is in work it may be put to sleep: the context goes, and comes
//! back as it was, with an empty cache.

mod admission;
mod choice;
mod counters;
mod draft;
mod embed;
mod fill;
mod generate;
mod logprobs;
mod queue;
mod sleep;
mod slot;
mod slots;
mod text;
mod work;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use pajamas_llama_cpp::{Pooling, Sampler, Token};
use pajamas_plugin_api::{
    Cancel, EngineStats, FinishReason, GenerateSummary, Memory, PluginError, Result, SlotsInfo, TokenEvent,
    TokenSink, codes,
};

use crate::constrain::Guide;
use crate::options::PromptCache;
use counters::Counters;
pub(crate) use draft::DraftSettings;
use embed::Embedding;
use generate::Generation;
use sleep::{Bed, Door, Life};
pub(crate) use sleep::{Source, Tools};
use slots::Rack;
use work::{Ticket, Work};

/// What a worker needs to know beside its context.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Tokens of one request, prompt and answer together.
    pub context_length: u32,
    /// Requests at the same time.
    pub slots: u32,
    /// What later requests may build on.
    pub prompt_cache: PromptCache,
    /// The most prompt tokens in a batch with which other requests write.
    pub prompt_chunk: u32,
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
    /// Whether control tokens are text, too.
    pub special: bool,
    pub priority: i32,
    /// What the answer must follow.
    pub guide: Option<Guide>,
}

/// An embedding of several texts, ready for the engine.
pub(crate) struct Embed {
    pub inputs: Vec<Vec<Token>>,
    pub reduce: Reduce,
    pub normalize: bool,
}

/// What becomes of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduce {
    /// One embedding.
    Pool(Pooling),
    /// The score of the model's classification head.
    Score,
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

/// What comes through the queue.
enum Order {
    Work(Work),
    /// Sleep, unless something is in work; answered with whether it does.
    Sleep(Sender<bool>),
    Wake(Sender<Result<()>>),
    /// Go on with so many slots, or as many as are in use; answered with their number.
    Resize(u32, Sender<Result<u32>>),
}

enum Reply {
    Token(Produced),
    Done(Result<GenerateSummary>),
}

/// The queue to a worker thread. Dropping it ends the thread and frees the context.
pub(crate) struct Engine {
    queue: Option<Arc<Sender<Order>>>,
    arrivals: AtomicU64,
    asleep: Arc<AtomicBool>,
    counters: Arc<Counters>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts a worker on contexts that were made of `source`.
    ///
    /// # Errors
    /// `internal` when the system gives no thread.
    pub fn start(source: Source, tools: Tools, settings: Settings) -> Result<Self> {
        let (queue, orders) = mpsc::channel();
        let [stopping, asleep] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let counters = Arc::new(Counters::default());
        let life = Life {
            source,
            settings,
            orders,
            stopping: Arc::clone(&stopping),
            asleep: Arc::clone(&asleep),
            counters: Arc::clone(&counters),
        };
        // Whoever has the session may ask before the thread has begun.
        life.counters.slots.store(life.settings.slots, Ordering::Relaxed);
        life.counts(&tools);
        let thread =
            std::thread::Builder::new().name("pajamas-gguf".into()).spawn(move || life.live(tools)).map_err(
                |e| PluginError::new(codes::INTERNAL, format!("the engine's thread cannot be started: {e}")),
            )?;
        let (queue, arrivals) = (Some(Arc::new(queue)), AtomicU64::new(0));
        Ok(Self { queue, arrivals, asleep, counters, stopping, thread: Some(thread) })
    }

    /// Whether it sleeps.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Acquire)
    }

    /// Where it is put to sleep and woken; asleep it holds `memory`.
    pub fn bed(&self, memory: Vec<Memory>) -> Bed {
        Bed { door: self.door(), memory }
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
        let (listener, ticket) = self.ticket(cancel, request.priority);
        self.submit(Work::Generate(Box::new(Generation::new(request, ticket, reply))))?;
        deliver(&replies, &listener, sink, cancel)
    }

    /// Embeds texts: the rows of the result, one after the other.
    ///
    /// # Errors
    /// `cancelled`, those of computing; `session-poisoned` when the worker has ended.
    pub fn embed(&self, request: Embed, cancel: &Cancel) -> Result<Vec<f32>> {
        let (reply, replies) = mpsc::channel();
        let (_listener, ticket) = self.ticket(cancel, 0);
        self.submit(Work::Embed(Box::new(Embedding::new(request, ticket, reply))))?;
        replies.recv().unwrap_or_else(|_| Err(ended()))
    }

    /// How many requests it works at, at the same time, at most.
    pub fn slots(&self) -> u32 {
        self.counters.slots.load(Ordering::Relaxed)
    }

    /// Where its slots are made fewer, or as many as `info` says.
    pub fn rack(&self, info: SlotsInfo) -> Rack {
        Rack { door: self.door(), info }
    }

    fn door(&self) -> Door {
        Door(self.queue.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    /// What the engine is doing; answers at once.
    pub fn counters(&self) -> impl Fn() -> EngineStats + Send + Sync + 'static {
        let counters = Arc::clone(&self.counters);
        move || counters.snapshot()
    }

    /// The caller's end of a request, and what the request carries with it.
    fn ticket(&self, cancel: &Cancel, priority: i32) -> (Listener, Ticket) {
        let gone = Arc::new(AtomicBool::new(false));
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let stop = Stop { cancel: cancel.clone(), gone: Arc::clone(&gone) };
        (Listener(gone), Ticket { number, priority, stop })
    }

    fn submit(&self, work: Work) -> Result<()> {
        // Counted first: the worker may have taken it before this thread runs again.
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.as_ref().and_then(|queue| queue.send(Order::Work(work)).ok()).ok_or_else(ended)
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
