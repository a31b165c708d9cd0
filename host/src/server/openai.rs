//! What OpenAI's families share: ids, turns of a conversation, how an answer ended and what it used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::{FinishReason, GenerateSummary, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::stream::Piece;
use crate::error::{Error, Result};
use crate::pipeline::{Message, Output};

/// A new id with the family's prefix, and the time in seconds.
pub fn identity(prefix: &str) -> (String, u64) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (format!("{prefix}{:x}{:x}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed)), now.as_secs())
}

/// One turn of a conversation, as clients write it.
#[derive(Debug, Deserialize)]
pub struct Turn {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

/// A text, or parts of one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text, or a list of parts")]
pub enum Content {
    /// The whole.
    Text(String),
    /// Its parts.
    Parts(Vec<Part>),
}

/// A part of a turn; only those of text are read.
#[derive(Debug, Deserialize)]
pub struct Part {
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
        // What is a developer's word to OpenAI's models is a system's to all others.
        let role = if turn.role == "developer" { "system".to_owned() } else { turn.role };
        Ok(Message::new(role, content.unwrap_or_default()))
    };
    turns.into_iter().enumerate().map(message).collect()
}

/// Why an answer ended.
pub fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Cancelled => "stop",
    }
}

/// The tokens of a request.
pub fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
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

/// What clients ask for and no model here gives: better refused than left out in silence.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tools {
    tools: Vec<Value>,
    tool_choice: Value,
}

impl Tools {
    /// # Errors
    /// `unsupported` when tools are to be called.
    pub fn check(&self) -> Result<()> {
        if self.tools.is_empty() || self.tool_choice == "none" {
            return Ok(());
        }
        Err(Error::new("unsupported", "`tools`: calls of tools are not made yet")
            .help("leave `tools` out; `response_format` with a JSON Schema gives the arguments of a call"))
    }
}
