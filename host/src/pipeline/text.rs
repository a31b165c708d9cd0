//! Tasks of text models: the session does the work, the host prepares the prompt and passes the tokens on.

use std::ops::ControlFlow;
use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, EmbedRequest, GenerateRequest, PluginError, Prompt, Session, Signature, TokenEvent, TokenSink,
    capability,
};

use super::chat;
use super::request::{Event, Input, Message, Output, Params, StepTime};
use super::tensors::Outputs;
use crate::error::{Error, Result};

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

/// The prompt of a conversation. Special tokens are recognised in it: the template writes them.
pub fn conversation(signature: &Signature, messages: &[Message]) -> Result<Prompt> {
    let text =
        signature.text.as_ref().ok_or_else(|| Error::new("unsupported", "the model is not a text model"))?;
    let rendered = chat::render(text, messages)?;
    // A template that writes the BOS token itself must not get a second one.
    let has_bos = text.bos_token.as_deref().is_some_and(|bos| !bos.is_empty() && rendered.starts_with(bos));
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
    let inputs = match input {
        Input::Texts(texts) => texts,
        Input::Prompt(prompt) => vec![prompt],
        Input::Messages(_) | Input::Values(_) => {
            return Err(Error::new("invalid-input", "texts to embed are needed"));
        }
    };
    let request = EmbedRequest { inputs, pooling: params.pooling.clone(), normalize: params.normalize };
    let started = Instant::now();
    let mut outputs = Outputs::new(output_limit);
    let usage = session.embed(&request, &mut outputs, cancel)?;
    let embeddings = outputs
        .take("embeddings")
        .ok_or_else(|| PluginError::new("plugin-protocol", "the backend wrote no `embeddings`"))?;
    Ok((
        Output::Embeddings(embeddings, usage),
        vec![StepTime { step: "model".into(), time: started.elapsed() }],
    ))
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
