//! `POST /v1/chat/completions`: OpenAI's chat API, streamed and not.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::Usage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::openai::{Turn, finish, identity, logprobs, messages, summary, usage};
use super::params::{Fields, Patience};
use super::sse::{self, Line};
use super::stream::{Piece, Running, Said, route_header};
use super::tools::Tools;
use super::{body, error};
use crate::chat::{Conversation, Part};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Outcome, Request, Route};

/// What is read of a request beside the [`Fields`] of all text. Unknown fields are ignored, as OpenAI does; wrong types
/// are refused with their path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Body {
    #[serde(default)]
    model: Option<String>,
    #[schemars(length(min = 1))]
    messages: Vec<Turn>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// How many answers are made.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16))]
    n: Option<u32>,
    #[serde(default)]
    logprobs: bool,
    /// Only with `logprobs`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    top_logprobs: Option<u32>,
}

/// Alternatives that are told of a token: OpenAI's limit.
const MOST_LOGPROBS: u32 = 20;
/// Answers to one request.
const MOST_ANSWERS: u32 = 16;

#[derive(Debug, Deserialize, JsonSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let body: Self = body::json(bytes)?;
        let invalid = |words: String| Err(Error::new("invalid-input", words));
        match body.n {
            Some(n) if !(1..=MOST_ANSWERS).contains(&n) => {
                return invalid(format!("`n` is {n}: 1 to {MOST_ANSWERS} answers are possible"));
            }
            Some(n) if n > 1 && body.stream => {
                return Err(Error::new("unsupported", "`n`: only one answer per stream is made"));
            }
            _ => {}
        }
        if body.top_logprobs.is_some_and(|n| n > MOST_LOGPROBS || !body.logprobs) {
            return invalid(format!("`top_logprobs`: 0 to {MOST_LOGPROBS}, and only with `logprobs`"));
        }
        Ok(body)
    }

    /// The conversation, with the functions that may be called.
    fn conversation(&mut self, bytes: &[u8]) -> Result<Conversation> {
        let turns = std::mem::take(&mut self.messages);
        let mut conversation = Conversation::from(messages(turns, "messages")?);
        body::json::<Tools>(bytes)?.apply(&mut conversation)?;
        Ok(conversation)
    }

    /// One request for each answer wanted: equal but for their seeds.
    fn requests(mut self, bytes: &[u8]) -> Result<Vec<Request>> {
        let mut params = Fields::params(bytes)?;
        params.logprobs = self.logprobs.then(|| self.top_logprobs.unwrap_or(0));
        let seed = params.sampling.seed;
        let conversation = self.conversation(bytes)?;
        let request = |answer: u32| {
            let mut params = params.clone();
            params.sampling.seed = seed.map(|seed| seed.wrapping_add(answer.into()));
            Request {
                task: Task::Chat,
                model: self.model.clone(),
                input: Input::Conversation(conversation.clone()),
                params,
            }
        };
        Ok((0..self.n.unwrap_or(1)).map(request).collect())
    }
}

/// The model and the conversation of a body, for those who do not answer it.
///
/// # Errors
/// `invalid-input` with the place.
pub fn conversation(bytes: &[u8]) -> Result<(Option<String>, Conversation)> {
    let mut body = Body::parse(bytes)?;
    let conversation = body.conversation(bytes)?;
    Ok((body.model, conversation))
}

/// `POST /v1/chat/completions`
pub async fn completions(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    let (streamed, with_usage) = (body.stream, body.stream_options.as_ref().is_some_and(|o| o.include_usage));
    let mut requests = body.requests(&bytes)?;
    let server = host.config().server.clone();
    let limit = Patience::limit(&bytes, &server)?;
    if streamed && let Some(request) = requests.pop() {
        let protocol = Chunks { answer: Answer::new(), with_usage, logprobs: Vec::new(), called: false };
        return sse::answer(Running::start(host, request), protocol, limit, &server).await;
    }
    let running: Vec<Running> =
        requests.into_iter().map(|request| Running::start(Arc::clone(&host), request)).collect();
    whole(running, limit).await
}

/// The fields that every object of one answer shares.
struct Answer {
    id: String,
    created: u64,
    model: String,
}

impl Answer {
    fn new() -> Self {
        let (id, created) = identity("chatcmpl-");
        Self { id, created, model: String::new() }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices })
    }

    fn chunk(&self, delta: &Value, logprobs: &Value, finish_reason: Option<&str>) -> Line {
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        Line::data(self.object("chat.completion.chunk", json!([choice])))
    }
}

async fn whole(running: Vec<Running>, limit: Duration) -> Result<Response> {
    let mut answer = Answer::new();
    let mut choices = Vec::new();
    let mut total = Usage::default();
    let (mut route, mut timings) = (String::new(), Value::Null);
    // All of them run; dropping the rest when one fails cancels them.
    for (index, running) in running.into_iter().enumerate() {
        let finished = running.finish(limit).await?;
        let summary = summary(&finished.outcome.output)?;
        answer.model.clone_from(&finished.outcome.route.model);
        route = route_header(&finished.outcome.route);
        timings = json!(summary.timings);
        total.prompt_tokens = summary.usage.prompt_tokens;
        total.cached_tokens = total.cached_tokens.max(summary.usage.cached_tokens);
        total.completion_tokens += summary.usage.completion_tokens;
        choices.push(json!({
            "index": index,
            "message": message(&finished.said),
            "logprobs": logprobs(&finished.pieces),
            "finish_reason": finish(summary.finish_reason, !finished.said.calls.is_empty()),
        }));
    }
    let mut object = answer.object("chat.completion", Value::Array(choices));
    object["usage"] = usage(&total);
    object["timings"] = timings;
    Ok(([("x-pajamas-route", route)], Json(object)).into_response())
}

/// The assistant's turn.
fn message(said: &Said) -> Value {
    let calls: Vec<Value> = said.calls.iter().map(|(name, arguments)| call(name, arguments)).collect();
    let silent = said.content.is_empty() && !calls.is_empty();
    let content = if silent { Value::Null } else { json!(said.content) };
    let mut message = json!({ "role": "assistant", "content": content });
    if !said.reasoning.is_empty() {
        message["reasoning_content"] = json!(said.reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    message
}

fn call(name: &str, arguments: &str) -> Value {
    let (id, _) = identity("call_");
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

/// What a part adds to the message.
fn delta(part: &Part) -> Value {
    match part {
        Part::Content(text) => json!({ "content": text }),
        Part::Reasoning(text) => json!({ "reasoning_content": text }),
        Part::Call { index, name } => {
            let mut call = call(name, "");
            call["index"] = json!(index);
            json!({ "tool_calls": [call] })
        }
        Part::Arguments { index, text } => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
    }
}

/// An answer in pieces.
struct Chunks {
    answer: Answer,
    with_usage: bool,
    /// The tokens that the next chunk tells of.
    logprobs: Vec<Piece>,
    called: bool,
}

impl sse::Protocol for Chunks {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.answer.model.clone_from(&route.model);
        vec![self.answer.chunk(&json!({ "role": "assistant", "content": "" }), &Value::Null, None)]
    }

    fn piece(&mut self, piece: &Piece) -> Vec<Line> {
        self.logprobs.push(piece.clone());
        Vec::new()
    }

    fn parts(&mut self, parts: &[Part]) -> Vec<Line> {
        self.called |= parts.iter().any(|part| matches!(part, Part::Call { .. }));
        let line =
            |part| self.answer.chunk(&delta(part), &logprobs(&std::mem::take(&mut self.logprobs)), None);
        parts.iter().map(line).collect()
    }

    fn end(&mut self, result: Result<Outcome>) -> Vec<Line> {
        let mut lines = match result.and_then(|outcome| summary(&outcome.output).cloned()) {
            Ok(summary) => {
                let reason = finish(summary.finish_reason, self.called);
                let rest = logprobs(&self.logprobs);
                let mut lines = vec![self.answer.chunk(&json!({}), &rest, Some(reason))];
                if self.with_usage {
                    let mut object = self.answer.object("chat.completion.chunk", json!([]));
                    object["usage"] = usage(&summary.usage);
                    object["timings"] = json!(summary.timings);
                    lines.push(Line::data(object));
                }
                lines
            }
            Err(error) => vec![Line::data(error::body(&error))],
        };
        lines.push(Line::data("[DONE]"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Request> {
        Ok(Body::parse(text.as_bytes())?.requests(text.as_bytes())?.remove(0))
    }

    #[test]
    fn reads_what_clients_send() {
        let request = request(
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
                "max_completion_tokens":5,"temperature":0,"stop":"x","logit_bias":{"7":-100},"user":"someone"}"#,
        )
        .unwrap();
        let Input::Conversation(conversation) = &request.input else { panic!("messages were sent") };
        assert_eq!(conversation.messages[0].content, "ab");
        assert_eq!((request.params.max_tokens, request.params.sampling.temperature), (Some(5), 0.0));
        assert_eq!(request.params.stop, ["x"]);
        assert_eq!(request.params.sampling.logit_bias, [(7, -100.0)]);
    }

    #[test]
    fn refuses_with_the_place() {
        for (body, place) in [
            ("{", "line 1"),
            (r#"{"messages":[]}"#, "`messages`"),
            (r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, "messages[0]"),
            (r#"{"messages":[{"role":"user","content":"a"}],"n":99}"#, "`n`"),
            (r#"{"messages":[{"role":"user","content":"a"}],"logit_bias":{"x":1}}"#, "logit_bias.x"),
        ] {
            let error = request(body).unwrap_err();
            assert!(error.message().contains(place), "{body}: {error}");
        }
    }
}
