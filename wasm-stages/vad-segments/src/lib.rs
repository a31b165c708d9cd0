//! Probabilities of speech to stretches of speech.

mod segments;

use pajamas_stage::{
    Description, Error, Files, Kind, Port, Result, Segment, Stage, Tensor, TensorData, Values, export_stage,
};
use serde::Deserialize;
use serde_json::json;

pub use segments::{Rules, Stretch, stretches};

/// The stage `vad-segments`.
#[derive(Debug)]
pub struct VadSegments {
    options: Options,
}

/// The stage's options.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    rate: u32,
    threshold: f64,
    neg_threshold: Option<f64>,
    min_speech_ms: f64,
    min_silence_ms: f64,
    pad_ms: f64,
    max_speech_s: Option<f64>,
    min_silence_at_max_speech_ms: f64,
    cut_at_longest_silence: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 16_000,
            threshold: 0.5,
            neg_threshold: None,
            min_speech_ms: 250.0,
            min_silence_ms: 100.0,
            pad_ms: 30.0,
            max_speech_s: None,
            min_silence_at_max_speech_ms: 98.0,
            cut_at_longest_silence: true,
        }
    }
}

impl Options {
    /// The options in samples.
    ///
    /// Errors: `invalid-option`.
    fn rules(&self) -> Result<Rules> {
        let frame = match self.rate {
            16_000 => 512,
            8000 => 256,
            rate => {
                return Err(Error::invalid_option(format!("`rate` is {rate}: 16000 and 8000 are possible")));
            }
        };
        let rate = f64::from(self.rate);
        let samples = |name: &str, ms: f64| {
            let what = || Error::invalid_option(format!("`{name}` is {ms}: 0 to 3600000 are possible"));
            if (0.0..=3.6e6).contains(&ms) { Ok(rate * ms / 1000.0) } else { Err(what()) }
        };
        let neg_threshold = self.neg_threshold.unwrap_or_else(|| (self.threshold - 0.15).max(0.01));
        for (name, value) in [("threshold", self.threshold), ("neg_threshold", neg_threshold)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid_option(format!("`{name}` is {value}: 0 to 1 are possible")));
            }
        }
        let pad = samples("pad_ms", self.pad_ms)?;
        let max_speech = match self.max_speech_s {
            None => f64::INFINITY,
            Some(seconds) if seconds > 0.0 => rate * seconds - f64::from(frame) - 2.0 * pad,
            Some(seconds) => {
                return Err(Error::invalid_option(format!(
                    "`max_speech_s` is {seconds}: it must be above 0"
                )));
            }
        };
        Ok(Rules {
            frame: i64::from(frame),
            threshold: self.threshold,
            neg_threshold,
            min_speech: samples("min_speech_ms", self.min_speech_ms)?,
            min_silence: samples("min_silence_ms", self.min_silence_ms)?,
            pad,
            max_speech,
            min_silence_at_max_speech: samples(
                "min_silence_at_max_speech_ms",
                self.min_silence_at_max_speech_ms,
            )?,
            cut_at_longest_silence: self.cut_at_longest_silence,
        })
    }
}

impl Stage for VadSegments {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Makes stretches of speech of the probabilities that Silero's voice activity detector gives for each frame, as \
             its get_speech_timestamps does.",
        )
        .input(Port::new("tensor", Kind::Tensor, "a probability for each frame, in order: [N], [N, 1] or [1, N]"))
        .input(Port::optional("samples", Kind::Tensor, "how many samples the sound has, from vad-frame: [1]"))
        .output(Port::new("segments", Kind::Segments, "the stretches, without text"))
        .output(Port::new("tensor", Kind::Tensor, "their first sample and the one after their last: i64 of shape [N, 2]"))
        .options(json!({
            "rate": {
                "type": "integer", "enum": [16000, 8000], "default": defaults.rate,
                "description": "the sound's sample rate in Hz",
            },
            "threshold": {
                "type": "number", "minimum": 0, "maximum": 1, "default": defaults.threshold,
                "description": "speech begins at this probability",
            },
            "neg_threshold": {
                "type": "number", "minimum": 0, "maximum": 1,
                "description": "speech may end below this probability; 0.15 below the threshold when not given",
            },
            "min_speech_ms": {
                "type": "number", "minimum": 0, "default": defaults.min_speech_ms,
                "description": "shorter stretches are dropped",
            },
            "min_silence_ms": {
                "type": "number", "minimum": 0, "default": defaults.min_silence_ms,
                "description": "how long it must be silent for a stretch to end",
            },
            "pad_ms": {
                "type": "number", "minimum": 0, "default": defaults.pad_ms,
                "description": "what is added to each stretch at both ends",
            },
            "max_speech_s": {
                "type": "number", "exclusiveMinimum": 0,
                "description": "longer stretches are cut, in a silence where there is one; not cut when not given",
            },
            "min_silence_at_max_speech_ms": {
                "type": "number", "minimum": 0, "default": defaults.min_silence_at_max_speech_ms,
                "description": "how long a silence must be to be a place for such a cut",
            },
            "cut_at_longest_silence": {
                "type": "boolean", "default": defaults.cut_at_longest_silence,
                "description": "whether such a cut is made in the longest silence rather than in the last",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        options.rules()?;
        Ok(Self { options })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tensor = inputs.tensor("tensor")?;
        if tensor.shape.iter().filter(|side| **side != 1).count() > 1 {
            let what = format!("probabilities of shape {:?}: one for each frame is needed", tensor.shape);
            return Err(Error::invalid_input(what));
        }
        let probabilities = tensor.into_f32()?;
        if let Some(at) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
            let what = format!("frame {at} has the probability {}: 0 to 1 are possible", probabilities[at]);
            return Err(Error::invalid_input(what));
        }
        let rules = self.options.rules()?;
        let most = probabilities.len() as i64 * rules.frame;
        let samples = match inputs.tensor_opt("samples")? {
            None => most,
            Some(Tensor { data: TensorData::I64(samples), .. }) if matches!(*samples, [n] if (0..=most).contains(&n)) => {
                samples[0]
            }
            Some(_) => {
                let what = format!("`samples` must be one i64, and at most {most} for so many probabilities");
                return Err(Error::invalid_input(what));
            }
        };
        let found = stretches(&probabilities, samples, &rules);
        let seconds = |at: i64| (at as f64 / f64::from(self.options.rate)) as f32;
        let segment =
            |s: &Stretch| Segment { start: seconds(s.start), end: seconds(s.end), text: String::new() };
        let ends = found.iter().flat_map(|s| [s.start, s.end]).collect();
        Ok(Values::new()
            .with("segments", found.iter().map(segment).collect::<Vec<_>>())
            .with("tensor", Tensor::new(vec![found.len() as u64, 2], TensorData::I64(ends))?))
    }
}

export_stage!(VadSegments);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    fn run(options: serde_json::Value, probabilities: Tensor, samples: Option<i64>) -> Result<Values> {
        let stage: VadSegments = testing::create(&options, Files::default())?;
        let mut inputs = Values::new().with("tensor", probabilities);
        if let Some(samples) = samples {
            inputs = inputs.with("samples", Tensor::new(vec![1], TensorData::I64(vec![samples]))?);
        }
        stage.run(inputs)
    }

    fn speech(frames: usize) -> Tensor {
        Tensor::f32(vec![frames as u64, 1], vec![0.9; frames]).unwrap()
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<VadSegments>(Files::default());
        for wrong in [
            json!({"rate": 44100}),
            json!({"threshold": 1.5}),
            json!({"neg_threshold": -0.1}),
            json!({"pad_ms": -1}),
            json!({"max_speech_s": 0}),
        ] {
            let code = run(wrong.clone(), speech(1), None).unwrap_err().code;
            assert_eq!(code, "invalid-option", "{wrong}");
        }
    }

    #[test]
    fn stretches_are_given_in_seconds_and_in_samples() {
        let mut out = run(json!({}), speech(20), Some(10_000)).unwrap();
        let segments = out.segments("segments").unwrap();
        assert_eq!((segments[0].start, segments[0].end, segments.len()), (0.0, 0.625, 1));
        assert_eq!(out.tensor("tensor").unwrap().data, TensorData::I64(vec![0, 10_000]));
    }

    #[test]
    fn what_are_no_probabilities_is_refused() {
        let refused = |tensor, samples| run(json!({}), tensor, samples).unwrap_err().code;
        assert_eq!(refused(Tensor::f32(vec![2, 2], vec![0.5; 4]).unwrap(), None), "invalid-input");
        assert_eq!(refused(Tensor::f32(vec![2], vec![0.5, f32::NAN]).unwrap(), None), "invalid-input");
        assert_eq!(refused(Tensor::f32(vec![1], vec![7.0]).unwrap(), None), "invalid-input");
        assert_eq!(refused(speech(2), Some(2000)), "invalid-input");
        let nothing = run(json!({}), Tensor::f32(vec![0], vec![]).unwrap(), None);
        assert!(nothing.unwrap().segments("segments").unwrap().is_empty());
    }
}
