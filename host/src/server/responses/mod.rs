//! `POST /v1/responses`: OpenAI's newer API, without a memory of earlier responses.

mod answer;
mod events;

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use answer::Answer;
use events::Events;

use super::openai::{Content, arguments, summary, turn};
use super::params::{Fields, Patience};
use super::stream::{Awaited, Running, route_header};
use super::tools::Tools;
use super::{body, sse};
use crate::chat::{Call, Conversation, Message};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Request};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Body {
    model: Option<String>,
    input: Said,
    instructions: Option<String>,
    /// Responses are not kept: null.
    #[schemars(with = "Option<()>")]
    previous_response_id: Option<String>,
    #[serde(default)]
    stream: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, or a list of items")]
#[schemars(rename = "ResponseInput")]
enum Said {
    Text(String),
    Items(Vec<Item>),
}

/// One item of the conversation: a message, a call, or what a call gave.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseInputItem")]
struct Item {
    #[serde(rename = "type", default)]
    #[schemars(extend("enum" = ["message", "function_call", "function_call_output", "reasoning", null]))]
    kind: Option<String>,
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: String,
    #[serde(default)]
    output: Option<Content>,
}

impl Item {
    fn add_to(self, messages: &mut Vec<Message>, index: usize) -> Result<()> {
        let place = |field: &str| format!("input[{index}].{field}");
        match self.kind.as_deref() {
            None | Some("message") => {
                let content = self.content.map(|content| content.text(&place("content"))).transpose()?;
                messages.push(turn(self.role, content.unwrap_or_default()));
            }
            Some("function_call") => {
                let id = self.call_id.unwrap_or_default();
                let call = Call { id, name: self.name, arguments: arguments(self.arguments) };
                match messages.last_mut().filter(|last| last.role == "assistant") {
                    Some(last) => last.calls.push(call),
                    None => messages.push(Message { calls: vec![call], ..Message::new("assistant", "") }),
                }
            }
            Some("function_call_output") => {
                let output = self.output.map(|output| output.text(&place("output"))).transpose()?;
                let answer = Message::new("tool", output.unwrap_or_default());
                messages.push(Message { call_id: self.call_id, ..answer });
            }
            // What was thought is for the turn in which it was.
            Some("reasoning") => {}
            Some(kind) => {
                let message = format!("`{}`: items of type `{kind}` are not read", place("type"));
                return Err(Error::new("unsupported", message));
            }
        }
        Ok(())
    }
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let body: Self = body::json(bytes)?;
        if body.previous_response_id.is_some() {
            return Err(Error::new("unsupported", "`previous_response_id`: responses are not kept")
                .help("send the whole conversation as `input`"));
        }
        Ok(body)
    }

    fn request(self, bytes: &[u8]) -> Result<Request> {
        let mut messages: Vec<Message> =
            self.instructions.map(|text| Message::new("system", text)).into_iter().collect();
        match self.input {
            Said::Text(text) => messages.push(Message::new("user", text)),
            Said::Items(items) if items.is_empty() => {
                return Err(Error::new("invalid-input", "`input` is empty"));
            }
            Said::Items(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    item.add_to(&mut messages, index)?;
                }
            }
        }
        let mut conversation = Conversation::from(messages);
        body::json::<Tools>(bytes)?.apply(&mut conversation)?;
        let params = Fields::params(bytes)?;
        Ok(Request { task: Task::Chat, model: self.model, input: Input::Conversation(conversation), params })
    }
}

/// `POST /v1/responses`
pub async fn create(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body = Body::parse(&bytes)?;
    let streamed = body.stream;
    let request = body.request(&bytes)?;
    let limit = Patience::limit(&bytes, &host.config().server)?;
    let mut answer = Answer::new();
    if streamed {
        return sse::answer([Running::start(host, request)], Events::new(answer), limit).await;
    }
    let finished = Awaited::start(host, request).finish(limit).await?;
    let summary = summary(&finished.outcome.output)?;
    answer.model.clone_from(&finished.outcome.route.model);
    answer.items = answer::items(&finished.said);
    let object = answer.whole(summary);
    Ok(([("x-pajamas-route", route_header(&finished.outcome.route))], Json(object)).into_response())
}
