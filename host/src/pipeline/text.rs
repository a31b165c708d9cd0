//! Tasks of text models: the session does the work, the host prepares the prompt and passes the tokens on.

use std::ops::ControlFlow;
use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, EmbedRequest, GenerateRequest, PluginError, Prompt, Session, Signature, TokenEvent, TokenSink,
    Usage, capability,
};

use super::chat;
use super::request::{Event, Input, Message, Output, Params, StepTime};
use super::tensors::Outputs;
use crate::error::{Error, Result};
use crate::value::Tensor;

/// Generates a text: continues a prompt, or answers a conversation.
pub fn generate(
    session: &dyn Session,
    signature: &Signature,
    input: Input,
    params: &Params,
    events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    cancel: &Cancel,
) -> Result<(Output, Vec<StepTime>)> {
    let prompt = match input {
        Input::Prompt(prompt) => prompt,
        Input::Messages(messages) => conversation(signature, &messages)?,
        Input::Texts(_) | Input::Values(_) => {
            return Err(Error::new("invalid-input", "a prompt or messages are needed"));
        }
    };
    let request = GenerateRequest {
        prompt,
        max_tokens: params.max_tokens,
        sampling: params.sampling.clone(),
        stop: params.stop.clone(),
        logprobs: params.logprobs,
        ignore_eos: params.ignore_eos,
        constraint: params.constraint.clone(),
        priority: params.priority,
        options: params.options.clone(),
    };
    let started = Instant::now();
    let mut tokens = Tokens { events, with_logprob: params.logprobs.is_some() };
    let summary = session.generate(&request, &mut tokens, cancel)?;
    Ok((Output::Text(summary), vec![StepTime { step: "model".into(), time: started.elapsed() }]))
}

/// What the model's template makes of a conversation.
pub fn rendered(signature: &Signature, messages: &[Message]) -> Result<String> {
    let text =
        signature.text.as_ref().ok_or_else(|| Error::new("unsupported", "the model is not a text model"))?;
    chat::render(text, messages)
}

/// The prompt of a conversation. Special tokens are recognised in it: the template writes them.
pub fn conversation(signature: &Signature, messages: &[Message]) -> Result<Prompt> {
    let rendered = rendered(signature, messages)?;
    // A template that writes the BOS token itself must not get a second one.
    let bos = signature.text.as_ref().and_then(|text| text.bos_token.as_deref());
    let has_bos = bos.is_some_and(|bos| !bos.is_empty() && rendered.starts_with(bos));
    Ok(Prompt::Text { text: rendered, add_special: !has_bos, parse_special: true })
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
    let (embeddings, usage, step) = vectors(session, &request, "embeddings", output_limit, cancel)?;
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
    let (scores, usage, step) = vectors(session, &request, "scores", output_limit, cancel)?;
    Ok((Output::Scores(scores.as_f32().unwrap_or_default().to_vec(), usage), vec![step]))
}

fn texts(input: Input) -> Result<Vec<Prompt>> {
    match input {
        Input::Texts(texts) => Ok(texts),
        Input::Prompt(prompt) => Ok(vec![prompt]),
        Input::Messages(_) | Input::Values(_) => Err(Error::new("invalid-input", "texts are needed")),
    }
}

fn vectors(
    session: &dyn Session,
    request: &EmbedRequest,
    name: &str,
    output_limit: u64,
    cancel: &Cancel,
) -> Result<(Tensor, Usage, StepTime)> {
    let started = Instant::now();
    let mut outputs = Outputs::new(output_limit);
    let usage = session.embed(request, &mut outputs, cancel)?;
    let tensor = outputs
        .take(name)
        .ok_or_else(|| PluginError::new("plugin-protocol", format!("the backend wrote no `{name}`")))?;
    Ok((tensor, usage, StepTime { step: "model".into(), time: started.elapsed() }))
}

/// Tokens of the session, as events of the host.
struct Tokens<'e> {
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    with_logprob: bool,
}

impl TokenSink for Tokens<'_> {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        (self.events)(Event::Token {
            id: event.id,
            text: event.text,
            logprob: self.with_logprob.then_some(event.logprob),
            extras: event.extras,
        })
    }
}
