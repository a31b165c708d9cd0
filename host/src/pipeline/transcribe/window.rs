//! One window of sound to tokens, by a session that offers `pajamas.transcribe/1`: with another temperature where the text
//! is not good enough, as `decode_with_fallback` of OpenAI's `whisper/transcribe.py` does.

use std::io::Write;
use std::ops::ControlFlow;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pajamas_plugin_api::{Cancel, EventSink, Extension, NamedTensor};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::params::Listening;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::pipeline::request::Event;
use crate::pipeline::tensors::Outputs;
use crate::value::Tensor;

/// The extension's name.
pub const EXTENSION: &str = "pajamas.transcribe/1";

/// A session listening to one recording, window after window.
pub struct Listener<'l> {
    pub extension: Box<dyn Extension>,
    pub vocabulary: &'l Vocabulary,
    pub params: &'l Listening,
    pub events: &'l mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    pub cancel: &'l Cancel,
    /// Tokens that were written, rejected ones included.
    pub written: u32,
    /// Tokens that were given.
    pub given: u32,
}

/// What was heard in a window.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub tokens: Vec<u32>,
    pub temperature: f32,
    pub avg_logprob: f32,
    pub compression_ratio: f32,
    pub no_speech: f32,
}

#[derive(Deserialize)]
struct Answer {
    tokens: Vec<u32>,
    avg_logprob: f32,
    #[serde(default)]
    no_speech: Option<f32>,
}

#[derive(Deserialize)]
struct Shares {
    probabilities: Vec<f32>,
}

impl Listener<'_> {
    /// The likeliest language of a window.
    ///
    /// # Errors
    /// The backend's.
    pub fn language(&mut self, mel: &Tensor) -> Result<String> {
        let Vocabulary { start, languages, .. } = self.vocabulary;
        let ids: Vec<u32> = languages.iter().map(|(_, id)| *id).collect();
        let shares: Shares = self.call(&json!({ "prompt": [start], "choose": ids }), Some(mel))?;
        let named = shares.probabilities.into_iter().zip(languages.iter().map(|(code, _)| code.as_str()));
        // Of equal ones the first: Whisper lists the most spoken ones first.
        let (_, code) = named.fold((0.0, "en"), |best, next| if next.0 > best.0 { next } else { best });
        Ok(code.to_owned())
    }

    /// Writes down what is said in a window, after the words of `before` and the tokens that say what to do.
    ///
    /// # Errors
    /// The backend's; `cancelled`.
    pub fn listen(&mut self, mel: &Tensor, before: &[u32], steering: &[u32]) -> Result<Heard> {
        let call = self.question(before, steering);
        let mut heard = Heard::default();
        for (number, temperature) in self.params.temperatures.clone().into_iter().enumerate() {
            let mut call = call.clone();
            call["temperature"] = json!(temperature);
            let several = if temperature > 0.0 {
                ("best_of", self.params.best_of)
            } else {
                ("beam_size", self.params.beam_size)
            };
            if let (name, Some(count)) = several {
                call[name] = json!(count);
            }
            // What the encoder made of the window stays with the session for further tries.
            let answer: Answer = self.call(&call, Some(mel).filter(|_| number == 0))?;
            self.given = self.given.saturating_add(count(&call["prompt"]));
            self.written =
                self.written.saturating_add(u32::try_from(answer.tokens.len()).unwrap_or(u32::MAX));
            heard = Heard {
                compression_ratio: compression_ratio(self.vocabulary.text(&answer.tokens).trim()),
                tokens: answer.tokens,
                temperature,
                avg_logprob: answer.avg_logprob,
                no_speech: answer.no_speech.unwrap_or(0.0),
            };
            if heard.is_good(self.params) {
                break;
            }
        }
        Ok(heard)
    }

    fn question(&self, before: &[u32], steering: &[u32]) -> Json {
        let Vocabulary { context, end, start, .. } = *self.vocabulary;
        let half = context / 2;
        let mut prompt = Vec::with_capacity(half + steering.len());
        if let (Some(previous), false) = (self.vocabulary.previous, before.is_empty()) {
            prompt.push(previous);
            prompt.extend_from_slice(&before[before.len().saturating_sub(half - 1)..]);
        }
        let after = prompt.len() + steering.iter().position(|token| *token == start).unwrap_or(0);
        prompt.extend_from_slice(steering);
        let mut call = json!({
            "prompt": prompt,
            "end": end,
            "max_tokens": half.min(context.saturating_sub(prompt.len())).max(1),
            "suppress": self.vocabulary.suppress,
            "begin_suppress": self.vocabulary.begin_suppress,
        });
        if let Some(token) = self.vocabulary.no_speech {
            call["no_speech"] = json!({ "token": token, "after": after });
        }
        if let Some(begin) = self.vocabulary.timestamps {
            let (none, most) = (self.vocabulary.no_timestamps, self.vocabulary.max_initial);
            call["timestamps"] = json!({ "begin": begin, "none": none, "max_initial": most });
        }
        if let Some(seed) = self.params.seed {
            call["seed"] = json!(seed);
        }
        call
    }

    fn call<T: for<'a> Deserialize<'a>>(&mut self, call: &Json, mel: Option<&Tensor>) -> Result<T> {
        let tensors = mel.map(|mel| Ok(NamedTensor { name: "mel", tensor: mel.view()? }));
        let tensors = tensors.into_iter().collect::<Result<Vec<_>>>()?;
        let mut told = Told(&mut *self.events);
        let bytes = call.to_string().into_bytes();
        // It writes no tensors.
        let mut outputs = Outputs::new(0);
        let answer = self.extension.call(&bytes, &tensors, &mut told, &mut outputs, self.cancel)?;
        serde_json::from_slice(&answer)
            .map_err(|e| Error::new("plugin-protocol", format!("the answer of {EXTENSION}: {e}")))
    }
}

fn count(tokens: &Json) -> u32 {
    tokens.as_array().map_or(0, |tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX))
}

/// The session's tokens as events: counted, not yet text, since a better try may replace them.
struct Told<'t>(&'t mut dyn FnMut(Event<'_>) -> ControlFlow<()>);

impl EventSink for Told<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        if name != "token" {
            return ControlFlow::Continue(());
        }
        let id = serde_json::from_slice::<Json>(payload).ok().and_then(|token| token["id"].as_u64());
        let id = id.and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
        (self.0)(Event::Token { id, text: "", logprob: None, extras: "" })
    }
}

impl Heard {
    /// Whether no other temperature needs to be tried.
    fn is_good(&self, params: &Listening) -> bool {
        let repeats = params.compression_ratio.is_some_and(|most| self.compression_ratio > most);
        let unlikely = params.logprob.is_some_and(|least| self.avg_logprob < least);
        let silence = unlikely && params.no_speech.is_some_and(|most| self.no_speech > most);
        silence || !(repeats || unlikely)
    }

    /// Whether nobody spoke.
    pub fn is_silence(&self, params: &Listening) -> bool {
        let likely = params.logprob.is_some_and(|least| self.avg_logprob > least);
        params.no_speech.is_some_and(|most| self.no_speech > most) && !likely
    }
}

/// How many times shorter a text is when zlib has compressed it: above two and a half it repeats itself.
fn compression_ratio(text: &str) -> f32 {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    // Memory takes all that is written.
    let compressed = zlib.write_all(text.as_bytes()).and_then(|()| zlib.finish()).unwrap_or_default();
    text.len() as f32 / compressed.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_itself_compresses() {
        assert!(compression_ratio("and so my fellow Americans, ask not what your country can do") < 1.5);
        assert!(compression_ratio(&"thank you ".repeat(40)) > 2.4);
        assert_eq!(compression_ratio(""), 0.0);
    }

    #[test]
    fn another_temperature_is_tried_unless_nobody_spoke() {
        let params = Listening::default();
        let good = Heard { avg_logprob: -0.2, compression_ratio: 1.0, ..Heard::default() };
        assert!(good.is_good(&params) && !good.is_silence(&params));
        assert!(!Heard { compression_ratio: 3.0, ..good.clone() }.is_good(&params));
        let unlikely = Heard { avg_logprob: -2.0, ..good.clone() };
        assert!(!unlikely.is_good(&params));
        let silence = Heard { no_speech: 0.9, ..unlikely };
        assert!(silence.is_good(&params) && silence.is_silence(&params));
        assert!(!Heard { no_speech: 0.9, ..good }.is_silence(&params));
    }
}
