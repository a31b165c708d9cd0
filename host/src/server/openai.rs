//! What OpenAI's families share: ids, turns of a conversation, how an answer ended and what it used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::{FinishReason, GenerateSummary, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stream::Piece;
use crate::chat::{Call, Message};
use crate::error::{Error, Result};
use crate::pipeline::Output;

/// A new id with the family's prefix, and the time in seconds.
pub fn identity(prefix: &str) -> (String, u64) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (format!("{prefix}{:x}{:x}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed)), now.as_secs())
}

/// Answers to one prompt.
const MOST_ANSWERS: u32 = 16;

/// How many answers are wanted.
///
/// # Errors
/// `invalid-input` for none, or too many.
pub fn answers(n: Option<u32>) -> Result<u32> {
    match n.unwrap_or(1) {
        n @ 1..=MOST_ANSWERS => Ok(n),
        n => {
            Err(Error::new("invalid-input", format!("`n` is {n}: 1 to {MOST_ANSWERS} answers are possible")))
        }
    }
}

/// What a stream tells beside the answer.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// What was used, before the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// One turn of a conversation, as clients write it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatTurn")]
pub struct Turn {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<TurnCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// A call that an earlier answer made.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ChatCall")]
struct TurnCall {
    #[serde(default)]
    id: String,
    function: Function,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "CalledFunction")]
struct Function {
    name: String,
    #[serde(default)]
    arguments: String,
}

impl From<TurnCall> for Call {
    fn from(call: TurnCall) -> Self {
        let TurnCall { id, function } = call;
        Self { id, name: function.name, arguments: arguments(function.arguments) }
    }
}

/// The arguments of a call: templates want the object, not its text.
pub fn arguments(text: String) -> Value {
    match serde_json::from_str(&text) {
        Ok(object @ Value::Object(_)) => object,
        _ if text.trim().is_empty() => json!({}),
        _ => Value::String(text),
    }
}

/// A text, or parts of one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, or a list of parts")]
#[schemars(rename = "TextOrParts")]
pub enum Content {
    /// The whole.
    Text(String),
    /// Its parts.
    Parts(Vec<Part>),
}

/// A part of a turn; only those of text are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "TextPart")]
pub struct Part {
    /// `text`, `input_text` or `output_text`: others are not read.
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    /// The text of all parts.
    ///
    /// # Errors
    /// `unsupported` for a part that is no text, with the `place` where it is.
    pub fn text(self, place: &str) -> Result<String> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let text = |part: Part| match (part.kind.as_str(), part.text) {
            // OpenAI's responses tell what was said from what is said.
            ("text" | "input_text" | "output_text", Some(text)) => Ok(text),
            (kind, _) => Err(Error::new(
                "unsupported",
                format!("`{place}`: parts of type `{kind}` are not read, only text"),
            )),
        };
        parts.into_iter().map(text).collect()
    }
}

/// The turns of a list in a body's `field`.
///
/// # Errors
/// `invalid-input` when it is empty; `unsupported` for what is no text.
pub fn messages(turns: Vec<Turn>, field: &str) -> Result<Vec<Message>> {
    if turns.is_empty() {
        return Err(Error::new("invalid-input", format!("`{field}` is empty")));
    }
    let message = |(index, turn): (usize, Turn)| {
        let place = format!("{field}[{index}].content");
        let content = turn.content.map(|content| content.text(&place)).transpose()?;
        Ok(Message {
            reasoning: turn.reasoning_content,
            calls: turn.tool_calls.unwrap_or_default().into_iter().map(Call::from).collect(),
            call_id: turn.tool_call_id,
            name: turn.name,
            ..self::turn(turn.role, content.unwrap_or_default())
        })
    };
    turns.into_iter().enumerate().map(message).collect()
}

/// A turn of words only.
pub fn turn(role: String, content: String) -> Message {
    // What is a developer's word to OpenAI's models is a system's to all others.
    Message::new(if role == "developer" { "system".to_owned() } else { role }, content)
}

/// Why an answer ended.
pub fn finish(reason: FinishReason, calls: bool) -> &'static str {
    match reason {
        FinishReason::Stop if calls => "tool_calls",
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

/// The tokens of a request.
pub fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}

/// How a generation ended.
///
/// # Errors
/// `internal` for what was none.
pub fn summary(output: &Output) -> Result<&GenerateSummary> {
    match output {
        Output::Text(summary) => Ok(summary),
        _ => Err(Error::new("internal", "a request for text ended without one")),
    }
}

/// How likely the tokens were; null when nobody asked.
pub fn logprobs(pieces: &[Piece]) -> Value {
    let content: Vec<Value> = pieces
        .iter()
        .filter_map(|piece| {
            let mut token = likely(&piece.text, &json!(piece.logprob?));
            token["top_logprobs"] =
                piece.alternatives().map(|(text, logprob)| likely(&text, &logprob)).collect();
            Some(token)
        })
        .collect();
    if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) }
}

fn likely(text: &str, logprob: &Value) -> Value {
    json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() })
}
