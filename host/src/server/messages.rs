//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API, so that its clients work by changing their
//! address.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{Cancel, FinishReason, GenerateSummary, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::openai::{Content, Tools, Turn, identity, messages, summary};
use super::params::Fields;
use super::sse::{self, Line};
use super::stream::{self, Piece, Running, route_header};
use super::{body, error};
use crate::config::Task;
use crate::error::{Class, Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Message, Outcome, Request, Route};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize)]
struct Body {
    model: String,
    messages: Vec<Turn>,
    /// Apart from the turns, unlike OpenAI's.
    system: Option<Content>,
    #[serde(default)]
    stream: bool,
    max_tokens: Option<u32>,
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        body::json::<Tools>(bytes)?.check()?;
        body::json(bytes)
    }

    /// The conversation, the system's word first.
    fn conversation(self) -> Result<(String, Vec<Message>)> {
        let system = self.system.map(|content| content.text("system")).transpose()?;
        let mut turns: Vec<Message> = system.map(|text| Message::new("system", text)).into_iter().collect();
        turns.extend(messages(self.messages, "messages")?);
        Ok((self.model, turns))
    }
}

/// An error in Anthropic's shape; the code, the status and the headers are those of all others.
struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = refusal(&self.0);
        let (mut head, _) = self.0.into_response().into_parts();
        head.headers.remove(axum::http::header::CONTENT_LENGTH);
        (head, body.to_string()).into_response()
    }
}

fn refusal(refused: &Error) -> Value {
    let kind = match refused.class() {
        Class::Invalid => "invalid_request_error",
        Class::NotFound => "not_found_error",
        Class::TooLarge => "request_too_large",
        Class::Unavailable => "overloaded_error",
        Class::Busy => "rate_limit_error",
        Class::Unauthenticated => "authentication_error",
        Class::Forbidden => "permission_error",
        Class::Cancelled | Class::Internal => "api_error",
    };
    let message = error::body(refused)["error"]["message"].clone();
    json!({ "type": "error", "error": { "type": kind, "message": message, "code": refused.code() } })
}

/// `POST /v1/messages`
pub async fn create(state: State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Response {
    answer(state, bytes).await.unwrap_or_else(|error| Refused(error).into_response())
}

async fn answer(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    if body.max_tokens.is_none() {
        return Err(Error::new("invalid-input", "`max_tokens` is missing"));
    }
    let streamed = body.stream;
    let (model, turns) = body.conversation()?;
    let params = Fields::params(&bytes)?;
    let request = Request { task: Task::Chat, model: Some(model), input: Input::Messages(turns), params };
    let server = host.config().server.clone();
    let running = Running::start(host, request);
    let (id, _) = identity("msg_");
    if streamed {
        return sse::answer(running, Events { id }, &server).await;
    }
    let finished = running.finish(server.request_timeout.duration()).await?;
    let summary = summary(&finished.outcome.output)?;
    let content = json!([{ "type": "text", "text": finished.text() }]);
    let mut object = message(&id, &finished.outcome.route.model, content, summary.usage);
    object["stop_reason"] = json!(stop_reason(summary));
    object["stop_sequence"] = json!(summary.stop_string);
    Ok(([("x-pajamas-route", route_header(&finished.outcome.route))], Json(object)).into_response())
}

/// `POST /v1/messages/count_tokens`
pub async fn count_tokens(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Response {
    let count = async {
        let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
        let (model, turns) = Body::parse(&bytes)?.conversation()?;
        let count = move |host: &Host, model: Option<&str>| host.count(model, &turns, &Cancel::new());
        stream::blocking(host, Some(model), count).await
    };
    match count.await {
        Ok(tokens) => Json(json!({ "input_tokens": tokens })).into_response(),
        Err(error) => Refused(error).into_response(),
    }
}

fn message(id: &str, model: &str, content: Value, usage: Usage) -> Value {
    json!({
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": tokens(usage),
    })
}

/// Anthropic counts what came from the cache apart.
fn tokens(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    })
}

fn stop_reason(summary: &GenerateSummary) -> &'static str {
    match (summary.finish_reason, &summary.stop_string) {
        (FinishReason::Length, _) => "max_tokens",
        (_, Some(_)) => "stop_sequence",
        _ => "end_turn",
    }
}

/// An answer in pieces.
struct Events {
    id: String,
}

impl Events {
    fn line(&self, name: &'static str, mut data: Value) -> Line {
        data["type"] = json!(name);
        Line::named(name, data)
    }
}

impl sse::Protocol for Events {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        let empty = message(&self.id, &route.model, json!([]), Usage::default());
        let block = json!({ "index": 0, "content_block": { "type": "text", "text": "" } });
        vec![self.line("message_start", json!({ "message": empty })), self.line("content_block_start", block)]
    }

    fn piece(&mut self, piece: &Piece) -> Vec<Line> {
        let delta = json!({ "index": 0, "delta": { "type": "text_delta", "text": piece.text } });
        vec![self.line("content_block_delta", delta)]
    }

    fn end(&mut self, result: Result<Outcome>) -> Vec<Line> {
        match result.and_then(|outcome| summary(&outcome.output).cloned()) {
            Ok(summary) => {
                let delta =
                    json!({ "stop_reason": stop_reason(&summary), "stop_sequence": summary.stop_string });
                vec![
                    self.line("content_block_stop", json!({ "index": 0 })),
                    self.line("message_delta", json!({ "delta": delta, "usage": tokens(summary.usage) })),
                    self.line("message_stop", json!({})),
                ]
            }
            Err(error) => vec![Line::named("error", refusal(&error))],
        }
    }
}
