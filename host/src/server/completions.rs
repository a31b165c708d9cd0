//! `POST /v1/completions`: OpenAI's older API, a text that goes on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{Prompt, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::embeddings::Texts;
use super::openai::{finish, identity, summary, usage};
use super::params::{Fields, Patience};
use super::sse::{self, Line};
use super::stream::{Finished, Piece, Running, route_header};
use super::{body, error};
use crate::chat::Part;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Outcome, Request, Route};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Body {
    model: Option<String>,
    prompt: Texts,
    suffix: Option<String>,
    #[serde(default)]
    echo: bool,
    #[serde(default)]
    stream: bool,
    logprobs: Option<u32>,
}

/// Tokens of an answer when nobody says: OpenAI's.
const DEFAULT_TOKENS: u32 = 16;

impl Body {
    fn requests(self, bytes: &[u8]) -> Result<Vec<Request>> {
        let mut params = Fields::params(bytes)?;
        params.max_tokens.get_or_insert(DEFAULT_TOKENS);
        params.logprobs = self.logprobs;
        let prompts = match (self.prompt, self.suffix) {
            (Texts::Text(prefix), Some(suffix)) => vec![Prompt::Infill { prefix, suffix }],
            (_, Some(_)) => {
                return Err(Error::new("invalid-input", "`suffix` goes with one `prompt`, which is text"));
            }
            (prompts, None) => prompts.prompts("prompt")?,
        };
        let request = |prompt| Request {
            task: Task::Generate,
            model: self.model.clone(),
            input: Input::Prompt(prompt),
            params: params.clone(),
        };
        Ok(prompts.into_iter().map(request).collect())
    }
}

/// `POST /v1/completions`
pub async fn completions(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: Body = body::json(&bytes)?;
    let (streamed, echo) = (body.stream, body.echo);
    let mut requests = body.requests(&bytes)?;
    let echoes = requests.iter().map(|request| echo.then(|| text_of(&request.input)).transpose());
    let echoes: Vec<Option<String>> = echoes.collect::<Result<_>>()?;
    let server = host.config().server.clone();
    let limit = Patience::limit(&bytes, &server)?;
    if !streamed {
        let running = requests.into_iter().map(|request| Running::start(Arc::clone(&host), request));
        return whole(running.collect(), echoes, limit).await;
    }
    match (requests.pop(), requests.is_empty()) {
        (Some(request), true) => {
            let protocol = Chunks { echo: echoes.into_iter().next().flatten(), model: String::new() };
            sse::answer(Running::start(host, request), protocol, limit, &server).await
        }
        _ => Err(Error::new("unsupported", "`prompt`: only one is answered per stream")),
    }
}

/// The text of a prompt, to be told before its continuation.
fn text_of(input: &Input) -> Result<String> {
    match input {
        Input::Prompt(Prompt::Text { text, .. }) => Ok(text.clone()),
        _ => Err(Error::new("unsupported", "`echo` goes with a prompt that is text")),
    }
}

async fn whole(running: Vec<Running>, echoes: Vec<Option<String>>, limit: Duration) -> Result<Response> {
    let (mut choices, mut total) = (Vec::new(), Usage::default());
    let (mut route, mut model, mut timings) = (String::new(), String::new(), Value::Null);
    for (index, (running, echo)) in running.into_iter().zip(echoes).enumerate() {
        let finished = running.finish(limit).await?;
        let summary = summary(&finished.outcome.output)?;
        total.prompt_tokens += summary.usage.prompt_tokens;
        total.cached_tokens += summary.usage.cached_tokens;
        total.completion_tokens += summary.usage.completion_tokens;
        choices.push(json!({
            "index": index,
            "text": echo.unwrap_or_default() + &finished.text(),
            "logprobs": logprobs(&finished),
            "finish_reason": finish(summary.finish_reason, false),
        }));
        timings = json!(summary.timings);
        route = route_header(&finished.outcome.route);
        model.clone_from(&finished.outcome.route.model);
    }
    let mut object = object(&model, Value::Array(choices));
    object["usage"] = usage(&total);
    object["timings"] = timings;
    Ok(([("x-pajamas-route", route)], Json(object)).into_response())
}

/// An answer in pieces.
struct Chunks {
    echo: Option<String>,
    model: String,
}

impl Chunks {
    fn chunk(&self, text: &str, reason: Option<&str>) -> Line {
        let choice = json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": reason });
        Line::data(object(&self.model, json!([choice])))
    }
}

impl sse::Protocol for Chunks {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.model.clone_from(&route.model);
        self.echo.iter().map(|text| self.chunk(text, None)).collect()
    }

    fn piece(&mut self, piece: &Piece) -> Vec<Line> {
        vec![self.chunk(&piece.text, None)]
    }

    fn parts(&mut self, _: &[Part]) -> Vec<Line> {
        Vec::new()
    }

    fn end(&mut self, result: Result<Outcome>) -> Vec<Line> {
        let last = match result.and_then(|outcome| summary(&outcome.output).cloned()) {
            Ok(summary) => self.chunk("", Some(finish(summary.finish_reason, false))),
            Err(error) => Line::data(error::body(&error)),
        };
        vec![last, Line::data("[DONE]")]
    }
}

fn object(model: &str, choices: Value) -> Value {
    let (id, created) = identity("cmpl-");
    json!({ "id": id, "object": "text_completion", "created": created, "model": model, "choices": choices })
}

/// The older shape: lists side by side; null when nobody asked.
fn logprobs(finished: &Finished) -> Value {
    let likely: Vec<_> = finished.pieces.iter().filter_map(|piece| Some((piece, piece.logprob?))).collect();
    if likely.is_empty() {
        return Value::Null;
    }
    let top = likely.iter().map(|(piece, _)| piece.alternatives().collect::<serde_json::Map<_, _>>());
    let offsets = likely.iter().scan(0, |offset, (piece, _)| {
        let here = *offset;
        *offset += piece.text.chars().count();
        Some(here)
    });
    json!({
        "tokens": likely.iter().map(|(piece, _)| &piece.text).collect::<Vec<_>>(),
        "token_logprobs": likely.iter().map(|(_, logprob)| logprob).collect::<Vec<_>>(),
        "top_logprobs": top.collect::<Vec<_>>(),
        "text_offset": offsets.collect::<Vec<usize>>(),
    })
}
