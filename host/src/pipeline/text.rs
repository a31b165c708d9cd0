//! Tasks of text models: the session does the work, the host prepares the prompt and passes the tokens on.

use std::ops::ControlFlow;
use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, DType, EmbedRequest, EventSink, GenerateRequest, PluginError, Prompt, Session, Signature,
    TextSignature, TokenEvent, TokenSink, Usage, capability, codes,
};
use serde::de::DeserializeOwned;

use super::request::{Event, Input, Output, Params, StepTime};
use super::room::Room;
use super::tensors::Outputs;
use crate::chat::native::{self, Question, Said};
use crate::chat::{self, Conversation, Part, Reader};
use crate::error::{Error, Result};
use crate::value::Tensor;

/// Generates a text: continues a prompt, or answers a conversation.
pub fn generate(
    session: &dyn Session,
    signature: &Signature,
    input: Input,
    params: &Params,
    output_limit: u64,
    events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    cancel: &Cancel,
) -> Result<(Output, Vec<StepTime>)> {
    let mut request = GenerateRequest {
        max_tokens: params.max_tokens,
        sampling: params.sampling.clone(),
        stop: params.stop.clone(),
        logprobs: params.logprobs,
        ignore_eos: params.ignore_eos,
        constraint: params.constraint.clone(),
        priority: params.priority.unwrap_or(0),
        options: params.options.clone(),
        ..GenerateRequest::new(Prompt::text(""))
    };
    let reader = match input {
        Input::Prompt(prompt) => {
            request.prompt = prompt;
            None
        }
        Input::Conversation(conversation) if answers_itself(signature) => {
            let question = Question::new(&conversation, request);
            let room = Room::new(None, None, output_limit);
            let told = Told { events, with_logprob: params.logprobs.is_some(), unreadable: None, room };
            return answer(session, &question, told, cancel);
        }
        Input::Conversation(conversation) => {
            let answer = chat::begin(text(signature)?, &conversation, params.constraint.is_some())?;
            request.prompt = prompt(signature, answer.prompt);
            request.special = answer.special;
            request.stop.extend(answer.stop);
            let constrains = signature.capabilities.iter().any(|c| c == capability::CONSTRAIN);
            request.constraint = request.constraint.or(answer.constraint.filter(|_| constrains));
            Some(answer.reader)
        }
        Input::Texts(_) | Input::Values(_) => {
            return Err(Error::new("invalid-input", "a prompt or messages are needed"));
        }
    };
    let started = Instant::now();
    let context = signature.text.as_ref().map(|text| text.context_length);
    let room = Room::new(request.max_tokens, context, output_limit);
    let mut tokens = Tokens { events, with_logprob: params.logprobs.is_some(), reader, room };
    let summary = session.generate(&request, &mut tokens, cancel);
    // Asked to stop, it may say that it was cancelled: here is why.
    tokens.room.check()?;
    let summary = summary?;
    tokens.room.check_usage(&summary.usage)?;
    tokens.finish();
    Ok((Output::Text(summary), vec![StepTime { step: "model".into(), time: started.elapsed() }]))
}

/// Whether a session answers conversations by itself.
fn answers_itself(signature: &Signature) -> bool {
    signature.capabilities.iter().any(|capability| capability == native::CAPABILITY)
}

/// Has a session answer a conversation by itself.
fn answer(
    session: &dyn Session,
    question: &Question,
    mut told: Told<'_>,
    cancel: &Cancel,
) -> Result<(Output, Vec<StepTime>)> {
    let protocol = |what: &str| PluginError::new(codes::PROTOCOL, format!("{}: {what}", native::EXTENSION));
    let extension = session
        .extension(native::EXTENSION)
        .ok_or_else(|| protocol("the session has the capability and not the extension"))?;
    let started = Instant::now();
    let input = serde_json::to_vec(question).map_err(|error| protocol(&error.to_string()))?;
    let summary = extension.call(&input, &[], &mut told, &mut Outputs::new(0), cancel);
    told.room.check()?;
    let summary = summary?;
    if let Some(what) = told.unreadable {
        return Err(protocol(&what).into());
    }
    let summary = serde_json::from_slice(&summary).map_err(|error| protocol(&error.to_string()))?;
    Ok((Output::Text(summary), vec![StepTime { step: "model".into(), time: started.elapsed() }]))
}

/// Events of a session that answers by itself, as events of the host.
struct Told<'e> {
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    with_logprob: bool,
    /// What could not be read.
    unreadable: Option<String>,
    room: Room,
}

impl Told<'_> {
    fn read<T: DeserializeOwned>(&mut self, payload: &[u8]) -> Option<T> {
        serde_json::from_slice(payload).map_err(|error| self.unreadable = Some(error.to_string())).ok()
    }
}

impl EventSink for Told<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        if !self.room.take(payload.len()) {
            return ControlFlow::Break(());
        }
        match name {
            native::TOKEN => {
                let Some(Said { text, logprob, extras }) = self.read(payload) else {
                    return ControlFlow::Break(());
                };
                let logprob = self.with_logprob.then(|| logprob.unwrap_or(f32::NAN));
                (self.events)(Event::Token { id: 0, text: &text, logprob, extras: &extras })
            }
            native::PART => {
                let Some(part) = self.read(payload) else { return ControlFlow::Break(()) };
                (self.events)(Event::Parts(&[part]))
            }
            // Names may be added.
            _ => ControlFlow::Continue(()),
        }
    }
}

fn text(signature: &Signature) -> Result<&TextSignature> {
    signature.text.as_ref().ok_or_else(|| Error::new("unsupported", "the model is not a text model"))
}

/// What the model's template makes of a conversation, with the beginning of the answer.
pub fn rendered(signature: &Signature, conversation: &Conversation) -> Result<String> {
    Ok(chat::begin(text(signature)?, conversation, false)?.prompt)
}

/// The prompt of a conversation.
pub fn conversation(signature: &Signature, conversation: &Conversation) -> Result<Prompt> {
    Ok(prompt(signature, rendered(signature, conversation)?))
}

/// A text that a template wrote. Special tokens are recognised in it.
fn prompt(signature: &Signature, text: String) -> Prompt {
    // A template that writes the BOS token itself must not get a second one.
    let bos = signature.text.as_ref().and_then(|text| text.bos_token.as_deref());
    let has_bos = bos.is_some_and(|bos| !bos.is_empty() && text.starts_with(bos));
    Prompt::Text { text, add_special: !has_bos, parse_special: true }
}

/// Embeds texts.
pub fn embed(
    session: &dyn Session,
    signature: &Signature,
    input: Input,
    params: &Params,
    output_limit: u64,
    cancel: &Cancel,
) -> Result<(Output, Vec<StepTime>)> {
    if !signature.capabilities.iter().any(|c| c == capability::EMBED) {
        return Err(Error::new("unsupported", "the model's backend does not make embeddings"));
    }
    let request =
        EmbedRequest { inputs: texts(input)?, pooling: params.pooling.clone(), normalize: params.normalize };
    let (embeddings, usage, step) = vectors(session, &request, ("embeddings", 2), output_limit, cancel)?;
    Ok((Output::Embeddings(embeddings, usage), vec![step]))
}

/// Scores pairs of texts.
pub fn rerank(
    session: &dyn Session,
    signature: &Signature,
    input: Input,
    output_limit: u64,
    cancel: &Cancel,
) -> Result<(Output, Vec<StepTime>)> {
    if !signature.capabilities.iter().any(|c| c == capability::RERANK) {
        return Err(Error::new("unsupported", "the model does not score pairs of texts: it is no reranker")
            .help("choose a model that was trained to rerank"));
    }
    let request = EmbedRequest { inputs: texts(input)?, pooling: Some("rank".into()), normalize: false };
    let (scores, usage, step) = vectors(session, &request, ("scores", 1), output_limit, cancel)?;
    Ok((Output::Scores(scores.as_f32().unwrap_or_default().to_vec(), usage), vec![step]))
}

fn texts(input: Input) -> Result<Vec<Prompt>> {
    match input {
        Input::Texts(texts) => Ok(texts),
        Input::Prompt(prompt) => Ok(vec![prompt]),
        Input::Conversation(_) | Input::Values(_) => Err(Error::new("invalid-input", "texts are needed")),
    }
}

/// One row for each text, in an output of this name and of so many dimensions.
fn vectors(
    session: &dyn Session,
    request: &EmbedRequest,
    (name, dimensions): (&str, usize),
    output_limit: u64,
    cancel: &Cancel,
) -> Result<(Tensor, Usage, StepTime)> {
    let started = Instant::now();
    let mut outputs = Outputs::new(output_limit);
    let usage = session.embed(request, &mut outputs, cancel)?;
    let tensor = outputs
        .take(name)
        .ok_or_else(|| PluginError::new(codes::OUTPUT_MISSING, format!("the backend wrote no `{name}`")))?;
    let (shape, count) = (tensor.shape(), request.inputs.len() as u64);
    if tensor.dtype() != DType::F32 || shape.len() != dimensions || shape[0] != count {
        let why = format!("the backend wrote `{name}` as {} {shape:?} for {count} text(s)", tensor.dtype());
        return Err(PluginError::new(codes::OUTPUT_MISMATCH, why).into());
    }
    Ok((tensor, usage, StepTime { step: "model".into(), time: started.elapsed() }))
}

/// Tokens of the session, as events of the host.
struct Tokens<'e> {
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    with_logprob: bool,
    /// Reads the answer to a conversation.
    reader: Option<Reader>,
    room: Room,
}

impl TokenSink for Tokens<'_> {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        if !self.room.take(event.text.len() + event.extras.len()) {
            return ControlFlow::Break(());
        }
        (self.events)(Event::Token {
            id: event.id,
            text: event.text,
            logprob: self.with_logprob.then_some(event.logprob),
            extras: event.extras,
        })?;
        match &mut self.reader {
            Some(reader) => {
                let parts = reader.push(event.text);
                self.tell(&parts)
            }
            None => ControlFlow::Continue(()),
        }
    }
}

impl Tokens<'_> {
    /// Tells what the reader held back.
    fn finish(&mut self) {
        if let Some(reader) = &mut self.reader {
            let parts = reader.finish();
            // There is nothing more to stop.
            let _ = self.tell(&parts);
        }
    }

    fn tell(&mut self, parts: &[Part]) -> ControlFlow<()> {
        if parts.is_empty() { ControlFlow::Continue(()) } else { (self.events)(Event::Parts(parts)) }
    }
}
