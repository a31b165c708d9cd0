//! Turns text into speech: a text through stages to the ids of its sentences, one sentence after the other through a
//! session, and its sound through stages to the bytes that were asked for. A sentence leaves as soon as it is spoken.

mod params;
mod sound;
mod steps;

use std::ops::{ControlFlow, Range};

use pajamas_plugin_api::{Cancel, DType, Session, Signature};

pub use params::{Format, SPEEDS, Speaking};
pub use sound::{Chunk, Speech, known_length};
pub use steps::{Files, default_steps, encode};

use super::request::{Event, StepTime};
use super::run::Prepared;
use crate::error::{Error, Result};
use crate::value::{Audio, Tensor, TensorData, Value, Values};

/// What a sentence's sound is called between the model and the stages after it, before it is sound.
const SOUND: &str = "sound";

/// What speaking works with.
pub struct Speaker<'s> {
    /// The pipeline's stages around the model.
    pub pipeline: &'s Prepared,
    /// The stages that write sound, as [`encode`] lists them.
    pub writer: &'s Prepared,
    /// The model.
    pub session: &'s dyn Session,
    /// What it takes.
    pub signature: &'s Signature,
    /// How to speak.
    pub params: &'s Speaking,
    /// The most bytes of sound, written as 16-bit samples.
    pub most: u64,
}

/// A text that is being spoken.
struct Spoken<'e> {
    events: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    cancel: &'e Cancel,
    speech: Speech,
    /// What is written only when all of it is there.
    held: Option<Audio>,
    steps: Vec<StepTime>,
}

impl Speaker<'_> {
    /// Speaks the `text` in `values`, and tells the sound of each sentence as soon as it is there; as FLAC, whose header tells
    /// the length, all of it at the end.
    ///
    /// # Errors
    /// The stages' (`text-empty`, `word-unknown`, …) and the backend's; `sound-invalid` for a model that gives no sound;
    /// `unsupported` for a speed that the model cannot be told; `audio-too-large`; `cancelled`.
    pub fn run(
        &self,
        values: Values,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
        cancel: &Cancel,
    ) -> Result<(Speech, Vec<StepTime>)> {
        let model =
            self.pipeline.model_at().ok_or_else(|| incomplete("the pipeline has no model", "add it"))?;
        self.check()?;
        let (mut values, steps) = self.pipeline.run_stages(0..model, values, cancel)?;
        let ids = integers(&mut values, "ids")?;
        let lengths = integers(&mut values, "lengths")?;
        let rate = integers(&mut values, "rate")?.first().and_then(|rate| u32::try_from(*rate).ok());
        let rate = rate.filter(|rate| *rate > 0);
        let rate = rate.ok_or_else(|| incomplete("`rate` is no number of samples a second", "say it"))?;
        let mut spoken =
            Spoken { events, cancel, speech: Speech::new(self.params.format), held: None, steps };
        let mut rest = ids.as_slice();
        for (at, length) in lengths.iter().enumerate() {
            cancel.check()?;
            let length = usize::try_from(*length).ok().filter(|length| (1..=rest.len()).contains(length));
            let split = length
                .ok_or_else(|| incomplete("`lengths` are not those of `ids`", "give each sentence's"))?;
            let (sentence, after) = rest.split_at(split);
            rest = after;
            let audio = self.say(model, sentence, rate, values.clone(), &mut spoken)?;
            spoken.speech.ids = spoken.speech.ids.saturating_add(u32::try_from(split).unwrap_or(u32::MAX));
            spoken.speech.sentences += 1;
            self.write(audio, at + 1 == lengths.len(), &mut spoken)?;
        }
        if spoken.speech.sentences == 0 {
            return Err(incomplete(
                "the stages before the model leave no sentence",
                "refuse a text that has none",
            ));
        }
        Ok((spoken.speech, spoken.steps))
    }

    /// Whether the model can do what is asked.
    fn check(&self) -> Result<()> {
        let speed = self.params.speed.unwrap_or(1.0);
        let wired = self.pipeline.model_inputs(self.signature);
        let paced = wired.iter().any(|value| matches!(*value, "scales" | "length_scale"));
        if (speed - 1.0).abs() > f32::EPSILON && !paced {
            return Err(Error::new(
                "unsupported",
                "the voice has one speed: its model takes no length of sounds",
            )
            .help(
                "leave `speed` out, or choose a voice whose model has the input `scales` or `length_scale`",
            ));
        }
        Ok(())
    }

    /// The sound of one sentence.
    fn say(
        &self,
        model: usize,
        ids: &[i64],
        rate: u32,
        mut values: Values,
        spoken: &mut Spoken<'_>,
    ) -> Result<Audio> {
        let count = ids.len() as i64;
        let row = |ids: Vec<i64>| {
            Ok::<_, Error>(Value::Tensor(Tensor::new(
                vec![1, ids.len() as u64],
                TensorData::I64(ids.into()),
            )?))
        };
        values.put("ids", row(ids.to_vec())?);
        values.put("mask", row(vec![1; ids.len()])?);
        values.put("ids_length", Value::Tensor(Tensor::new(vec![1], TensorData::I64(vec![count].into()))?));
        let mut values = self.pass(model..model + 1, values, spoken)?;
        let sound = values.take(SOUND).or_else(|| values.take("tensor"));
        let Some(Value::Tensor(sound)) = sound else {
            return Err(incomplete(
                "the model leaves no `sound`",
                "name it in the `outputs` of the model's step",
            ));
        };
        let Some(samples) = sound.as_f32() else {
            let what = format!(
                "the model's sound is of {}, where samples of {} are needed",
                sound.dtype(),
                DType::F32
            );
            return Err(Error::new("sound-invalid", what));
        };
        checked(samples)?;
        values
            .put("audio", Value::Audio(Audio { sample_rate: rate, channels: 1, samples: samples.to_vec() }));
        let mut values = self.pass(model + 1..self.pipeline.count(), values, spoken)?;
        match values.take("audio") {
            Some(Value::Audio(audio)) => Ok(audio),
            _ => Err(incomplete("the stages after the model leave no `audio`", "let the last one leave it")),
        }
    }

    /// Some of the pipeline's steps; how long each took is added to what it took before.
    fn pass(&self, steps: Range<usize>, values: Values, spoken: &mut Spoken<'_>) -> Result<Values> {
        let (values, times) =
            self.pipeline.run_steps(steps, values, self.session, self.signature, spoken.cancel)?;
        times.into_iter().for_each(|step| spoken.took(step));
        Ok(values)
    }

    /// Tells a sentence's sound, or holds it back until all of it is there.
    fn write(&self, audio: Audio, last: bool, spoken: &mut Spoken<'_>) -> Result<()> {
        spoken.speech.take(&audio, self.most)?;
        let audio = match (self.params.format, spoken.held.as_mut()) {
            (Format::Flac, None) => spoken.held.insert(audio),
            (Format::Flac, Some(held)) => {
                held.samples.extend_from_slice(&audio.samples);
                held
            }
            _ => return self.tell(audio, last, spoken),
        };
        if !last {
            return Ok(());
        }
        let audio = std::mem::replace(audio, Audio { sample_rate: 0, channels: 1, samples: Vec::new() });
        self.tell(audio, true, spoken)
    }

    fn tell(&self, audio: Audio, last: bool, spoken: &mut Spoken<'_>) -> Result<()> {
        let rate = self.params.rate().unwrap_or(audio.sample_rate);
        let values = Values::from_iter([("audio".to_owned(), Value::Audio(audio))]);
        let (mut values, times) = self.writer.run_stages(0..self.writer.count(), values, spoken.cancel)?;
        times.into_iter().for_each(|step| spoken.took(step));
        let Some(Value::Bytes(bytes)) = values.take("bytes") else {
            return Err(Error::new("internal", "the stage pcm-encode left no `bytes`"));
        };
        let bytes = spoken.speech.written(bytes, rate, last);
        match (spoken.events)(Event::Sound(&Chunk { bytes, sample_rate: rate, last })) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::new("cancelled", "the request was cancelled")),
        }
    }
}

impl Spoken<'_> {
    fn took(&mut self, step: StepTime) {
        match self.steps.iter_mut().find(|known| known.step == step.step) {
            Some(known) => known.time += step.time,
            None => self.steps.push(step),
        }
    }
}

/// Refuses what is no sound.
fn checked(samples: &[f32]) -> Result<()> {
    if samples.is_empty() {
        return Err(Error::new("sound-invalid", "the model gave no samples for a sentence"));
    }
    match samples.iter().position(|sample| !sample.is_finite()) {
        Some(at) => Err(Error::new(
            "sound-invalid",
            format!("sample {at} of a sentence that the model spoke is no number"),
        )),
        None => Ok(()),
    }
}

fn integers(values: &mut Values, name: &str) -> Result<Vec<i64>> {
    match values.take(name) {
        Some(Value::Tensor(tensor)) => match tensor.into_parts().1 {
            TensorData::I64(numbers) => Ok(numbers.to_vec()),
            other => Err(incomplete(
                &format!("`{name}` is of {}, not of i64", other.dtype()),
                "give whole numbers",
            )),
        },
        _ => Err(incomplete(
            &format!("the stages before the model leave no `{name}`"),
            "begin with voice-text",
        )),
    }
}

fn incomplete(what: &str, help: &str) -> Error {
    Error::new("pipeline-incomplete", what).help(format!(
        "{help}: a pipeline that speaks begins with a stage as voice-text, which leaves `ids`, `lengths` and `rate`"
    ))
}
