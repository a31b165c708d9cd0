//! Turns speech into text: a recording through stages, windows of thirty seconds through a session, tokens into segments.
//!
//! Follows `transcribe` of OpenAI's `whisper/transcribe.py`, with two differences. The spectrogram is made window by
//! window, with silence behind a short one, as models of this kind are trained: not of the whole recording at once, whose
//! memory would grow with its length. And stretches without speech are passed over where the pipeline finds them.

mod languages;
mod params;
mod segments;
mod steps;
mod transcript;
mod vocabulary;
mod window;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, Session, Signature};

pub use languages::{code as language_code, name as language_name};
pub use params::Listening;
pub use steps::{default_steps, tokenize};
pub use transcript::{Segment, Transcript};
pub use vocabulary::Vocabulary;
use window::{EXTENSION, Heard, Listener};

use super::request::{Event, StepTime};
use super::run::Prepared;
use crate::error::{Error, Result};
use crate::value::{Audio, Tensor, Value, Values};

/// Samples in a second of what the model listens to.
const RATE: u32 = 16_000;
/// Samples in a hundredth of a second: a frame of the spectrogram.
const FRAME: u64 = RATE as u64 / 100;
/// A window, in frames.
const WINDOW: u64 = 3000;
/// Speech that is no further apart is heard together, in frames.
const PAUSE: u64 = 100;
/// The temperature above which what was said is not told to the next window.
const UNSURE: f32 = 0.5;

/// What a transcription works with.
pub struct Transcriber<'t> {
    /// The pipeline's stages around the model.
    pub pipeline: &'t Prepared,
    /// The model's tokens.
    pub vocabulary: &'t Vocabulary,
    /// The model.
    pub session: &'t dyn Session,
    /// What it takes.
    pub signature: &'t Signature,
    /// How to transcribe.
    pub params: &'t Listening,
    /// The tokens of `params.prompt`.
    pub prompt: Vec<u32>,
}

impl Transcriber<'_> {
    /// Transcribes the recording in `values`. Tells each token as it is written, and each segment as soon as it is certain.
    ///
    /// # Errors
    /// The stages' (`audio-invalid`, `audio-too-large`, …) and the backend's; `language-unknown`; `unsupported` for a model
    /// that cannot do what is asked; `cancelled`.
    pub fn run(
        &self,
        values: Values,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &Cancel,
    ) -> Result<(Transcript, Vec<StepTime>)> {
        let extension = self.session.extension(EXTENSION).ok_or_else(|| {
            Error::new("unsupported", "the model's backend does not transcribe it").help(
                "name the encoder_model.onnx of a Whisper model, with decoder_model.onnx and decoder_with_past_model.onnx \
                 beside it",
            )
        })?;
        self.check()?;
        let window = self.pipeline.window()?;
        let (mut values, mut steps) = self.pipeline.run_stages(0..window, values, cancel)?;
        let Some(Value::Audio(audio)) = values.take("audio") else {
            return Err(Error::new("pipeline-incomplete", "the stages before the last leave no `audio`")
                .help("begin the pipeline with audio-decode and resample"));
        };
        if audio.sample_rate != RATE || audio.channels != 1 {
            let Audio { sample_rate, channels, .. } = audio;
            let message =
                format!("`audio` has {channels} channels at {sample_rate} Hz: one at {RATE} Hz is needed");
            return Err(Error::new("pipeline-incomplete", message).help("put the stage resample before"));
        }
        let stretches = speech(&values, frames(&audio));
        let mut listener = Listener {
            extension,
            vocabulary: self.vocabulary,
            params: self.params,
            events,
            cancel,
            written: 0,
            given: 0,
        };
        let mut recording = Recording {
            transcriber: self,
            audio: &audio,
            window,
            looking: Duration::ZERO,
            listening: Duration::ZERO,
        };
        let transcript = recording.transcribe(&mut listener, &stretches)?;
        steps.push(StepTime { step: self.pipeline.name(window).to_owned(), time: recording.looking });
        steps.push(StepTime { step: "model".to_owned(), time: recording.listening });
        Ok((transcript, steps))
    }

    /// Whether the model can do what is asked.
    fn check(&self) -> Result<()> {
        let unsupported = |what: &str, help: &str| Err(Error::new("unsupported", what).help(help));
        if self.params.words {
            return unsupported(
                "times of single words are not made: exports of this kind do not show what the decoder looks at",
                "ask for times of segments",
            );
        }
        if self.params.translate
            && (self.vocabulary.languages.is_empty() || self.vocabulary.translate.is_none())
        {
            return unsupported("the model does not translate", "choose a model of several languages");
        }
        Ok(())
    }

    /// The language that was asked for.
    fn language(&self) -> Result<Option<String>> {
        let known = &self.vocabulary.languages;
        let Some(word) = &self.params.language else {
            return Ok(known.is_empty().then(|| "en".to_owned()));
        };
        let code = language_code(word).map_or_else(|| word.trim().to_lowercase(), str::to_owned);
        let has = if known.is_empty() { code == "en" } else { known.iter().any(|(known, _)| *known == code) };
        if has {
            return Ok(Some(code));
        }
        let known: Vec<&str> = known.iter().map(|(code, _)| code.as_str()).collect();
        let known = if known.is_empty() { "en".to_owned() } else { known.join(", ") };
        Err(Error::new("language-unknown", format!("the model does not know the language {word:?}"))
            .help(format!("it knows {known}; without a language it finds out")))
    }

    /// The tokens that say what to do: `sot_sequence` of OpenAI's tokenizer.
    fn steering(&self, language: &str) -> Vec<u32> {
        let Vocabulary { start, languages, transcribe, translate, no_timestamps, timestamps, .. } =
            self.vocabulary;
        let mut tokens = vec![*start];
        if let Some((_, id)) = languages.iter().find(|(code, _)| code == language) {
            tokens.push(*id);
            tokens.extend(if self.params.translate { *translate } else { *transcribe });
        }
        tokens.extend(no_timestamps.filter(|_| timestamps.is_none()));
        tokens
    }
}

/// A recording that is being transcribed.
struct Recording<'r> {
    transcriber: &'r Transcriber<'r>,
    audio: &'r Audio,
    /// The step that looks at a window.
    window: usize,
    looking: Duration,
    listening: Duration,
}

impl Recording<'_> {
    fn transcribe(&mut self, listener: &mut Listener<'_>, stretches: &[(u64, u64)]) -> Result<Transcript> {
        let Transcriber { vocabulary, params, prompt, .. } = self.transcriber;
        let mut language = self.transcriber.language()?;
        let mut said = prompt.clone();
        let mut forgotten = 0;
        let mut transcript = Transcript {
            translated: params.translate,
            duration: self.audio.samples.len() as f64 / f64::from(RATE),
            ..Transcript::default()
        };
        for (from, to) in stretches {
            let mut seek = *from;
            while seek < *to {
                listener.cancel.check()?;
                let length = WINDOW.min(to - seek);
                let mel = self.look(seek, length, listener.cancel)?;
                let begun = Instant::now();
                let spoken = match &language {
                    Some(language) => language,
                    None => &*language.insert(listener.language(&mel)?),
                };
                let steering = self.transcriber.steering(spoken);
                let heard = listener.listen(&mel, &said[forgotten..], &steering)?;
                self.listening += begun.elapsed();
                if heard.is_silence(params) {
                    seek += length;
                    continue;
                }
                let (stretches, next) = segments::split(&heard.tokens, vocabulary, seek, length);
                for stretch in stretches {
                    let segment = segment(&transcript, stretch, &heard, vocabulary, seek);
                    said.extend_from_slice(&segment.tokens);
                    transcript.text.push_str(&segment.text);
                    if (listener.events)(Event::Segment(&segment)).is_break() {
                        return Err(Error::new("cancelled", "the request was cancelled"));
                    }
                    transcript.segments.push(segment);
                }
                // Without this the memory of an endless recording would grow, and a loop would feed itself.
                if !params.condition_on_previous || heard.temperature > UNSURE {
                    forgotten = said.len();
                }
                seek = next;
            }
        }
        transcript.text = transcript.text.trim().to_owned();
        transcript.language = language.unwrap_or_else(|| "en".to_owned());
        transcript.prompt_tokens = listener.given;
        transcript.completion_tokens = listener.written;
        Ok(transcript)
    }

    /// The spectrogram of a window.
    fn look(&mut self, seek: u64, length: u64, cancel: &Cancel) -> Result<Tensor> {
        let begun = Instant::now();
        let samples = &self.audio.samples;
        let place = |frame: u64| usize::try_from(frame * FRAME).unwrap_or(usize::MAX).min(samples.len());
        let samples = samples[place(seek)..place(seek + length)].to_vec();
        let audio = Audio { sample_rate: RATE, channels: 1, samples };
        let values = Values::from_iter([("audio".to_owned(), Value::Audio(audio))]);
        let (mut values, _) =
            self.transcriber.pipeline.run_stages(self.window..self.window + 1, values, cancel)?;
        self.looking += begun.elapsed();
        let name = self.transcriber.pipeline.model_input(self.transcriber.signature);
        match values.take(&name) {
            Some(Value::Tensor(tensor)) => Ok(tensor),
            _ => Err(Error::new(
                "pipeline-incomplete",
                format!("the stage before the model leaves no tensor `{name}`"),
            )
            .help("put the stage log-mel before the model")),
        }
    }
}

/// Hundredths of a second of a sound, the last one begun counted.
fn frames(audio: &Audio) -> u64 {
    (audio.samples.len() as u64).div_ceil(FRAME)
}

/// Where somebody speaks, in frames: what a stage left as `segments`, brought together over short pauses; all of the
/// recording when none did.
fn speech(values: &Values, frames: u64) -> Vec<(u64, u64)> {
    let Some(Value::Segments(found)) = values.get("segments") else { return vec![(0, frames)] };
    let frame = |seconds: f32| (f64::from(seconds.max(0.0)) * 100.0).round() as u64;
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for segment in found {
        let (start, end) = (frame(segment.start), frame(segment.end).min(frames));
        match stretches.last_mut() {
            Some((_, last)) if start <= last.saturating_add(PAUSE) => *last = end.max(*last),
            _ if start < end => stretches.push((start, end)),
            _ => {}
        }
    }
    stretches
}

/// A stretch of a window as a segment of the recording. One without length or text keeps only its times.
fn segment(
    before: &Transcript,
    stretch: segments::Stretch,
    heard: &Heard,
    vocabulary: &Vocabulary,
    seek: u64,
) -> Segment {
    let segments::Stretch { start, end, mut tokens } = stretch;
    let mut text = vocabulary.text(&tokens);
    if start == end || text.trim().is_empty() {
        text.clear();
        tokens.clear();
    }
    let seconds = |frame: u64| frame as f64 / 100.0;
    Segment {
        id: u32::try_from(before.segments.len()).unwrap_or(u32::MAX),
        seek,
        start: seconds(start),
        end: seconds(end).min(before.duration.max(seconds(start))),
        text,
        tokens,
        temperature: heard.temperature,
        avg_logprob: heard.avg_logprob,
        compression_ratio: heard.compression_ratio,
        no_speech_prob: heard.no_speech,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value;

    #[test]
    fn silence_between_stretches_of_speech_is_passed_over_and_short_pauses_are_not() {
        let spoken = |times: &[(f32, f32)]| {
            let one =
                |(start, end): &(f32, f32)| value::Segment { start: *start, end: *end, text: String::new() };
            let mut values = Values::new();
            values.put("segments", Value::Segments(times.iter().map(one).collect()));
            speech(&values, 6000)
        };
        assert_eq!(spoken(&[(1.0, 2.0), (2.5, 4.0), (20.0, 99.0)]), [(100, 400), (2000, 6000)]);
        assert!(spoken(&[]).is_empty() && spoken(&[(f32::NAN, f32::NAN), (99.0, 1.0)]).is_empty());
        assert_eq!(speech(&Values::new(), 6000), [(0, 6000)]);
    }
}
