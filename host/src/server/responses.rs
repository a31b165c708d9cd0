//! `POST /v1/responses`: OpenAI's newer API, without a memory of earlier responses.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{FinishReason, GenerateSummary, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::openai::{Tools, Turn, identity, messages, summary};
use super::params::Fields;
use super::sse::{self, Line};
use super::stream::{Piece, Running, route_header};
use super::{body, error};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Message, Outcome, Request, Route};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize)]
struct Body {
    model: Option<String>,
    input: Said,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    #[serde(default)]
    stream: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of messages")]
enum Said {
    Text(String),
    Turns(Vec<Turn>),
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let body: Self = body::json(bytes)?;
        body::json::<Tools>(bytes)?.check()?;
        if body.previous_response_id.is_some() {
            return Err(Error::new("unsupported", "`previous_response_id`: responses are not kept")
                .help("send the whole conversation as `input`"));
        }
        Ok(body)
    }

    fn request(self, bytes: &[u8]) -> Result<Request> {
        let mut turns: Vec<Message> =
            self.instructions.map(|text| Message::new("system", text)).into_iter().collect();
        match self.input {
            Said::Text(text) => turns.push(Message::new("user", text)),
            Said::Turns(said) => turns.extend(messages(said, "input")?),
        }
        let params = Fields::params(bytes)?;
        Ok(Request { task: Task::Chat, model: self.model, input: Input::Messages(turns), params })
    }
}

/// `POST /v1/responses`
pub async fn create(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    let streamed = body.stream;
    let request = body.request(&bytes)?;
    let server = host.config().server.clone();
    let running = Running::start(host, request);
    let mut answer = Answer::new();
    if streamed {
        return sse::answer(running, Events { answer, text: String::new(), sequence: 0 }, &server).await;
    }
    let finished = running.finish(server.request_timeout.duration()).await?;
    let summary = summary(&finished.outcome.output)?;
    answer.model.clone_from(&finished.outcome.route.model);
    let object = answer.whole(&finished.text(), summary);
    Ok(([("x-pajamas-route", route_header(&finished.outcome.route))], Json(object)).into_response())
}

/// The fields that every object of one answer shares.
struct Answer {
    id: String,
    item: String,
    created: u64,
    model: String,
}

impl Answer {
    fn new() -> Self {
        let (id, created) = identity("resp_");
        let (item, _) = identity("msg_");
        Self { id, item, created, model: String::new() }
    }

    fn object(&self, status: &str, output: Value) -> Value {
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": output,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "parallel_tool_calls": false,
            "tool_choice": "none",
            "tools": [],
            "temperature": null,
            "top_p": null,
            "usage": null,
        })
    }

    fn item(&self, status: &str, content: Value) -> Value {
        json!({ "id": self.item, "type": "message", "role": "assistant", "status": status, "content": content })
    }

    fn whole(&self, text: &str, summary: &GenerateSummary) -> Value {
        let cut = summary.finish_reason == FinishReason::Length;
        let status = if cut { "incomplete" } else { "completed" };
        let mut object = self.object(status, json!([self.item(status, json!([part(text)]))]));
        if cut {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        object["usage"] = usage(summary.usage);
        object
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

/// An answer in pieces.
struct Events {
    answer: Answer,
    text: String,
    sequence: u64,
}

impl Events {
    fn line(&mut self, name: &'static str, mut data: Value) -> Line {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Line::named(name, data)
    }

    /// An event about the one part of the one item.
    fn part(&mut self, name: &'static str, key: &str, value: Value) -> Line {
        let mut data = json!({ "item_id": self.answer.item, "output_index": 0, "content_index": 0 });
        data[key] = value;
        self.line(name, data)
    }

    fn item(&mut self, name: &'static str, item: Value) -> Line {
        self.line(name, json!({ "output_index": 0, "item": item }))
    }
}

impl sse::Protocol for Events {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.answer.model.clone_from(&route.model);
        let response = json!({ "response": self.answer.object("in_progress", json!([])) });
        let item = self.answer.item("in_progress", json!([]));
        vec![
            self.line("response.created", response.clone()),
            self.line("response.in_progress", response),
            self.item("response.output_item.added", item),
            self.part("response.content_part.added", "part", part("")),
        ]
    }

    fn piece(&mut self, piece: &Piece) -> Vec<Line> {
        self.text.push_str(&piece.text);
        let mut line = json!({ "item_id": self.answer.item, "output_index": 0, "content_index": 0 });
        line["delta"] = json!(piece.text);
        line["logprobs"] = json!([]);
        vec![self.line("response.output_text.delta", line)]
    }

    fn end(&mut self, result: Result<Outcome>) -> Vec<Line> {
        match result.and_then(|outcome| summary(&outcome.output).cloned()) {
            Ok(summary) => {
                let text = std::mem::take(&mut self.text);
                let whole = self.answer.whole(&text, &summary);
                let item = whole["output"][0].clone();
                let cut = summary.finish_reason == FinishReason::Length;
                let last = if cut { "response.incomplete" } else { "response.completed" };
                let mut done = json!({ "item_id": self.answer.item, "output_index": 0, "content_index": 0 });
                done["text"] = json!(text);
                done["logprobs"] = json!([]);
                vec![
                    self.line("response.output_text.done", done),
                    self.part("response.content_part.done", "part", part(&text)),
                    self.item("response.output_item.done", item),
                    self.line(last, json!({ "response": whole })),
                ]
            }
            Err(refused) => {
                let said = error::body(&refused)["error"].clone();
                let mut response = self.answer.object("failed", json!([]));
                response["error"] = json!({ "code": refused.code(), "message": said["message"] });
                vec![self.line("response.failed", json!({ "response": response }))]
            }
        }
    }
}
