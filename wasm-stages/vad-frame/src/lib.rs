//! Cuts sound into the frames that Silero's voice activity detector listens to.

use pajamas_stage::{
    Description, Error, Files, Kind, Port, Result, Stage, Tensor, TensorData, Values, export_stage,
};
use serde::Deserialize;
use serde_json::json;

/// The longest sound in samples: an hour and a half at 16 kHz.
const MAX_SAMPLES: usize = 5400 * 16_000;

/// The stage `vad-frame`.
#[derive(Debug)]
pub struct VadFrame {
    state: Vec<u64>,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    state: Vec<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { state: vec![2, 1, 128] }
    }
}

/// What the detector takes at a rate: samples of a frame, and of the frame before it that it hears again.
fn sizes(rate: u32) -> Result<(usize, usize)> {
    match rate {
        16_000 => Ok((512, 64)),
        8000 => Ok((256, 32)),
        _ => Err(Error::invalid_input(format!("sound at {rate} Hz: the detector knows 16000 and 8000 Hz"))
            .with_help("put the stage resample before this one")),
    }
}

impl Stage for VadFrame {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Cuts sound into the frames that Silero's voice activity detector listens to: 512 samples at 16 kHz (256 at \
             8 kHz), each with the last 64 (32) of the frame before it in front; the last is filled with silence.",
        )
        .input(Port::new("audio", Kind::Audio, "sound of one channel at 16 or 8 kHz"))
        .output(Port::new("tensor", Kind::Tensor, "the frames: f32 of shape [N, 576] or [N, 288]"))
        .output(Port::new("state", Kind::Tensor, "the detector's state before the first frame: zeros, f32"))
        .output(Port::new("rate", Kind::Tensor, "the sample rate: i64 without dimensions, the model's input `sr`"))
        .output(Port::new("samples", Kind::Tensor, "how many samples the sound has: i64 of shape [1]"))
        .options(json!({
            "state": {
                "type": "array", "items": { "type": "integer", "minimum": 1 }, "default": defaults.state,
                "description": "the shape of the detector's state",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let elements = options.state.iter().try_fold(1u64, |n, side| n.checked_mul(*side));
        if !elements.is_some_and(|n| (1..=1 << 20).contains(&n)) {
            let what = format!("`state` is {:?}: 1 to 1048576 elements are possible", options.state);
            return Err(Error::invalid_option(what));
        }
        Ok(Self { state: options.state })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let audio = inputs.audio("audio")?;
        let rate = audio.sample_rate;
        let (frame, context) = sizes(rate)?;
        let samples = audio.into_mono_at(rate)?;
        if samples.is_empty() {
            return Err(Error::new("audio-empty", "there is no sound to cut into frames"));
        }
        if samples.len() > MAX_SAMPLES {
            let what = format!("{} samples: at most {MAX_SAMPLES} are possible", samples.len());
            return Err(Error::new("audio-too-large", what).with_help("cut the sound into pieces"));
        }
        let count = samples.len().div_ceil(frame);
        let frames =
            Tensor::f32(vec![count as u64, (context + frame) as u64], frames(&samples, frame, context))?;
        let zeros = vec![0.0; self.state.iter().product::<u64>() as usize];
        let long = |shape, value| Tensor::new(shape, TensorData::I64(vec![value]));
        Ok(Values::new()
            .with("tensor", frames)
            .with("state", Tensor::f32(self.state.clone(), zeros)?)
            .with("rate", long(vec![], i64::from(rate))?)
            .with("samples", long(vec![1], samples.len() as i64)?))
    }
}

/// Every frame with its context in front, one after the other.
pub fn frames(samples: &[f32], frame: usize, context: usize) -> Vec<f32> {
    let count = samples.len().div_ceil(frame);
    let mut out = Vec::with_capacity(count * (context + frame));
    for n in 0..count {
        let start = n * frame;
        match start.checked_sub(context) {
            Some(before) => out.extend_from_slice(&samples[before..start]),
            None => out.resize(out.len() + context, 0.0),
        }
        out.extend_from_slice(&samples[start..samples.len().min(start + frame)]);
    }
    out.resize(count * (context + frame), 0.0);
    out
}

export_stage!(VadFrame);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Audio, testing};

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<VadFrame>(Files::default());
        for wrong in [json!({"state": [0]}), json!({"state": [1 << 21]}), json!({"state": [-1]})] {
            assert!(testing::create::<VadFrame>(&wrong, Files::default()).is_err());
        }
    }

    #[test]
    fn frames_overlap_by_their_context_and_the_last_is_filled() {
        let sound: Vec<f32> = (1..=7u8).map(f32::from).collect();
        assert_eq!(
            frames(&sound, 3, 2),
            [[0.0, 0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0, 6.0], [5.0, 6.0, 7.0, 0.0, 0.0]].concat()
        );
    }

    #[test]
    fn leaves_all_that_the_model_takes() {
        let run = |rate, channels, samples: usize| {
            let stage: VadFrame = testing::create(&json!({}), Files::default())?;
            stage.run(Values::new().with("audio", Audio::new(rate, channels, vec![0.5; samples])?))
        };
        let mut out = run(16_000, 1, 1025).unwrap();
        assert_eq!(out.tensor("tensor").unwrap().shape, [3, 576]);
        assert_eq!(out.tensor("state").unwrap().shape, [2, 1, 128]);
        assert_eq!(out.tensor("rate").unwrap().data, TensorData::I64(vec![16_000]));
        assert_eq!(out.tensor("samples").unwrap().data, TensorData::I64(vec![1025]));
        assert_eq!(run(8000, 1, 256).unwrap().tensor("tensor").unwrap().shape, [1, 288]);
        assert_eq!(run(16_000, 1, 0).unwrap_err().code, "audio-empty");
        assert_eq!(run(44_100, 1, 9).unwrap_err().code, "invalid-input");
        assert_eq!(run(16_000, 2, 8).unwrap_err().code, "invalid-input");
    }
}
