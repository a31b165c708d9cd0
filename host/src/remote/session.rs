//! Another server's model, as a session: what is asked of it is asked over HTTP.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, DeviceInfo, ENGINE_STATS, EmbedRequest, EngineStats,
    EngineStatsExtension, EventSink, Extension, FinishReason, GenerateRequest, GenerateSummary, LoadRequest,
    Memory, NamedTensor, OutputSpec, PluginError, Probe, ProgressSink, Result, Session, Signature,
    TensorSink, TextSignature, Timings, TokenEvent, TokenSink, Usage, capability,
};
use serde::Serialize;
use serde_json::Value;

use super::answer::{self, Answer, Piece};
use super::client::{Client, Exchange, Form, Told};
use super::fault::invalid;
use super::{DEVICE, FORMAT, body};
use crate::chat::Part;
use crate::chat::native::{self, Question, Said};
use crate::config::Remote;

/// Loads models that are not here: a [`Remote`] as its options is all that it needs.
pub struct RemoteBackend;

impl Backend for RemoteBackend {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: FORMAT.to_owned(),
            description: "models of other servers with OpenAI's API".to_owned(),
            formats: vec![FORMAT.to_owned()],
            precisions: Vec::new(),
            device_kinds: vec![DEVICE.to_owned()],
            capabilities: capabilities(),
            options_schema: Value::Null,
        }
    }

    fn probe(&self) -> Probe {
        let device = DeviceInfo {
            id: DEVICE.to_owned(),
            name: "another server".to_owned(),
            memory_total: 0,
            memory_free: 0,
        };
        Probe { score: 100, reason: "part of the host".to_owned(), devices: vec![device] }
    }

    fn estimate(&self, _: &LoadRequest) -> Result<Vec<Memory>> {
        Ok(Vec::new())
    }

    fn load(&self, request: &LoadRequest, _: &mut dyn ProgressSink, _: &Cancel) -> Result<Box<dyn Session>> {
        let remote: Remote = serde_json::from_value(request.options.clone())
            .map_err(|error| PluginError::new("invalid-option", format!("the remote: {error}")))?;
        Ok(Box::new(RemoteSession(Arc::new(Shared {
            model: remote.model.clone(),
            parallel: remote.parallel,
            client: Client::new(remote)?,
            busy: AtomicU32::new(0),
        }))))
    }
}

fn capabilities() -> Vec<String> {
    [capability::GENERATE, capability::EMBED, capability::CONSTRAIN, capability::INFILL, native::CAPABILITY]
        .map(str::to_owned)
        .into()
}

struct RemoteSession(Arc<Shared>);

/// What a session and its extensions share.
struct Shared {
    /// What the server calls it.
    model: String,
    parallel: u32,
    client: Client,
    /// Requests under way.
    busy: AtomicU32,
}

/// Counts a request as long as it runs.
struct Busy<'s>(&'s AtomicU32);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session for RemoteSession {
    fn signature(&self) -> Signature {
        let text = TextSignature { architecture: DEVICE.to_owned(), ..TextSignature::default() };
        Signature { capabilities: capabilities(), text: Some(text), ..Signature::default() }
    }

    fn usage(&self) -> Vec<Memory> {
        Vec::new()
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let body = body::completion(&self.0.model, request)?;
        self.0.stream("/completions", &body, cancel, &mut |piece| match piece {
            Piece::Token(Said { text, logprob, extras }) => {
                let logprob = logprob.unwrap_or(f32::NAN);
                tokens.token(TokenEvent { id: 0, text: &text, logprob, extras: &extras })
            }
            Piece::Part(_) => ControlFlow::Continue(()),
        })
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        let body = body::embeddings(&self.0.model, request)?;
        let text = self.0.whole("/embeddings", &body, cancel)?;
        let count = request.inputs.len();
        let (mut rows, size, usage) = answer::embeddings(&text, count)?;
        if request.normalize {
            rows.chunks_mut(size.max(1)).for_each(to_length_one);
        }
        let shape = [count as u64, size as u64];
        let mut views =
            outputs.allocate(&[OutputSpec { name: "embeddings", dtype: DType::F32, shape: &shape }])?;
        if let Some(view) = views.first_mut() {
            for (bytes, value) in view.bytes().chunks_exact_mut(4).zip(&rows) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(usage)
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        let shared = Arc::clone(&self.0);
        match name {
            native::EXTENSION => Some(Box::new(Chat(shared))),
            ENGINE_STATS => Some(Box::new(EngineStatsExtension(move || EngineStats {
                slots: shared.parallel,
                busy: shared.busy.load(Ordering::Relaxed),
                ..EngineStats::default()
            }))),
            _ => None,
        }
    }
}

fn to_length_one(row: &mut [f32]) {
    let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Answers conversations: the template is the server's.
struct Chat(Arc<Shared>);

impl Extension for Chat {
    fn call(
        &self,
        input: &[u8],
        _: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        _: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let question: Question = serde_json::from_slice(input)
            .map_err(|error| PluginError::invalid_input(format!("{}: {error}", native::EXTENSION)))?;
        let body = body::chat(&self.0.model, question)?;
        let summary = self.0.stream("/chat/completions", &body, cancel, &mut |piece| match piece {
            Piece::Token(said) => events.event(native::TOKEN, &json::<Said>(&said)),
            Piece::Part(part) => events.event(native::PART, &json::<Part>(&part)),
        })?;
        Ok(json(&summary))
    }
}

/// Of these types nothing can fail to be written.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Shared {
    fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }

    /// Reads a stream to its end, and tells each piece of it.
    fn stream(
        &self,
        path: &str,
        body: &Value,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<GenerateSummary> {
        let _busy = self.begin();
        let mut clock = Clock::start();
        let mut answer = Answer::default();
        let mut exchange = self.client.ask(path, body, Form::Events)?;
        loop {
            let data = match exchange.next(cancel)? {
                Told::Alive => continue,
                Told::Data(data) if data.trim() == "[DONE]" => break,
                Told::Data(data) => data,
                // Some servers end a stream without a word.
                Told::End if answer.is_finished() => {
                    exchange.keep();
                    return Ok(clock.stop(answer.end()));
                }
                Told::End => return Err(answer::interrupted()),
            };
            for piece in answer.read(&data)? {
                if let Piece::Token(_) = &piece {
                    clock.token();
                }
                if tell(piece).is_break() {
                    let (_, usage) = answer.end();
                    return Ok(clock.stop((FinishReason::Cancelled, usage)));
                }
            }
        }
        if !answer.is_finished() {
            return Err(answer::interrupted());
        }
        exchange.settle();
        Ok(clock.stop(answer.end()))
    }

    fn whole(&self, path: &str, body: &Value, cancel: &Cancel) -> Result<String> {
        let _busy = self.begin();
        let mut exchange: Exchange = self.client.ask(path, body, Form::Whole)?;
        let mut text = None;
        loop {
            match exchange.next(cancel)? {
                Told::Alive => {}
                Told::Data(data) => text = Some(data),
                Told::End => break,
            }
        }
        exchange.keep();
        text.ok_or_else(|| invalid("it is empty"))
    }
}

/// When tokens came. What of the time was waiting at the server nobody here knows.
struct Clock {
    begun: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Clock {
    fn start() -> Self {
        Self { begun: Instant::now(), first: None, last: None }
    }

    fn token(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn stop(&self, (finish_reason, usage): (FinishReason, Usage)) -> GenerateSummary {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let first = self.first.unwrap_or_else(Instant::now);
        let timings = Timings {
            queue_ms: 0.0,
            prompt_ms: ms(first - self.begun),
            decode_ms: self.last.map_or(0.0, |last| ms(last - first)),
        };
        GenerateSummary { finish_reason, stop_string: None, usage, timings }
    }
}
