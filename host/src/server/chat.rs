//! `POST /v1/chat/completions`: OpenAI's chat API, streamed and not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{FinishReason, GenerateSummary, Usage};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::params::Fields;
use super::stream::{Happened, Piece, Running, route_header};
use super::{body, error};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Message, Outcome, Output, Request};

/// What is read of a request beside the [`Fields`] of all text. Unknown fields are ignored, as OpenAI does; wrong types
/// are refused with their path.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    model: Option<String>,
    messages: Vec<Turn>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    logprobs: bool,
    #[serde(default)]
    top_logprobs: Option<u32>,
}

/// Alternatives that are told of a token: OpenAI's limit.
const MOST_LOGPROBS: u32 = 20;
/// Answers to one request.
const MOST_ANSWERS: u32 = 16;

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Turn {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
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
        if body.messages.is_empty() {
            return invalid("`messages` is empty".into());
        }
        Ok(body)
    }

    /// One request for each answer wanted: equal but for their seeds.
    fn requests(self, bytes: &[u8]) -> Result<Vec<Request>> {
        let mut params = Fields::params(bytes)?;
        params.logprobs = self.logprobs.then(|| self.top_logprobs.unwrap_or(0));
        let seed = params.sampling.seed;
        let messages = messages(self.messages)?;
        let request = |answer: u32| {
            let mut params = params.clone();
            params.sampling.seed = seed.map(|seed| seed.wrapping_add(answer.into()));
            Request {
                task: Task::Chat,
                model: self.model.clone(),
                input: Input::Messages(messages.clone()),
                params,
            }
        };
        Ok((0..self.n.unwrap_or(1)).map(request).collect())
    }
}

fn messages(turns: Vec<Turn>) -> Result<Vec<Message>> {
    turns.into_iter().enumerate().map(|(i, turn)| turn.message(i)).collect()
}

/// The model and the conversation of a body, for those who do not answer it.
///
/// # Errors
/// `invalid-input` with the place.
pub fn conversation(bytes: &[u8]) -> Result<(Option<String>, Vec<Message>)> {
    let body = Body::parse(bytes)?;
    Ok((body.model, messages(body.messages)?))
}

impl Turn {
    fn message(self, index: usize) -> Result<Message> {
        let content = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => parts
                .into_iter()
                .map(|part| match (part.kind.as_str(), part.text) {
                    ("text", Some(text)) => Ok(text),
                    (kind, _) => Err(Error::new(
                        "unsupported",
                        format!(
                            "`messages[{index}].content`: parts of type `{kind}` are not read, only `text`"
                        ),
                    )),
                })
                .collect::<Result<_>>()?,
        };
        Ok(Message::new(self.role, content))
    }
}

/// The fields that every object of one answer shares.
struct Answer {
    id: String,
    created: u64,
    model: String,
}

impl Answer {
    fn new(model: Option<&str>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("chatcmpl-{:x}{:x}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { id, created: now.as_secs(), model: model.unwrap_or_default().to_owned() }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices })
    }

    fn chunk(&self, delta: &Value, finish_reason: Option<FinishReason>) -> Value {
        let choice =
            json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish(finish_reason) });
        self.object("chat.completion.chunk", json!([choice]))
    }
}

/// OpenAI's word for why an answer ended.
pub fn finish(reason: Option<FinishReason>) -> Option<&'static str> {
    match reason? {
        FinishReason::Length => Some("length"),
        FinishReason::Stop | FinishReason::Cancelled => Some("stop"),
    }
}

/// OpenAI's object for the tokens of a request.
pub fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}

fn summary(output: &Output) -> Result<&GenerateSummary> {
    match output {
        Output::Text(summary) => Ok(summary),
        _ => Err(Error::new("internal", "a conversation ended without text")),
    }
}

/// `POST /v1/chat/completions`
pub async fn completions(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    let (streamed, with_usage) = (body.stream, body.stream_options.as_ref().is_some_and(|o| o.include_usage));
    let answer = Answer::new(body.model.as_deref());
    let mut requests = body.requests(&bytes)?;
    let limit = host.config().server.request_timeout.duration();
    if streamed && let Some(request) = requests.pop() {
        return stream(Running::start(host, request), answer, with_usage).await;
    }
    let running: Vec<Running> =
        requests.into_iter().map(|request| Running::start(Arc::clone(&host), request)).collect();
    whole(running, answer, limit).await
}

async fn whole(running: Vec<Running>, mut answer: Answer, limit: std::time::Duration) -> Result<Response> {
    let mut choices = Vec::new();
    let mut total = Usage::default();
    let (mut route, mut timings) = (String::new(), json!(null));
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
            "message": { "role": "assistant", "content": finished.text() },
            "logprobs": logprobs(&finished.pieces),
            "finish_reason": finish(Some(summary.finish_reason)),
        }));
    }
    let mut object = answer.object("chat.completion", Value::Array(choices));
    object["usage"] = usage(&total);
    object["timings"] = timings;
    Ok(([("x-pajamas-route", route)], Json(object)).into_response())
}

/// How likely the tokens were, in OpenAI's shape; null when nobody asked.
fn logprobs(pieces: &[Piece]) -> Value {
    let content: Vec<Value> = pieces
        .iter()
        .filter_map(|piece| {
            let extras: Value = serde_json::from_str(&piece.extras).unwrap_or_default();
            let top = extras["top_logprobs"].as_array().into_iter().flatten();
            let top: Vec<Value> =
                top.map(|t| likely(t["text"].as_str().unwrap_or_default(), &t["logprob"])).collect();
            let mut token = likely(&piece.text, &json!(piece.logprob?));
            token["top_logprobs"] = Value::Array(top);
            Some(token)
        })
        .collect();
    if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) }
}

fn likely(text: &str, logprob: &Value) -> Value {
    json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() })
}

/// Waits for the route and the first event before it answers, so that a request that is refused (an unknown model,
/// a prompt that is too long) gets its status rather than a stream.
async fn stream(mut running: Running, mut answer: Answer, with_usage: bool) -> Result<Response> {
    let route = loop {
        match running.next().await {
            Happened::Route(route) => break route,
            Happened::Token(_) => {}
            Happened::Done(result) => {
                let early = |_| Error::new("internal", "the request ended before it was routed");
                return Err((*result).map_or_else(|error| error, early));
            }
        }
    };
    answer.model.clone_from(&route.model);
    let first = match running.next().await {
        Happened::Done(result) => Happened::Done(Box::new(Ok((*result)?))),
        first => first,
    };
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(forward(running, first, answer, with_usage, sender));
    let events =
        ReceiverStream::new(receiver).map(|data| Ok::<_, Infallible>(SseEvent::default().data(data)));
    let sse = Sse::new(events).keep_alive(KeepAlive::default());
    Ok(([("x-pajamas-route", route_header(&route))], sse).into_response())
}

/// Turns events into the stream's data lines until the end, or until the client has gone: then dropping `running`
/// cancels the request.
async fn forward(
    mut running: Running,
    mut happened: Happened,
    answer: Answer,
    with_usage: bool,
    sender: mpsc::Sender<String>,
) {
    let mut lines = vec![answer.chunk(&json!({ "role": "assistant", "content": "" }), None).to_string()];
    loop {
        let last = matches!(happened, Happened::Done(_));
        match happened {
            Happened::Route(_) => {}
            Happened::Token(piece) => {
                let mut chunk = answer.chunk(&json!({ "content": piece.text }), None);
                chunk["choices"][0]["logprobs"] = logprobs(std::slice::from_ref(&piece));
                lines.push(chunk.to_string());
            }
            Happened::Done(result) => lines.extend(end(&answer, *result, with_usage)),
        }
        for line in lines.drain(..) {
            if sender.send(line).await.is_err() {
                return;
            }
        }
        if last {
            return;
        }
        happened = tokio::select! {
            next = running.next() => next,
            () = sender.closed() => return,
        };
    }
}

/// The last lines of a stream: why it ended, what it used, and the marker.
fn end(answer: &Answer, result: Result<Outcome>, with_usage: bool) -> Vec<String> {
    let summary = result.and_then(|outcome| summary(&outcome.output).cloned());
    let mut lines = Vec::new();
    match summary {
        Ok(summary) => {
            lines.push(answer.chunk(&json!({}), Some(summary.finish_reason)).to_string());
            if with_usage {
                let mut object = answer.object("chat.completion.chunk", json!([]));
                object["usage"] = usage(&summary.usage);
                lines.push(object.to_string());
            }
        }
        // A stream that breaks says why.
        Err(error) => lines.push(error::body(&error).to_string()),
    }
    lines.push("[DONE]".into());
    lines
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
        let Input::Messages(messages) = &request.input else { panic!("messages were sent") };
        assert_eq!(messages[0].content, "ab");
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
