//! `POST /v1/chat/completions`: OpenAI's chat API, streamed and not.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{GenerateSummary, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::openai::{StreamOptions, Turn, answers, finish, identity, logprobs, messages, summary, usage};
use super::params::{Fields, Patience};
use super::sse::{self, Line};
use super::stream::{Awaited, Piece, Running, Said, route_header};
use super::tools::Tools;
use super::{body, error};
use crate::chat::{Conversation, Part};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Request, Route};

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

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let body: Self = body::json(bytes)?;
        answers(body.n)?;
        if body.top_logprobs.is_some_and(|n| n > MOST_LOGPROBS || !body.logprobs) {
            let words = format!("`top_logprobs`: 0 to {MOST_LOGPROBS}, and only with `logprobs`");
            return Err(Error::new("invalid-input", words));
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
        let conversation = self.conversation(bytes)?;
        let request = |answer| Request {
            task: Task::Chat,
            model: self.model.clone(),
            input: Input::Conversation(conversation.clone()),
            params: params.for_answer(answer),
        };
        Ok((0..answers(self.n)?).map(request).collect())
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

/// The request in a body of `POST /v1/chat/completions`; of several answers the first.
///
/// # Errors
/// `invalid-input` with the place.
pub fn request(bytes: &[u8]) -> Result<Request> {
    let mut requests = Body::parse(bytes)?.requests(bytes)?;
    requests.truncate(1);
    requests.pop().ok_or_else(|| Error::new("invalid-input", "`n` is 0: 1 to 16 answers are possible"))
}

/// `POST /v1/chat/completions`
pub async fn completions(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    let (streamed, with_usage) = (body.stream, body.stream_options.as_ref().is_some_and(|o| o.include_usage));
    let requests = body.requests(&bytes)?;
    let limit = Patience::limit(&bytes, &host.config().server)?;
    if streamed {
        let protocol = Chunks::new(requests.len(), with_usage);
        let running = requests.into_iter().map(|request| Running::start(Arc::clone(&host), request));
        return sse::answer(running, protocol, limit).await;
    }
    whole(requests.into_iter().map(|request| Awaited::start(Arc::clone(&host), request)).collect(), limit)
        .await
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

    fn chunk(&self, index: usize, delta: &Value, logprobs: &Value, finish_reason: Option<&str>) -> Line {
        let choice =
            json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
        Line::data(self.object("chat.completion.chunk", json!([choice])))
    }
}

async fn whole(running: Vec<Awaited>, limit: Duration) -> Result<Response> {
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
        add(&mut total, summary.usage);
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

/// Counts one more answer to the same prompt.
fn add(total: &mut Usage, answer: Usage) {
    total.prompt_tokens = answer.prompt_tokens;
    total.cached_tokens = total.cached_tokens.max(answer.cached_tokens);
    total.completion_tokens = total.completion_tokens.saturating_add(answer.completion_tokens);
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

/// Answers in pieces.
struct Chunks {
    answer: Answer,
    choices: Vec<Choice>,
    with_usage: bool,
    total: Usage,
    timings: Value,
}

/// One of the answers.
#[derive(Clone, Default)]
struct Choice {
    /// The tokens that the next chunk tells of.
    logprobs: Vec<Piece>,
    called: bool,
}

impl Chunks {
    fn new(answers: usize, with_usage: bool) -> Self {
        let (choices, total) = (vec![Choice::default(); answers], Usage::default());
        Self { answer: Answer::new(), choices, with_usage, total, timings: Value::Null }
    }
}

impl sse::Protocol for Chunks {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.answer.model.clone_from(&route.model);
        let first = json!({ "role": "assistant", "content": "" });
        (0..self.choices.len()).map(|index| self.answer.chunk(index, &first, &Value::Null, None)).collect()
    }

    fn piece(&mut self, answer: usize, piece: &Piece) -> Vec<Line> {
        self.choices[answer].logprobs.push(piece.clone());
        Vec::new()
    }

    fn parts(&mut self, answer: usize, parts: &[Part]) -> Vec<Line> {
        let choice = &mut self.choices[answer];
        choice.called |= parts.iter().any(|part| matches!(part, Part::Call { .. }));
        let mut line = |part| {
            let logprobs = logprobs(&std::mem::take(&mut choice.logprobs));
            self.answer.chunk(answer, &delta(part), &logprobs, None)
        };
        parts.iter().map(&mut line).collect()
    }

    fn end(&mut self, answer: usize, summary: &GenerateSummary) -> Vec<Line> {
        add(&mut self.total, summary.usage);
        self.timings = json!(summary.timings);
        let choice = &self.choices[answer];
        let reason = finish(summary.finish_reason, choice.called);
        vec![self.answer.chunk(answer, &json!({}), &logprobs(&choice.logprobs), Some(reason))]
    }

    fn fail(&mut self, refused: &Error) -> Vec<Line> {
        self.with_usage = false;
        vec![Line::data(error::body(refused))]
    }

    fn close(&mut self) -> Vec<Line> {
        let usage = self.with_usage.then(|| {
            let mut object = self.answer.object("chat.completion.chunk", json!([]));
            object["usage"] = usage(&self.total);
            object["timings"] = self.timings.clone();
            Line::data(object)
        });
        usage.into_iter().chain([Line::data("[DONE]")]).collect()
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
