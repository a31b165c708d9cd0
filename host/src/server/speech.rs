//! `POST /v1/audio/speech`: a text, spoken, in the shapes of OpenAI's API.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_plugin_api::Prompt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use tokio_stream::{Stream, StreamExt};

use super::body;
use super::keep_alive::KeepAlive;
use super::params::Patience;
use super::sse::{self, Line, Protocol};
use super::stream::{Happened, Running, route_header, timed_out};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::speak::{Chunk, Format, SPEEDS, Speaking, Speech};
use crate::pipeline::{Input, Output, Params, Request, Route};

/// Formats of OpenAI's API that are not written: their encoders are no part of the product.
const UNWRITTEN: [&str; 3] = ["mp3", "opus", "aac"];
/// The rates that sound may be asked for at, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 8000..=192_000;

/// What is read of a request for speech.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SpeechBody {
    /// The model: an id of the configuration.
    model: Option<String>,
    /// What is to be said.
    input: String,
    /// Who speaks: the name or number of one of the model's voices; the first when not given, or `default`.
    voice: Option<Voice>,
    /// How the sound is written: `wav`, `flac` or `pcm`, which is 16 bits a sample, little-endian; `wav` when not given.
    #[schemars(extend("enum" = ["wav", "flac", "pcm", null]))]
    response_format: Option<String>,
    /// How fast: 2 takes half as long.
    #[schemars(range(min = 0.25, max = 4))]
    speed: Option<f32>,
    /// `audio`, the sound itself as it is spoken, or `sse`, server-sent events with it in base64.
    #[serde(default)]
    stream_format: StreamFormat,
    /// Samples a second; the voice's own when not given, but 24000 for `pcm`.
    #[schemars(range(min = 8000, max = 192_000))]
    sample_rate: Option<u32>,
    /// How long the model stays in memory after this request, and after later ones that do not say: a duration such as
    /// `"5m"`, or seconds. 0 frees it when nobody uses it any more; less than 0 keeps it until others need the room.
    keep_alive: Option<KeepAlive>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StreamFormat {
    #[default]
    Audio,
    Sse,
}

/// Who speaks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a name, or an object with `id`")]
enum Voice {
    Name(String),
    Object { id: String },
}

impl SpeechBody {
    fn speaking(&self) -> Result<Speaking> {
        let invalid = |message: String, help: String| Err(Error::new("invalid-input", message).help(help));
        let format = self.response_format.as_deref().unwrap_or("wav");
        let Some(format) = Format::of(format) else {
            let there = "ask for wav, flac or pcm";
            return match UNWRITTEN.contains(&format) {
                true => Err(Error::new("format-unsupported", format!("speech is not written as {format}"))
                    .help(there)),
                false => invalid(format!("`response_format` is {format:?}"), there.to_owned()),
            };
        };
        if let Some(speed) = self.speed.filter(|speed| !SPEEDS.contains(speed)) {
            let (least, most) = (SPEEDS.start(), SPEEDS.end());
            return invalid(format!("`speed` is {speed}"), format!("it can be {least} to {most}"));
        }
        if let Some(rate) = self.sample_rate.filter(|rate| !RATES.contains(rate)) {
            let (least, most) = (RATES.start(), RATES.end());
            return invalid(format!("`sample_rate` is {rate}"), format!("it can be {least} to {most}"));
        }
        if self.input.trim().is_empty() {
            return Err(Error::new("text-empty", "`input` is empty: there is nothing to say"));
        }
        let voice = self.voice.as_ref().map(|voice| match voice {
            Voice::Name(name) | Voice::Object { id: name } => name.clone(),
        });
        Ok(Speaking { voice, speed: self.speed, format, sample_rate: self.sample_rate })
    }
}

/// `POST /v1/audio/speech`: the sound leaves sentence by sentence, as it is spoken.
pub async fn speak(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: SpeechBody = body::json(&bytes)?;
    let speaking = body.speaking()?;
    let format = speaking.format;
    let limit = Patience::limit(&bytes, &host.config().server)?;
    let keep_alive = body.keep_alive.map(|KeepAlive(keep)| keep);
    let params = Params { speaking, keep_alive, ..Params::default() };
    let input = Input::Prompt(Prompt::text(body.input));
    let request = Request { task: Task::Speak, model: body.model, input, params };
    if matches!(body.stream_format, StreamFormat::Sse) {
        return sse::answer([Running::start(host, request)], Told, limit).await;
    }
    let deadline = Instant::now() + limit;
    let mut running = Running::start(host, request);
    let mut route = None;
    // What is refused gets its status, so the head waits for the first sentence.
    let first = loop {
        let next = tokio::time::timeout_at(deadline, running.next()).await.map_err(|_| timed_out(limit))?;
        match next.ok_or_else(|| Error::new("internal", "the request ended without an answer"))? {
            Happened::Route(chosen) => route = Some(chosen),
            Happened::Sound(chunk) => break chunk,
            Happened::Done(result) => {
                result.map(|_| ())?;
                return Err(Error::new("internal", "a request for speech ended without it"));
            }
            _ => {}
        }
    };
    let kind = match format {
        Format::Wav => "audio/wav",
        Format::Flac => "audio/flac",
        Format::Pcm => "audio/pcm",
    };
    let head = [("x-pajamas-sample-rate", first.sample_rate.to_string())];
    let route = route.map(|route| [("x-pajamas-route", route_header(&route))]);
    let sound = if first.last {
        // All of it is here: its length is known.
        while !matches!(running.next().await, Some(Happened::Done(_)) | None) {}
        HttpBody::from(first.bytes)
    } else {
        let sleep = Box::pin(tokio::time::sleep_until(deadline));
        let first = Some(first.bytes);
        HttpBody::from_stream(Sound { first, running, deadline: sleep, failed: None, over: false })
    };
    Ok(([(CONTENT_TYPE, kind)], head, route.map(axum::response::AppendHeaders), sound).into_response())
}

/// The bytes of what is spoken, as they come. When something fails in between, the body breaks off, so that nobody takes it
/// for whole.
struct Sound {
    first: Option<Vec<u8>>,
    running: Running,
    deadline: Pin<Box<Sleep>>,
    failed: Option<io::Error>,
    over: bool,
}

impl Stream for Sound {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first.into())));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        while !self.over {
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some(Happened::Sound(chunk))) => {
                    return Poll::Ready(Some(Ok(chunk.bytes.into())));
                }
                Poll::Ready(Some(Happened::Done(result))) => {
                    self.over = true;
                    if let Err(error) = *result {
                        // A connection that breaks takes with it what was not sent yet: that leaves first.
                        self.failed = Some(io::Error::other(error.message().to_owned()));
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => self.over = true,
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(context));
                    self.over = true;
                    return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
                }
            }
        }
        Poll::Ready(None)
    }
}

/// OpenAI's events: a delta for each sentence, what was used at the end.
struct Told;

impl Protocol for Told {
    fn begin(&mut self, _route: &Route) -> Vec<Line> {
        Vec::new()
    }

    fn sound(&mut self, chunk: &Chunk) -> Vec<Line> {
        let audio = STANDARD.encode(&chunk.bytes);
        vec![Line::data(json!({ "type": "speech.audio.delta", "audio": audio }))]
    }

    fn finish(&mut self, _answer: usize, output: &Output) -> Result<Vec<Line>> {
        let Output::Speech(speech) = output else {
            return Err(Error::new("internal", "speaking ended without speech"));
        };
        let Speech { ids, sample_rate, .. } = speech;
        let usage = json!({ "input_tokens": ids, "output_tokens": 0, "total_tokens": ids });
        let seconds = (speech.seconds() * 1000.0).round() / 1000.0;
        Ok(vec![Line::data(json!({
            "type": "speech.audio.done",
            "usage": usage,
            "sample_rate": sample_rate,
            "seconds": seconds,
        }))])
    }

    fn fail(&mut self, error: &Error) -> Vec<Line> {
        vec![Line::data(super::error::body(error))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaking(body: serde_json::Value) -> Result<Speaking> {
        body::json::<SpeechBody>(body.to_string().as_bytes())?.speaking()
    }

    #[test]
    fn a_body_says_how_to_speak() {
        let speaking = speaking(json!({
            "model": "tts-1", "input": "Hello.", "voice": { "id": "amy" }, "response_format": "pcm", "speed": 2, "instructions": "Smile.",
        }))
        .unwrap();
        assert_eq!(
            (speaking.voice.as_deref(), speaking.speed, speaking.format),
            (Some("amy"), Some(2.0), Format::Pcm)
        );
        assert_eq!(speaking.rate(), Some(24_000));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said() {
        for (field, value, code) in [
            ("response_format", json!("mp3"), "format-unsupported"),
            ("response_format", json!("ogg"), "invalid-input"),
            ("speed", json!(0.1), "invalid-input"),
            ("speed", json!(5), "invalid-input"),
            ("speed", json!(1e300), "invalid-input"),
            ("sample_rate", json!(1), "invalid-input"),
            ("voice", json!(7), "invalid-input"),
            ("stream_format", json!("mp3"), "invalid-input"),
            ("input", json!(" \n"), "text-empty"),
            ("input", json!(["a"]), "invalid-input"),
        ] {
            let mut body = json!({ "input": "Hello." });
            body[field] = value;
            assert_eq!(speaking(body.clone()).unwrap_err().code(), code, "{body}");
        }
    }
}
