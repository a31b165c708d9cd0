//! The extension `pajamas.transcribe/1`: a window of sound to tokens. `docs/src/abi-versioning.md` says what each byte
//! means.

use std::sync::{Arc, Mutex, PoisonError};

use half::f16;
use pajamas_plugin_api::{
    Cancel, DType, EventSink, Extension, NamedTensor, PluginError, Result, TensorSink, TensorView, codes,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Parts;
use super::decoder::Decoding;
use super::engine::{Engine, Feed};
use super::search::{Plan, Search, log_sum_exp};
use super::whisper::Whisper;
use crate::error::{MODEL_UNSUPPORTED, internal};
use crate::input::Aligned;

/// The extension's name.
pub(super) const NAME: &str = "pajamas.transcribe/1";

/// The tensor with the spectrogram.
const MEL: &str = "mel";

/// The most tokens that a call may name, and that an answer may have.
const MOST_TOKENS: usize = 1 << 16;
/// The most texts side by side.
const MOST_ROWS: usize = 64;

/// One listener: it keeps what the encoder made of the last window that it was given.
pub(super) struct Transcribe<E: Engine> {
    encoded: Mutex<Option<E::Kept>>,
    parts: Arc<Parts<E>>,
}

/// What every call says.
#[derive(Deserialize)]
struct Call {
    /// Tokens that the text begins with, not part of the answer.
    prompt: Vec<u32>,
    /// Only says how likely these tokens are to come next.
    #[serde(default)]
    choose: Option<Vec<u32>>,
}

/// What a call says that wants a text.
#[derive(Deserialize)]
struct Write {
    #[serde(flatten)]
    plan: Plan,
    #[serde(flatten)]
    rules: Whisper,
    #[serde(default)]
    no_speech: Option<NoSpeech>,
}

/// How likely it is that nobody speaks: the probability of a token after another one of the prompt.
#[derive(Deserialize)]
struct NoSpeech {
    token: u32,
    /// The place in the prompt after which it would come.
    after: usize,
}

#[derive(Serialize)]
struct Answer {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    sum_logprob: f32,
    avg_logprob: f32,
    no_speech: Option<f32>,
    finish: &'static str,
}

impl<E: Engine> Transcribe<E> {
    pub(super) fn new(parts: &Arc<Parts<E>>) -> Self {
        Self { encoded: Mutex::default(), parts: Arc::clone(parts) }
    }

    /// Runs the encoder over a window.
    fn encode(&self, mel: &TensorView<'_>, cancel: &Cancel) -> Result<E::Kept> {
        let encoder = &self.parts.encoder;
        let ports = encoder.ports();
        let ([input], Some(_)) = (ports.inputs.as_slice(), ports.outputs.first()) else {
            return Err(PluginError::new(
                MODEL_UNSUPPORTED,
                format!(
                    "the encoder has {} inputs: one, the spectrogram, was looked for",
                    ports.inputs.len()
                ),
            )
            .help("export the model with Optimum's task `automatic-speech-recognition-with-past`"));
        };
        let aligned = Aligned::new(MEL, mel)?;
        let mel = aligned.view()?;
        let halves: Vec<u16>;
        let mel = match (mel.dtype(), input.dtype) {
            (DType::F32, DType::F16) => {
                let floats: &[f32] = mel.elements()?;
                halves = floats.iter().map(|value| f16::from_f32(*value).to_bits()).collect();
                TensorView::new(DType::F16, mel.shape(), pajamas_plugin_api::as_bytes(&halves))?
            }
            _ => mel,
        };
        ports.bind(&[NamedTensor { name: &input.name, tensor: mel }])?;
        let left = encoder.run(vec![Feed::Host(mel)], &[0], cancel)?;
        left.into_iter().next().ok_or_else(|| internal(encoder.name(), "a run without an output"))
    }
}

impl<E: Engine> Extension for Transcribe<E> {
    fn call(
        &self,
        input: &[u8],
        tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: Call = parse(input)?;
        call.check()?;
        let write: Option<Write> = if call.choose.is_none() { Some(parse(input)?) } else { None };
        write.as_ref().map_or(Ok(()), Write::check)?;
        let end = write.as_ref().map(|write| write.plan.end);
        let named = || call.prompt.iter().copied().chain(end);
        if let Some(vocabulary) = self.parts.decoder.vocabulary() {
            known(named(), vocabulary)?;
        }
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        for NamedTensor { name, tensor } in tensors {
            if *name != MEL {
                return Err(PluginError::invalid_input(format!("{NAME} takes no tensor `{name}`"))
                    .help("its tensor is `mel`"));
            }
            *encoded = None;
            *encoded = Some(self.encode(tensor, cancel)?);
        }
        let encoded = encoded.as_ref().ok_or_else(|| {
            PluginError::invalid_input(format!("the first call of {NAME} needs the tensor `{MEL}`"))
        })?;
        let (decoding, prompted) = Decoding::begin(&self.parts.decoder, encoded, &call.prompt, cancel)?;
        let engine = &self.parts.encoder;
        known(named(), prompted.vocabulary())?;
        let logits = prompted.last(engine)?;
        let Some(Write { plan, rules, no_speech }) = write else {
            return json(&json!({ "probabilities": shares(&logits, &call.choose.unwrap_or_default()) }));
        };
        let no_speech = match no_speech {
            None => None,
            Some(asked) => {
                let logits = prompted.at(engine, asked.after)?;
                let logit = logits.get(asked.token as usize).copied().unwrap_or(f32::NEG_INFINITY);
                Some((logit - log_sum_exp(&logits)).exp()).filter(|share| share.is_finite())
            }
        };
        drop(prompted);
        let rules = Whisper { end: plan.end, ..rules };
        let search = Search { decoding, logits, plan: &plan, rules: &rules };
        let mut told = |id: u32, logprob: f32| {
            events.event("token", json!({ "id": id, "logprob": logprob }).to_string().as_bytes())
        };
        let found = search.run(&mut told, cancel)?;
        json(&Answer {
            avg_logprob: found.sum / (found.tokens.len() + 1) as f32,
            tokens: found.tokens,
            logprobs: found.logprobs,
            sum_logprob: found.sum,
            no_speech,
            finish: if found.ended { "end" } else { "length" },
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(input: &'a [u8]) -> Result<T> {
    serde_json::from_slice(input).map_err(|e| refused(e.to_string()))
}

fn refused(what: String) -> PluginError {
    PluginError::invalid_input(format!("the call of {NAME}: {what}"))
}

impl Call {
    fn check(&self) -> Result<()> {
        let tokens = self.prompt.len();
        match tokens {
            1..=MOST_TOKENS => Ok(()),
            _ => Err(refused(format!("`prompt` has {tokens} tokens: 1 to {MOST_TOKENS} are possible"))),
        }
    }
}

impl Write {
    fn check(&self) -> Result<()> {
        let Self { plan, rules, .. } = self;
        if !(1..=MOST_TOKENS).contains(&plan.max_tokens) {
            return Err(refused(format!(
                "`max_tokens` is {}: 1 to {MOST_TOKENS} are possible",
                plan.max_tokens
            )));
        }
        let numbers = [
            ("temperature", Some(plan.temperature)),
            ("patience", plan.patience),
            ("length_penalty", plan.length_penalty),
        ];
        for (name, number) in numbers {
            if let Some(number) = number.filter(|number| !(0.0..=100.0).contains(number)) {
                return Err(refused(format!("`{name}` is {number}: 0 to 100 are possible")));
            }
        }
        for (name, rows) in [("beam_size", plan.beam_size), ("best_of", plan.best_of)] {
            if let Some(rows) = rows.filter(|rows| !(1..=MOST_ROWS).contains(rows)) {
                return Err(refused(format!("`{name}` is {rows}: 1 to {MOST_ROWS} are possible")));
            }
        }
        if rules.suppress.len().max(rules.begin_suppress.len()) > MOST_TOKENS {
            return Err(refused(format!("more than {MOST_TOKENS} tokens are suppressed")));
        }
        Ok(())
    }
}

/// Whether the model has the tokens that matter.
fn known(mut tokens: impl Iterator<Item = u32>, vocabulary: usize) -> Result<()> {
    match tokens.find(|token| *token as usize >= vocabulary) {
        None => Ok(()),
        Some(token) => Err(PluginError::invalid_input(format!(
            "the model has {vocabulary} tokens, and {token} is none of them"
        ))
        .help("the model's tokenizer.json and generation_config.json must be those it was made with")),
    }
}

/// How the probability of tokens divides among them.
fn shares(logits: &[f32], tokens: &[u32]) -> Vec<f32> {
    let logit = |token: &u32| logits.get(*token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let chosen: Vec<f32> = tokens.iter().map(logit).collect();
    let total = log_sum_exp(&chosen);
    chosen
        .into_iter()
        .map(|logit| (logit - total).exp())
        .map(|p| if p.is_finite() { p } else { 0.0 })
        .collect()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))
}
