//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: what is said in a recording, in the shapes of OpenAI's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde_json::{Value as Json_, json};

use super::body;
use super::sse::{self, Line, Protocol};
use super::stream::{Awaited, Running, route_header};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::transcribe::{Segment, Transcript};
use crate::pipeline::{Input, Output, Params, Request, Route, encode};
use crate::value::{Value, Values};

/// The fields of the form, beside the recording.
#[derive(Debug, Default, JsonSchema)]
#[schemars(rename = "Recording")]
pub struct Form {
    /// The model: an id of the configuration.
    model: Option<String>,
    /// The language spoken, by code or English name; found out when not given.
    language: Option<String>,
    /// Words that came before, or names to expect.
    prompt: Option<String>,
    /// How the answer is written: `json`, `text`, `srt`, `vtt` or `verbose_json`.
    #[schemars(extend("enum" = FORMATS))]
    response_format: Option<String>,
    /// 0 takes the likeliest words and tries others where those are not good enough; above, words are drawn.
    #[schemars(range(min = 0, max = 1))]
    temperature: Option<f32>,
    /// Whether the answer comes as server-sent events, each stretch of speech as soon as it is certain.
    stream: Option<bool>,
    /// Which times are wanted of `verbose_json`: those of segments. Those of words are refused.
    #[schemars(rename = "timestamp_granularities[]")]
    granularities: Vec<String>,
    /// How many beams to follow at temperature 0.
    #[schemars(range(min = 1, max = 16))]
    beam_size: Option<u32>,
    /// How many texts to draw above temperature 0, of which the likeliest is taken.
    #[schemars(range(min = 1, max = 16))]
    best_of: Option<u32>,
    /// Of the random numbers.
    seed: Option<u64>,
}

const FORMATS: [&str; 5] = ["json", "text", "srt", "vtt", "verbose_json"];

/// A form with its recording.
struct Upload {
    bytes: Vec<u8>,
    form: Form,
}

impl Upload {
    async fn read(request: HttpRequest, host: &Arc<Host>) -> Result<Self> {
        let wrong = |e: MultipartError| body::unreadable(e.body_text(), e.status());
        let mut parts = Multipart::from_request(request, host).await.map_err(|e| {
            body::unreadable(e.body_text(), e.status())
                .help("send a multipart form with the recording as its `file`")
        })?;
        let (mut bytes, mut form) = (None, Form::default());
        while let Some(field) = parts.next_field().await.map_err(wrong)? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                bytes = Some(field.bytes().await.map_err(wrong)?.into());
            } else {
                form.take(&name, field.text().await.map_err(wrong)?)?;
            }
        }
        let bytes = bytes.ok_or_else(|| {
            Error::new("invalid-input", "the form has no `file`")
                .help("send the recording as the form's `file`")
        })?;
        Ok(Self { bytes, form })
    }
}

impl Form {
    fn take(&mut self, name: &str, text: String) -> Result<()> {
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T> {
            let wrong = || Error::new("invalid-input", format!("`{name}` must be a number, not {text:?}"));
            text.trim().parse().map_err(|_| wrong())
        }
        match name {
            "model" => self.model = Some(text),
            "language" => self.language = Some(text).filter(|language| !language.trim().is_empty()),
            "prompt" => self.prompt = Some(text),
            "response_format" => self.response_format = Some(text),
            "temperature" => self.temperature = Some(number(name, &text)?),
            "beam_size" => self.beam_size = Some(number(name, &text)?),
            "best_of" => self.best_of = Some(number(name, &text)?),
            "seed" => self.seed = Some(number(name, &text)?),
            "stream" => {
                self.stream = Some(match text.trim().to_ascii_lowercase().as_str() {
                    "true" | "1" => true,
                    "false" | "0" | "" => false,
                    _ => {
                        let message = format!("`stream` must be true or false, not {text:?}");
                        return Err(Error::new("invalid-input", message));
                    }
                });
            }
            "timestamp_granularities[]" | "timestamp_granularities" => self.granularities.push(text),
            _ => {}
        }
        Ok(())
    }

    /// How the answer is written.
    fn format(&self) -> Result<&'static str> {
        let asked = self.response_format.as_deref().unwrap_or("json");
        let invalid = |message: String, help: String| Error::new("invalid-input", message).help(help);
        let format = FORMATS.into_iter().find(|format| *format == asked).ok_or_else(|| {
            invalid(format!("`response_format` is {asked:?}"), format!("it can be {}", FORMATS.join(", ")))
        })?;
        if self.stream == Some(true) && !matches!(format, "json" | "text") {
            let message = format!("a stream cannot be written as {format}");
            return Err(invalid(message, "leave `response_format` out of a streamed request".to_owned()));
        }
        Ok(format)
    }

    fn params(&self) -> Result<Params> {
        let mut params = Params::default();
        let listening = &mut params.listening;
        for (name, value) in [("beam_size", self.beam_size), ("best_of", self.best_of)] {
            if let Some(value) = value.filter(|value| !(1..=16).contains(value)) {
                return Err(Error::new(
                    "invalid-input",
                    format!("`{name}` is {value}: 1 to 16 are possible"),
                ));
            }
        }
        if let Some(temperature) = self.temperature {
            if !(0.0..=1.0).contains(&temperature) {
                let message = format!("`temperature` is {temperature}: 0 to 1 are possible");
                return Err(Error::new("invalid-input", message));
            }
            listening.set_temperature(temperature);
        }
        for granularity in &self.granularities {
            match granularity.as_str() {
                "segment" => {}
                "word" => listening.words = true,
                other => {
                    let message = format!("`timestamp_granularities[]` has {other:?}");
                    return Err(Error::new("invalid-input", message).help("it can have `segment` and `word`"));
                }
            }
        }
        listening.language.clone_from(&self.language);
        listening.prompt.clone_from(&self.prompt);
        (listening.beam_size, listening.best_of) = (self.beam_size, self.best_of);
        listening.seed = self.seed;
        Ok(params)
    }
}

/// `POST /v1/audio/transcriptions`
pub async fn transcriptions(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    listen(host, request, false).await
}

/// `POST /v1/audio/translations`
pub async fn translations(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    listen(host, request, true).await
}

async fn listen(host: Arc<Host>, request: HttpRequest, translate: bool) -> Result<Response> {
    let Upload { bytes, form } = Upload::read(request, &host).await?;
    let format = form.format()?;
    let mut params = form.params()?;
    params.listening.translate = translate;
    let values = Values::from_iter([("bytes".to_owned(), Value::Bytes(bytes))]);
    let request = Request { task: Task::Transcribe, model: form.model, input: Input::Values(values), params };
    let limit = host.config().server.request_timeout.duration();
    if form.stream == Some(true) {
        return sse::answer([Running::start(host, request)], Stream::default(), limit).await;
    }
    let outcome = Awaited::start(host, request).finish(limit).await?.outcome;
    let transcript = transcript(&outcome.output)?;
    let route = [("x-pajamas-route", route_header(&outcome.route))];
    let text = |kind: &'static str, text: String| ([(CONTENT_TYPE, kind)], text).into_response();
    let answer = match format {
        "text" => text("text/plain; charset=utf-8", format!("{}\n", transcript.text)),
        "srt" => text("text/plain; charset=utf-8", transcript.srt()),
        "vtt" => text("text/vtt; charset=utf-8", transcript.vtt()),
        "verbose_json" => Json(encode::transcript(transcript)).into_response(),
        _ => Json(json!({ "text": transcript.text, "usage": encode::duration(transcript) })).into_response(),
    };
    Ok((route, answer).into_response())
}

fn transcript(output: &Output) -> Result<&Transcript> {
    match output {
        Output::Transcript(transcript) => Ok(transcript),
        _ => Err(Error::new("internal", "transcribe ended without a transcript")),
    }
}

/// OpenAI's events: a delta for each segment, all of it at the end.
#[derive(Default)]
struct Stream {
    begun: bool,
}

impl Protocol for Stream {
    fn begin(&mut self, _route: &Route) -> Vec<Line> {
        Vec::new()
    }

    fn segment(&mut self, segment: &Segment) -> Vec<Line> {
        // The text of a recording does not begin with the space that parts segments.
        let delta = if self.begun { segment.text.as_str() } else { segment.text.trim_start() };
        if delta.is_empty() {
            return Vec::new();
        }
        self.begun = true;
        vec![Line::data(json!({ "type": "transcript.text.delta", "delta": delta }))]
    }

    fn finish(&mut self, _answer: usize, output: &Output) -> Result<Vec<Line>> {
        let transcript = transcript(output)?;
        let (given, written) = (transcript.prompt_tokens, transcript.completion_tokens);
        let usage: Json_ = json!({
            "type": "tokens",
            "input_tokens": given,
            "output_tokens": written,
            "total_tokens": given.saturating_add(written),
        });
        Ok(vec![Line::data(
            json!({ "type": "transcript.text.done", "text": transcript.text, "usage": usage }),
        )])
    }

    fn fail(&mut self, error: &Error) -> Vec<Line> {
        vec![Line::data(super::error::body(error))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> Result<(Form, Params)> {
        let mut form = Form::default();
        for (name, text) in fields {
            form.take(name, (*text).to_owned())?;
        }
        form.format()?;
        let params = form.params()?;
        Ok((form, params))
    }

    #[test]
    fn a_form_says_how_to_listen() {
        let (form, params) = form(&[
            ("language", "de"),
            ("temperature", "0.4"),
            ("timestamp_granularities[]", "word"),
            ("stream", "True"),
            ("include[]", "logprobs"),
        ])
        .unwrap();
        assert_eq!((params.listening.temperatures, params.listening.words), (vec![0.4], true));
        assert_eq!((form.stream, params.listening.language.as_deref()), (Some(true), Some("de")));
    }

    #[test]
    fn what_is_wrong_with_a_form_is_said() {
        for (fields, words) in [
            (&[("temperature", "hot")][..], "`temperature` must be a number"),
            (&[("temperature", "2")], "`temperature` is 2"),
            (&[("temperature", "NaN")], "`temperature` is NaN"),
            (&[("response_format", "pdf")], "`response_format` is \"pdf\""),
            (&[("response_format", "srt"), ("stream", "true")], "cannot be written as srt"),
            (&[("stream", "maybe")], "`stream` must be"),
            (&[("beam_size", "0")], "`beam_size` is 0"),
            (&[("timestamp_granularities[]", "phone")], "has \"phone\""),
        ] {
            let error = form(fields).map(|_| ()).unwrap_err();
            assert_eq!(error.code(), "invalid-input");
            assert!(error.message().contains(words), "{error}");
        }
    }
}
