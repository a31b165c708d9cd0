//! `POST /tokenize`, `/detokenize` and `/apply-template`, as llama-server offers them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use pajamas_plugin_api::{Cancel, Prompt};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{body, chat, stream};
use crate::error::Result;
use crate::host::Host;

/// What is read of a text to be cut into tokens.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TokenizeBody {
    model: Option<String>,
    content: String,
    #[serde(default)]
    add_special: bool,
    #[serde(default = "yes")]
    parse_special: bool,
    #[serde(default)]
    with_pieces: bool,
}

fn yes() -> bool {
    true
}

/// `POST /tokenize`
pub async fn tokenize(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: TokenizeBody = body::json(&bytes)?;
    let TokenizeBody { model, content: text, add_special, parse_special, with_pieces } = body;
    let prompt = Prompt::Text { text, add_special, parse_special };
    let tokens =
        stream::blocking(host, model, move |host, model| host.tokenize(model, &prompt, &Cancel::new()))
            .await?;
    let tokens: Vec<Value> = tokens
        .into_iter()
        .map(
            |token| {
                if with_pieces { json!({ "id": token.id, "piece": token.text }) } else { json!(token.id) }
            },
        )
        .collect();
    Ok(Json(json!({ "tokens": tokens })))
}

/// What is read of tokens to be put together.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DetokenizeBody {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// `POST /detokenize`
pub async fn detokenize(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let DetokenizeBody { model, tokens } = body::json(&bytes)?;
    let text =
        stream::blocking(host, model, move |host, model| host.detokenize(model, &tokens, &Cancel::new()))
            .await?;
    Ok(Json(json!({ "content": text })))
}

/// `POST /apply-template`: the prompt that a conversation becomes.
pub async fn apply_template(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let (model, messages) = chat::conversation(&bytes)?;
    let prompt =
        stream::blocking(host, model, move |host, model| host.render(model, &messages, &Cancel::new()))
            .await?;
    Ok(Json(json!({ "prompt": prompt })))
}
