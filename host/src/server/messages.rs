//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API, so that its clients work by changing their
//! address.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{Cancel, FinishReason, GenerateSummary, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::observe::Refusal;
use super::openai::{arguments, identity, summary};
use super::params::{Fields, Patience};
use super::sse::{self, Line};
use super::stream::{self, Awaited, Piece, Running, Said, route_header};
use super::tools::Tools;
use super::{body, error};
use crate::chat::{Call, Conversation, Message, Part};
use crate::config::Task;
use crate::error::{Class, Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Request, Route};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Body {
    model: String,
    #[schemars(length(min = 1))]
    messages: Vec<Turn>,
    /// Apart from the turns, unlike OpenAI's.
    system: Option<Content>,
    #[serde(default)]
    stream: bool,
}

/// What an answer cannot do without, and counting can.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Limit {
    #[expect(dead_code, reason = "it is read with all other fields of text")]
    #[schemars(range(min = 1))]
    max_tokens: u32,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesTurn")]
struct Turn {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, or a list of blocks")]
#[schemars(rename = "TextOrBlocks")]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

/// A block of a turn.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Block {
    /// `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`: others are not read.
    #[serde(rename = "type")]
    kind: String,
    text: String,
    thinking: String,
    id: String,
    name: String,
    input: Value,
    tool_use_id: String,
    content: Option<Content>,
}

impl Content {
    fn blocks(self) -> Vec<Block> {
        match self {
            Self::Text(text) => vec![Block { kind: "text".into(), text, ..Block::default() }],
            Self::Blocks(blocks) => blocks,
        }
    }

    /// The words alone.
    fn text(self, place: &str) -> Result<String> {
        let text =
            |block: Block| if block.kind == "text" { Ok(block.text) } else { Err(unread(place, &block)) };
        self.blocks().into_iter().map(text).collect()
    }
}

fn unread(place: &str, block: &Block) -> Error {
    Error::new("unsupported", format!("`{place}`: blocks of type `{}` are not read", block.kind))
}

impl Turn {
    /// One turn can be several messages: what tools answered comes as blocks of the user's.
    fn messages(self, place: &str) -> Result<Vec<Message>> {
        let mut own = Message::new(self.role, "");
        let mut all = Vec::new();
        for block in self.content.blocks() {
            match &*block.kind {
                "text" => own.content += &block.text,
                "thinking" => own.reasoning.get_or_insert_default().push_str(&block.thinking),
                "redacted_thinking" => {}
                "tool_use" => own.calls.push(Call { id: block.id, name: block.name, arguments: block.input }),
                "tool_result" => {
                    let content = block.content.map(|content| content.text(place)).transpose()?;
                    let call_id = Some(block.tool_use_id);
                    all.push(Message { call_id, ..Message::new("tool", content.unwrap_or_default()) });
                }
                _ => return Err(unread(place, &block)),
            }
        }
        if !own.content.is_empty() || !own.calls.is_empty() || all.is_empty() {
            all.push(own);
        }
        Ok(all)
    }
}

impl Body {
    /// The conversation, the system's word first.
    fn conversation(self, bytes: &[u8]) -> Result<(String, Conversation)> {
        if self.messages.is_empty() {
            return Err(Error::new("invalid-input", "`messages` is empty"));
        }
        let system = self.system.map(|content| content.text("system")).transpose()?;
        let mut messages: Vec<Message> =
            system.map(|text| Message::new("system", text)).into_iter().collect();
        for (index, turn) in self.messages.into_iter().enumerate() {
            messages.extend(turn.messages(&format!("messages[{index}].content"))?);
        }
        let mut conversation = Conversation::from(messages);
        body::json::<Tools>(bytes)?.apply(&mut conversation)?;
        Ok((self.model, conversation))
    }
}

/// Writes refusals in Anthropic's shape, whoever refused; the code, the status and the headers are those of all others.
pub async fn refusals(request: HttpRequest, next: Next) -> Response {
    let path = request.uri().path();
    let ours = path == "/v1/messages" || path.starts_with("/v1/messages/");
    let response = next.run(request).await;
    let Some(Refusal(error)) = response.extensions().get().filter(|_| ours).cloned() else { return response };
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, axum::body::Body::from(refusal(&error).to_string()))
}

fn refusal(refused: &Error) -> Value {
    let kind = match refused.class() {
        Class::Invalid | Class::Unmet => "invalid_request_error",
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
pub async fn create(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: Body = body::json(&bytes)?;
    body::json::<Limit>(&bytes)?;
    let streamed = body.stream;
    let (model, conversation) = body.conversation(&bytes)?;
    let params = Fields::params(&bytes)?;
    let input = Input::Conversation(conversation);
    let request = Request { task: Task::Chat, model: Some(model), input, params };
    let limit = Patience::limit(&bytes, &host.config().server)?;
    let (id, _) = identity("msg_");
    if streamed {
        let events = Events { id, open: None, index: 0, called: false };
        return sse::answer([Running::start(host, request)], events, limit).await;
    }
    let finished = Awaited::start(host, request).finish(limit).await?;
    let summary = summary(&finished.outcome.output)?;
    let said = &finished.said;
    let mut object = message(&id, &finished.outcome.route.model, content(said), summary.usage);
    object["stop_reason"] = json!(stop_reason(summary, !said.calls.is_empty()));
    object["stop_sequence"] = json!(summary.stop_string);
    Ok(([("x-pajamas-route", route_header(&finished.outcome.route))], Json(object)).into_response())
}

/// `POST /v1/messages/count_tokens`
pub async fn count_tokens(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let (model, conversation) = body::json::<Body>(&bytes)?.conversation(&bytes)?;
    let count = move |host: &Host, model: Option<&str>| host.count(model, &conversation, &Cancel::new());
    let tokens = stream::blocking(host, Some(model), count).await?;
    Ok(Json(json!({ "input_tokens": tokens })))
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

fn stop_reason(summary: &GenerateSummary, called: bool) -> &'static str {
    match (summary.finish_reason, &summary.stop_string) {
        (FinishReason::Length, _) => "max_tokens",
        _ if called => "tool_use",
        (_, Some(_)) => "stop_sequence",
        _ => "end_turn",
    }
}

/// The blocks of a whole answer.
fn content(said: &Said) -> Value {
    let mut blocks = Vec::new();
    if !said.reasoning.is_empty() {
        blocks.push(json!({ "type": "thinking", "thinking": said.reasoning, "signature": "" }));
    }
    if !said.content.is_empty() || said.calls.is_empty() {
        blocks.push(json!({ "type": "text", "text": said.content }));
    }
    blocks.extend(said.calls.iter().map(|(name, written)| {
        let mut block = tool_use(name);
        block["input"] = arguments(written.clone());
        block
    }));
    Value::Array(blocks)
}

fn tool_use(name: &str) -> Value {
    let (id, _) = identity("toolu_");
    json!({ "type": "tool_use", "id": id, "name": name, "input": {} })
}

/// An answer in pieces.
struct Events {
    id: String,
    /// The kind of the block that is open.
    open: Option<&'static str>,
    /// Its index, or the next block's.
    index: usize,
    called: bool,
}

impl Events {
    fn line(&self, name: &'static str, mut data: Value) -> Line {
        data["type"] = json!(name);
        Line::named(name, data)
    }

    fn end_block(&mut self, lines: &mut Vec<Line>) {
        if self.open.take().is_some() {
            lines.push(self.line("content_block_stop", json!({ "index": self.index })));
            self.index += 1;
        }
    }

    fn begin_block(&mut self, lines: &mut Vec<Line>, kind: &'static str, block: Value) {
        self.end_block(lines);
        self.open = Some(kind);
        let start = json!({ "index": self.index, "content_block": block });
        lines.push(self.line("content_block_start", start));
    }

    fn part(&mut self, lines: &mut Vec<Line>, part: &Part) {
        let delta = match part {
            Part::Content(text) => {
                if self.open != Some("text") {
                    self.begin_block(lines, "text", json!({ "type": "text", "text": "" }));
                }
                json!({ "type": "text_delta", "text": text })
            }
            Part::Reasoning(text) => {
                if self.open != Some("thinking") {
                    let block = json!({ "type": "thinking", "thinking": "", "signature": "" });
                    self.begin_block(lines, "thinking", block);
                }
                json!({ "type": "thinking_delta", "thinking": text })
            }
            Part::Call { name, .. } => {
                self.called = true;
                self.begin_block(lines, "tool_use", tool_use(name));
                return;
            }
            Part::Arguments { text, .. } => json!({ "type": "input_json_delta", "partial_json": text }),
        };
        lines.push(self.line("content_block_delta", json!({ "index": self.index, "delta": delta })));
    }
}

impl sse::Protocol for Events {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        let empty = message(&self.id, &route.model, json!([]), Usage::default());
        vec![self.line("message_start", json!({ "message": empty }))]
    }

    fn piece(&mut self, _: usize, _: &Piece) -> Vec<Line> {
        Vec::new()
    }

    fn parts(&mut self, _: usize, parts: &[Part]) -> Vec<Line> {
        let mut lines = Vec::new();
        parts.iter().for_each(|part| self.part(&mut lines, part));
        lines
    }

    fn end(&mut self, _: usize, summary: &GenerateSummary) -> Vec<Line> {
        let mut lines = Vec::new();
        self.end_block(&mut lines);
        let reason = stop_reason(summary, self.called);
        let delta = json!({ "stop_reason": reason, "stop_sequence": summary.stop_string });
        let end = json!({ "delta": delta, "usage": tokens(summary.usage) });
        lines.push(self.line("message_delta", end));
        lines.push(self.line("message_stop", json!({})));
        lines
    }

    fn fail(&mut self, error: &Error) -> Vec<Line> {
        vec![Line::named("error", refusal(error))]
    }
}
