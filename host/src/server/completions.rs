//! `POST /v1/completions`: OpenAI's older API, a text that goes on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::{GenerateSummary, Prompt, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::embeddings::Texts;
use super::openai::{StreamOptions, answers, finish, identity, summary, usage};
use super::params::{Fields, Patience};
use super::sse::{self, Line};
use super::stream::{Awaited, Piece, Running, route_header};
use super::{body, error};
use crate::chat::Part;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Request, Route};

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
    stream_options: Option<StreamOptions>,
    logprobs: Option<u32>,
    /// How many answers are made to each prompt.
    #[schemars(range(min = 1, max = 16))]
    n: Option<u32>,
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
        let answers = answers(self.n)?;
        let request = |prompt, answer| Request {
            task: Task::Generate,
            model: self.model.clone(),
            input: Input::Prompt(prompt),
            params: params.for_answer(answer),
        };
        let of_prompt = |prompt: Prompt| (0..answers).map(move |answer| (prompt.clone(), answer));
        let all = prompts.into_iter().flat_map(of_prompt);
        Ok(all.map(|(prompt, answer)| request(prompt, answer)).collect())
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
    let with_usage = body.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let answers = body.n.unwrap_or(1) as usize;
    let requests = body.requests(&bytes)?;
    let echoes = requests.iter().map(|request| echo.then(|| text_of(&request.input)).transpose());
    let echoes: Vec<Option<String>> = echoes.collect::<Result<_>>()?;
    let limit = Patience::limit(&bytes, &host.config().server)?;
    if streamed {
        let protocol = Chunks::new(echoes, answers, with_usage);
        let running = requests.into_iter().map(|request| Running::start(Arc::clone(&host), request));
        return sse::answer(running, protocol, limit).await;
    }
    let running = requests.into_iter().map(|request| Awaited::start(Arc::clone(&host), request));
    whole(running.collect(), echoes, answers, limit).await
}

/// The text of a prompt, to be told before its continuation.
fn text_of(input: &Input) -> Result<String> {
    match input {
        Input::Prompt(Prompt::Text { text, .. }) => Ok(text.clone()),
        _ => Err(Error::new("unsupported", "`echo` goes with a prompt that is text")),
    }
}

async fn whole(
    running: Vec<Awaited>,
    echoes: Vec<Option<String>>,
    answers: usize,
    limit: Duration,
) -> Result<Response> {
    let (mut choices, mut total) = (Vec::new(), Total { answers, ..Total::default() });
    let (mut route, mut timings, mut answer) = (String::new(), Value::Null, Answer::new());
    for (index, (running, echo)) in running.into_iter().zip(echoes).enumerate() {
        let finished = running.finish(limit).await?;
        let summary = summary(&finished.outcome.output)?;
        total.add(index, summary.usage);
        let echo = echo.unwrap_or_default();
        let offset = echo.chars().count();
        choices.push(json!({
            "index": index,
            "text": echo + &finished.text(),
            "logprobs": logprobs(&finished.pieces, offset),
            "finish_reason": finish(summary.finish_reason, false),
        }));
        timings = json!(summary.timings);
        route = route_header(&finished.outcome.route);
        answer.model.clone_from(&finished.outcome.route.model);
    }
    let mut object = answer.object(Value::Array(choices));
    object["usage"] = usage(&total.usage);
    object["timings"] = timings;
    Ok(([("x-pajamas-route", route)], Json(object)).into_response())
}

/// Answers in pieces.
struct Chunks {
    echoes: Vec<Option<String>>,
    /// How many characters of each answer were told, where its next token's begin.
    told: Vec<usize>,
    with_usage: bool,
    total: Total,
    timings: Value,
    answer: Answer,
}

impl Chunks {
    fn new(echoes: Vec<Option<String>>, answers: usize, with_usage: bool) -> Self {
        let told = echoes.iter().map(|echo| echo.as_ref().map_or(0, |text| text.chars().count())).collect();
        let total = Total { answers, ..Total::default() };
        Self { echoes, told, with_usage, total, timings: Value::Null, answer: Answer::new() }
    }

    fn chunk(&self, index: usize, text: &str, logprobs: &Value, reason: Option<&str>) -> Line {
        let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason });
        Line::data(self.answer.object(json!([choice])))
    }
}

impl sse::Protocol for Chunks {
    fn begin(&mut self, route: &Route) -> Vec<Line> {
        self.answer.model.clone_from(&route.model);
        let echoes = self.echoes.iter().enumerate();
        echoes
            .filter_map(|(index, text)| Some(self.chunk(index, text.as_ref()?, &Value::Null, None)))
            .collect()
    }

    fn piece(&mut self, answer: usize, piece: &Piece) -> Vec<Line> {
        let logprobs = logprobs(std::slice::from_ref(piece), self.told[answer]);
        self.told[answer] += piece.text.chars().count();
        vec![self.chunk(answer, &piece.text, &logprobs, None)]
    }

    fn parts(&mut self, _: usize, _: &[Part]) -> Vec<Line> {
        Vec::new()
    }

    fn end(&mut self, answer: usize, summary: &GenerateSummary) -> Vec<Line> {
        self.total.add(answer, summary.usage);
        self.timings = json!(summary.timings);
        vec![self.chunk(answer, "", &Value::Null, Some(finish(summary.finish_reason, false)))]
    }

    fn fail(&mut self, refused: &Error) -> Vec<Line> {
        self.with_usage = false;
        vec![Line::data(error::body(refused))]
    }

    fn close(&mut self) -> Vec<Line> {
        let usage = self.with_usage.then(|| {
            let mut object = self.answer.object(json!([]));
            object["usage"] = usage(&self.total.usage);
            object["timings"] = self.timings.clone();
            Line::data(object)
        });
        usage.into_iter().chain([Line::data("[DONE]")]).collect()
    }
}

/// The fields that every object of one answer shares.
struct Answer {
    id: String,
    created: u64,
    model: String,
}

impl Answer {
    fn new() -> Self {
        let (id, created) = identity("cmpl-");
        Self { id, created, model: String::new() }
    }

    fn object(&self, choices: Value) -> Value {
        json!({ "id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": choices })
    }
}

/// What all answers used. A prompt counts once, however many answers it gets.
#[derive(Default)]
struct Total {
    /// Answers to each prompt.
    answers: usize,
    usage: Usage,
}

impl Total {
    fn add(&mut self, index: usize, answer: Usage) {
        let add = |total: &mut u32, more: u32| *total = total.saturating_add(more);
        if index.is_multiple_of(self.answers) {
            add(&mut self.usage.prompt_tokens, answer.prompt_tokens);
            add(&mut self.usage.cached_tokens, answer.cached_tokens);
        }
        add(&mut self.usage.completion_tokens, answer.completion_tokens);
    }
}

/// The older shape: lists side by side; null when nobody asked. The first token begins at `offset`, in characters.
fn logprobs(pieces: &[Piece], offset: usize) -> Value {
    let likely: Vec<_> = pieces.iter().filter_map(|piece| Some((piece, piece.logprob?))).collect();
    if likely.is_empty() {
        return Value::Null;
    }
    let top = likely.iter().map(|(piece, _)| piece.alternatives().collect::<serde_json::Map<_, _>>());
    let offsets = likely.iter().scan(offset, |offset, (piece, _)| {
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
