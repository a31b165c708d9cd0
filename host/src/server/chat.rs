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
use pajamas_plugin_api::{FinishReason, GenerateSummary, Sampling, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::stream::{Happened, Running, route_header};
use super::{body, error};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Message, Outcome, Output, Params, Request};

/// What is read of a request. Unknown fields are ignored, as OpenAI does; wrong types are refused with their path.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    model: Option<String>,
    messages: Vec<Turn>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default, alias = "max_completion_tokens")]
    max_tokens: Option<u32>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<u32>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default)]
    presence_penalty: Option<f32>,
    #[serde(default)]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    repeat_penalty: Option<f32>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    stop: Option<Stop>,
    #[serde(default)]
    logit_bias: Option<Map<String, Value>>,
    #[serde(default)]
    n: Option<u32>,
}

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

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let body: Self = body::json(bytes)?;
        if body.n.is_some_and(|n| n != 1) {
            return Err(Error::new("unsupported", "`n`: only one answer per request is made"));
        }
        if body.messages.is_empty() {
            return Err(Error::new("invalid-input", "`messages` is empty"));
        }
        Ok(body)
    }

    fn request(self) -> Result<Request> {
        let defaults = Sampling::default();
        let logit_bias = self.logit_bias.unwrap_or_default();
        let logit_bias = logit_bias.iter().map(|(id, bias)| {
            let pair = id.parse().ok().zip(bias.as_f64());
            pair.map(|(id, bias)| (id, bias as f32)).ok_or_else(|| {
                Error::new("invalid-input", format!("`logit_bias.{id}`: token ids map to numbers"))
            })
        });
        let params = Params {
            max_tokens: self.max_tokens,
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(defaults.temperature),
                top_p: self.top_p.unwrap_or(defaults.top_p),
                top_k: self.top_k.unwrap_or(defaults.top_k),
                min_p: self.min_p.unwrap_or(defaults.min_p),
                presence_penalty: self.presence_penalty.unwrap_or(0.0),
                frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
                repeat_penalty: self.repeat_penalty.unwrap_or(1.0),
                seed: self.seed,
                logit_bias: logit_bias.collect::<Result<_>>()?,
                ..defaults
            },
            stop: match self.stop {
                None => Vec::new(),
                Some(Stop::One(text)) => vec![text],
                Some(Stop::Many(texts)) => texts,
            },
            ..Params::default()
        };
        let messages =
            self.messages.into_iter().enumerate().map(|(i, turn)| turn.message(i)).collect::<Result<_>>()?;
        Ok(Request { task: Task::Chat, model: self.model, input: Input::Messages(messages), params })
    }
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

fn finish(reason: Option<FinishReason>) -> Option<&'static str> {
    match reason? {
        FinishReason::Length => Some("length"),
        FinishReason::Stop | FinishReason::Cancelled => Some("stop"),
    }
}

fn usage(usage: &Usage) -> Value {
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
    let request = body.request()?;
    let limit = host.config().server.request_timeout.duration();
    let running = Running::start(host, request);
    if streamed { stream(running, answer, with_usage).await } else { whole(running, answer, limit).await }
}

async fn whole(running: Running, mut answer: Answer, limit: std::time::Duration) -> Result<Response> {
    let (text, outcome) = running.finish(limit).await?;
    let summary = summary(&outcome.output)?;
    answer.model.clone_from(&outcome.route.model);
    let choice = json!({
        "index": 0,
        "message": { "role": "assistant", "content": text },
        "logprobs": null,
        "finish_reason": finish(Some(summary.finish_reason)),
    });
    let mut object = answer.object("chat.completion", json!([choice]));
    object["usage"] = usage(&summary.usage);
    object["timings"] = json!(summary.timings);
    Ok(([("x-pajamas-route", route_header(&outcome.route))], Json(object)).into_response())
}

/// Waits for the route and the first event before it answers, so that a request that is refused (an unknown model,
/// a prompt that is too long) gets its status rather than a stream.
async fn stream(mut running: Running, mut answer: Answer, with_usage: bool) -> Result<Response> {
    let route = loop {
        match running.next().await {
            Happened::Route(route) => break route,
            Happened::Text(_) => {}
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
            Happened::Text(text) => lines.push(answer.chunk(&json!({ "content": text }), None).to_string()),
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
        Body::parse(text.as_bytes())?.request()
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
            (r#"{"messages":[{"role":"user","content":"a"}],"n":2}"#, "`n`"),
            (r#"{"messages":[{"role":"user","content":"a"}],"logit_bias":{"x":1}}"#, "logit_bias.x"),
        ] {
            let error = request(body).unwrap_err();
            assert!(error.message().contains(place), "{body}: {error}");
        }
    }
}
