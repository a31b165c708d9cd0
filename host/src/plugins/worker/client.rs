//! The host's half: a backend whose models live in workers, and their sessions.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, EmbedRequest, EventSink, Extension, FinishReason, GenerateRequest,
    GenerateSummary, InferRequest, LoadRequest, Memory, NamedTensor, OutputSpec, Probe, ProgressSink, Prompt,
    Result, Session, SharedTensor, Signature, TensorSink, Token, TokenSink, Usage,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::link::{Call, Link};
use super::protocol::{Message, Part, Tensors, VERSION, WINDOW, broken, decode_token};
use super::shared::put;
use super::wire::Incoming;
use crate::config::Patience;

/// How often a call that waits looks whether it was cancelled.
const POLL: Duration = Duration::from_millis(10);

/// Bytes of an output that is not copied. Small ones may be kept for long, and would keep a whole piece of the worker's
/// memory.
const WORTH_SHARING: usize = 64 << 10;

/// What a worker is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The plugin's name.
    pub plugin: String,
    /// Its folder or library.
    pub path: PathBuf,
    /// Whether a manifest with a hash is insisted on.
    pub require_hash: bool,
    /// The operator's settings for it.
    pub settings: Value,
    /// How long a worker may take for what.
    pub patience: Patience,
}

/// A backend that loads each model in a process of its own.
pub struct WorkerBackend {
    recipe: Recipe,
    info: BackendInfo,
    probe: Probe,
    /// A worker that estimated: the load that usually follows takes it over.
    spare: Mutex<Option<Arc<Worker>>>,
}

struct Worker {
    link: Link,
    patience: Patience,
}

impl WorkerBackend {
    /// The backend that was described as `info` and probed as `probe`. Starts nothing yet.
    pub fn new(recipe: Recipe, info: BackendInfo, probe: Probe) -> Self {
        Self { recipe, info, probe, spare: Mutex::default() }
    }

    fn worker(&self, cancel: &Cancel) -> Result<Arc<Worker>> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = spare.filter(|worker| worker.link.is_alive()) {
            return Ok(worker);
        }
        let recipe = &self.recipe;
        let link = Link::start(&recipe.plugin, recipe.patience)?;
        let worker = Arc::new(Worker { link, patience: recipe.patience });
        let open = Message::Open {
            version: VERSION,
            plugin: recipe.path.clone(),
            require_hash: recipe.require_hash,
            settings: recipe.settings.clone(),
            backend: self.info.id.clone(),
        };
        worker.ask::<()>(&open, &[], &[], &mut Sinks::new(cancel))?;
        Ok(worker)
    }
}

impl Backend for WorkerBackend {
    fn describe(&self) -> BackendInfo {
        self.info.clone()
    }

    fn probe(&self) -> Probe {
        self.probe.clone()
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        let cancel = Cancel::new();
        let worker = self.worker(&cancel)?;
        let message = Message::Estimate(request.clone());
        let (estimate, _) = worker.ask(&message, &[], &[], &mut Sinks::new(&cancel))?;
        let before = self.spare.lock().unwrap_or_else(PoisonError::into_inner).replace(worker);
        // Ended without the lock: that takes a moment.
        drop(before);
        Ok(estimate)
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let worker = self.worker(cancel)?;
        let mut sinks = Sinks { progress: Some(progress), ..Sinks::new(cancel) };
        let (signature, _) = worker.ask(&Message::Load(request.clone()), &[], &[], &mut sinks)?;
        tracing::info!(plugin = self.recipe.plugin, pid = worker.link.pid, "a worker holds the model");
        Ok(Box::new(WorkerSession { worker, signature }))
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        self.worker(&Cancel::new()).ok()?.find(false, name)
    }
}

/// A model in a worker. Dropping it ends the process.
struct WorkerSession {
    worker: Arc<Worker>,
    signature: Signature,
}

impl WorkerSession {
    fn ask<T: DeserializeOwned>(&self, message: &Message, sinks: &mut Sinks<'_>) -> Result<T> {
        self.worker.ask(message, &[], &[], sinks).map(|(value, _)| value)
    }
}

impl Session for WorkerSession {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    fn usage(&self) -> Vec<Memory> {
        self.ask(&Message::Usage, &mut Sinks::new(&Cancel::new())).unwrap_or_default()
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut sinks = Sinks { outputs: Some(outputs), ..Sinks::new(cancel) };
        // The memory of the inputs is named when it is known.
        let message = Message::Infer(request.clone(), Tensors::default());
        self.worker.ask(&message, &[], inputs, &mut sinks).map(|((), _)| ())
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let mut sinks = Sinks { tokens: Some(tokens), ..Sinks::new(cancel) };
        let mut summary: GenerateSummary =
            self.ask(&Message::Generate(Box::new(request.clone())), &mut sinks)?;
        // What was on its way when the caller had enough was never given to it.
        if sinks.stopped {
            summary.finish_reason = FinishReason::Cancelled;
            summary.stop_string = None;
            summary.usage.completion_tokens = summary.usage.completion_tokens.min(sinks.taken);
        }
        Ok(summary)
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        let mut sinks = Sinks { outputs: Some(outputs), ..Sinks::new(cancel) };
        self.ask(&Message::Embed(request.clone()), &mut sinks)
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        self.ask(&Message::Tokenize(prompt.clone()), &mut Sinks::new(&Cancel::new()))
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String> {
        self.ask(&Message::Detokenize(tokens.to_vec()), &mut Sinks::new(&Cancel::new()))
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        self.worker.find(true, name)
    }
}

/// An extension that a worker holds.
struct WorkerExtension {
    worker: Arc<Worker>,
    number: u64,
}

impl Extension for WorkerExtension {
    fn call(
        &self,
        input: &[u8],
        tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let mut sinks = Sinks { events: Some(events), outputs: Some(outputs), ..Sinks::new(cancel) };
        let message = Message::Call(self.number, Tensors::default());
        self.worker.ask::<()>(&message, input, tensors, &mut sinks).map(|((), result)| result)
    }
}

impl Drop for WorkerExtension {
    fn drop(&mut self) {
        self.worker.link.tell(0, &Message::Drop(self.number));
    }
}

/// Where what a call brings goes.
struct Sinks<'s> {
    tokens: Option<&'s mut dyn TokenSink>,
    events: Option<&'s mut dyn EventSink>,
    progress: Option<&'s mut dyn ProgressSink>,
    outputs: Option<&'s mut dyn TensorSink>,
    cancel: &'s Cancel,
    /// Whether the caller has enough.
    stopped: bool,
    /// Tokens and events that it took.
    taken: u32,
}

impl<'s> Sinks<'s> {
    const fn new(cancel: &'s Cancel) -> Self {
        Self { tokens: None, events: None, progress: None, outputs: None, cancel, stopped: false, taken: 0 }
    }
}

impl Worker {
    fn find(self: &Arc<Self>, of_session: bool, name: &str) -> Option<Box<dyn Extension>> {
        let message = Message::Find { of_session, name: name.to_owned() };
        let (number, _) =
            self.ask::<Option<u64>>(&message, &[], &[], &mut Sinks::new(&Cancel::new())).ok()?;
        Some(Box::new(WorkerExtension { worker: Arc::clone(self), number: number? }))
    }

    /// Carries one call out: what comes goes to the sinks, until its end. Gives the result, and the blob with it.
    fn ask<T: DeserializeOwned>(
        &self,
        message: &Message,
        blob: &[u8],
        inputs: &[NamedTensor<'_>],
        sinks: &mut Sinks<'_>,
    ) -> Result<(T, Vec<u8>)> {
        let link = &self.link;
        let (slab, message) = match put(link.inputs().pool(), inputs)? {
            None => (None, message.clone()),
            Some((slab, tensors)) => {
                let message = match message.clone() {
                    Message::Infer(request, _) => Message::Infer(request, tensors),
                    Message::Call(number, _) => Message::Call(number, tensors),
                    other => other,
                };
                (Some(slab), message)
            }
        };
        let early = sinks.cancel.is_cancelled();
        let message = if early { Message::Cancelled(Box::new(message)) } else { message };
        let call = link.call(&message, blob, slab)?;
        let (value, blob) = self.follow(&call, sinks, early)?;
        let value = serde_json::from_value(value).map_err(|error| broken(error.to_string()))?;
        Ok((value, blob))
    }

    fn follow(&self, call: &Call<'_>, sinks: &mut Sinks<'_>, early: bool) -> Result<(Value, Vec<u8>)> {
        let mut last = Instant::now();
        let mut told = early.then(Instant::now);
        sinks.stopped |= early;
        let mut owed = 0;
        // Outputs that were refused: the call ends with this, whatever the worker says.
        let mut refused = None;
        loop {
            let incoming = call.next(POLL)?;
            let ends = |came: &Incoming| matches!(came.message, Some(Message::Done(..) | Message::Failed(_)));
            let ended = incoming.as_ref().is_some_and(ends);
            if told.is_none() && !ended && (sinks.stopped || sinks.cancel.is_cancelled()) {
                sinks.stopped = true;
                call.tell(&Message::Cancel);
                told = Some(Instant::now());
            }
            let Some(Incoming { message, blob, file, .. }) = incoming else {
                self.lose_patience(told, last);
                continue;
            };
            last = Instant::now();
            let flow = match message {
                None => sinks.token(&blob)?,
                Some(Message::Event(name)) => sinks.event(&name, &blob),
                Some(Message::Progress { fraction, what }) => sinks.progress(fraction, &what),
                Some(Message::Allocate(parts)) => {
                    let verdict = sinks.allocate(&parts);
                    call.tell(&Message::Verdict(verdict.map_err(Into::into)));
                    continue;
                }
                Some(Message::Output(tensors)) => {
                    refused = refused.or(self.write(&tensors, file, sinks).err());
                    continue;
                }
                Some(Message::Done(value, tensors)) => {
                    refused = refused.or(self.write(&tensors, file, sinks).err());
                    return refused.map_or(Ok((value, blob)), Err);
                }
                Some(Message::Failed(failure)) => return Err(refused.unwrap_or_else(|| failure.into())),
                Some(other) => return Err(broken(format!("a call is not answered with {other:?}"))),
            };
            sinks.stopped |= flow.is_break();
            owed += 1;
            if owed == WINDOW / 4 {
                call.tell(&Message::Credit(owed));
                owed = 0;
            }
        }
    }

    /// Kills a worker that goes on after it was told to stop, or is silent for too long.
    fn lose_patience(&self, told: Option<Instant>, last: Instant) {
        let [after_cancel, silent] = [self.patience.cancel, self.patience.silence].map(|p| p.duration());
        if told.is_some_and(|told| told.elapsed() > after_cancel) {
            self.link.kill(&format!("a request went on for {after_cancel:?} after it was cancelled"));
        } else if last.elapsed() > silent {
            self.link.kill(&format!("nothing came of a request for {silent:?}"));
        }
    }

    /// Outputs from the worker's memory to the caller: large ones as they lie there, small ones copied.
    fn write(
        &self,
        tensors: &Tensors,
        file: Option<std::os::fd::OwnedFd>,
        sinks: &mut Sinks<'_>,
    ) -> Result<()> {
        let Some(loan) = self.link.outputs(tensors, file)?.map(Arc::new) else { return Ok(()) };
        let sink = sinks.outputs()?;
        for part in &tensors.parts {
            let view = loan.tensor(part)?;
            if view.bytes().len() < WORTH_SHARING {
                sink.write(&part.name, view)?;
            } else {
                let (shape, memory) = (part.shape.clone(), loan.clone());
                sink.share(&part.name, SharedTensor::new(part.dtype, shape, memory, part.offset as usize)?)?;
            }
        }
        Ok(())
    }
}

fn specs(parts: &[Part]) -> Vec<OutputSpec<'_>> {
    parts.iter().map(|part| OutputSpec { name: &part.name, dtype: part.dtype, shape: &part.shape }).collect()
}

impl Sinks<'_> {
    fn token(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>> {
        let event = decode_token(bytes)?;
        let Some(tokens) = self.tokens.as_mut().filter(|_| !self.stopped) else {
            return Ok(ControlFlow::Break(()));
        };
        self.taken += 1;
        Ok(tokens.token(event))
    }

    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        match self.events.as_mut().filter(|_| !self.stopped) {
            Some(events) => events.event(name, payload),
            None => ControlFlow::Break(()),
        }
    }

    fn progress(&mut self, fraction: f32, what: &str) -> ControlFlow<()> {
        match self.progress.as_mut().filter(|_| !self.stopped) {
            Some(progress) => progress.progress(fraction, what),
            None => ControlFlow::Break(()),
        }
    }

    fn outputs(&mut self) -> Result<&mut dyn TensorSink> {
        match self.outputs.as_mut() {
            Some(outputs) => Ok(&mut **outputs),
            None => Err(broken("outputs that nobody asked for".to_owned())),
        }
    }

    fn allocate(&mut self, parts: &[Part]) -> Result<()> {
        self.outputs()?.allocate(&specs(parts)).map(drop)
    }
}
