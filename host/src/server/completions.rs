//! `POST /v1/completions`: OpenAI's older API, a text that goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{GenerateSummary, Prompt, Usage};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::embeddings::Texts;
use super::params::Fields;
use super::stream::{Finished, Happened, Running, route_header};
use super::{body, chat, error};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Output, Request};

/// What is read of a request beside the [`Fields`] of all text.
#[derive(Debug, Deserialize)]
struct Body {
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
    let limit = host.config().server.request_timeout.duration();
    if !streamed {
        let running = requests.into_iter().map(|request| Running::start(Arc::clone(&host), request));
        return whole(running.collect(), echoes, limit).await;
    }
    match (requests.pop(), requests.is_empty()) {
        (Some(request), true) => {
            stream(Running::start(host, request), echoes.into_iter().next().flatten()).await
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
    let (mut route, mut model) = (String::new(), String::new());
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
            "finish_reason": chat::finish(Some(summary.finish_reason)),
        }));
        route = route_header(&finished.outcome.route);
        model.clone_from(&finished.outcome.route.model);
    }
    let mut object = object(&model, Value::Array(choices));
    object["usage"] = chat::usage(&total);
    Ok(([("x-pajamas-route", route)], Json(object)).into_response())
}

/// Waits for the first token before it answers, so that a request that is refused gets its status.
async fn stream(mut running: Running, echo: Option<String>) -> Result<Response> {
    let mut route = None;
    let first = loop {
        match running.next().await {
            Happened::Route(chosen) => route = Some(chosen),
            Happened::Done(result) => break Happened::Done(Box::new(Ok((*result)?))),
            token @ Happened::Token(_) => break token,
        }
    };
    let header = route.as_deref().map(route_header).unwrap_or_default();
    let model = route.map(|route| route.model).unwrap_or_default();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let chunk = |text: &str, reason: Value| {
            object(&model, json!([{ "index": 0, "text": text, "logprobs": null, "finish_reason": reason }]))
                .to_string()
        };
        let mut lines: Vec<String> = echo.iter().map(|text| chunk(text, Value::Null)).collect();
        let mut happened = first;
        loop {
            let mut last = false;
            match happened {
                Happened::Route(_) => {}
                Happened::Token(piece) => lines.push(chunk(&piece.text, Value::Null)),
                Happened::Done(result) => {
                    last = true;
                    // A stream that breaks says why.
                    lines.push(match result.and_then(|outcome| summary(&outcome.output).cloned()) {
                        Ok(summary) => chunk("", json!(chat::finish(Some(summary.finish_reason)))),
                        Err(error) => error::body(&error).to_string(),
                    });
                    lines.push("[DONE]".into());
                }
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
    });
    let events =
        ReceiverStream::new(receiver).map(|data| Ok::<_, Infallible>(SseEvent::default().data(data)));
    Ok(([("x-pajamas-route", header)], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

fn object(model: &str, choices: Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "id": format!("cmpl-{:x}", now.as_nanos()),
        "object": "text_completion",
        "created": now.as_secs(),
        "model": model,
        "choices": choices,
    })
}

fn summary(output: &Output) -> Result<&GenerateSummary> {
    match output {
        Output::Text(summary) => Ok(summary),
        _ => Err(Error::new("internal", "a completion ended without text")),
    }
}

/// The older shape: lists side by side; null when nobody asked.
fn logprobs(finished: &Finished) -> Value {
    let likely: Vec<_> = finished.pieces.iter().filter_map(|piece| Some((piece, piece.logprob?))).collect();
    if likely.is_empty() {
        return Value::Null;
    }
    let top = likely.iter().map(|(piece, _)| {
        let extras: Value = serde_json::from_str(&piece.extras).unwrap_or_default();
        let top = extras["top_logprobs"].as_array().into_iter().flatten();
        top.map(|t| (t["text"].as_str().unwrap_or_default().to_owned(), t["logprob"].clone()))
            .collect::<serde_json::Map<_, _>>()
    });
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
