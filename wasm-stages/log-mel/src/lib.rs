//! The log-mel spectrogram that Whisper listens to.

mod fft;
mod mel;
mod spectrogram;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use spectrogram::Spectrogram;

/// Samples per second that Whisper works with.
pub const RATE: u32 = 16_000;
/// The longest sound in seconds: an hour and a half.
const MAX_SECONDS: f64 = 5400.0;

/// The stage `log-mel`.
#[derive(Debug)]
pub struct LogMel {
    spectrogram: Spectrogram,
    /// Samples that the sound is brought to, when it is.
    window: Option<usize>,
    /// Samples of silence behind the sound.
    padding: usize,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    mels: usize,
    seconds: f64,
    padding: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { mels: 80, seconds: 30.0, padding: 0.0 }
    }
}

impl Stage for LogMel {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Makes the log-mel spectrogram that Whisper listens to: frames of 25 ms every 10 ms, mel filters after Slaney, the \
             logarithm clamped to eight decades below the loudest and scaled as Whisper scales it.",
        )
        .input(Port::new("audio", Kind::Audio, "sound of one channel at 16 kHz"))
        .output(Port::new("tensor", Kind::Tensor, "f32 of shape [1, mels, frames], a frame for each 160 samples"))
        .options(json!({
            "mels": {
                "type": "integer", "enum": [80, 128], "default": defaults.mels,
                "description": "how many mel bands: 80, or 128 for whisper-large-v3 and its kin",
            },
            "seconds": {
                "type": "number", "minimum": 0, "maximum": MAX_SECONDS, "default": defaults.seconds,
                "description": "how long the sound is made with silence, as Whisper's encoder wants 30 s; longer sound is \
                                refused. 0 takes it as long as it is",
            },
            "padding": {
                "type": "number", "minimum": 0, "maximum": MAX_SECONDS, "default": defaults.padding,
                "description": "seconds of silence put behind sound that is taken as long as it is",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { mels, seconds, padding } = options;
        if ![80, 128].contains(&mels) {
            return Err(Error::invalid_option(format!("`mels` is {mels}: 80 and 128 are possible")));
        }
        for (name, value) in [("seconds", seconds), ("padding", padding)] {
            if !(0.0..=MAX_SECONDS).contains(&value) {
                let what = format!("`{name}` is {value}: 0 to {MAX_SECONDS} are possible");
                return Err(Error::invalid_option(what));
            }
        }
        let samples = |seconds: f64| (seconds * f64::from(RATE)).round() as usize;
        let window = Some(samples(seconds)).filter(|samples| *samples > 0);
        Ok(Self { spectrogram: Spectrogram::new(mels), window, padding: samples(padding) })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let samples = inputs.audio("audio")?.into_mono_at(RATE)?;
        let length = self.window.unwrap_or(samples.len() + self.padding);
        if samples.len() > length {
            return Err(too_long(samples.len(), length, "seconds"));
        }
        if length > samples_at_most() {
            return Err(too_long(length, samples_at_most(), "audio-decode's `max_seconds`"));
        }
        let (bands, frames) = self.spectrogram.bands_and_frames(length);
        if frames == 0 || length <= spectrogram::MARGIN {
            return Err(Error::new(
                "audio-empty",
                format!(
                    "{length} samples are too few for a spectrogram: more than {} are needed",
                    spectrogram::MARGIN
                ),
            )
            .with_help("set `seconds`, and silence is put behind the sound"));
        }
        let values = self.spectrogram.log_mel(&samples, length);
        let tensor = Tensor::f32(vec![1, bands as u64, frames as u64], values)?;
        Ok(Values::new().with("tensor", tensor))
    }
}

const fn samples_at_most() -> usize {
    MAX_SECONDS as usize * RATE as usize
}

fn too_long(samples: usize, most: usize, option: &str) -> Error {
    let seconds = |samples: usize| samples as f64 / f64::from(RATE);
    Error::new(
        "audio-too-large",
        format!("{:.2} s of sound: {:.2} s are possible", seconds(samples), seconds(most)),
    )
    .with_help(format!("cut it into pieces, or change {option}"))
}

export_stage!(LogMel);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Audio, testing};

    fn shape(options: serde_json::Value, samples: usize) -> Result<Vec<u64>> {
        let stage: LogMel = testing::create(&options, Files::default())?;
        let audio = Audio::new(RATE, 1, vec![0.01; samples])?;
        Ok(stage.run(Values::new().with("audio", audio))?.tensor("tensor")?.shape)
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<LogMel>(Files::default());
        for wrong in [json!({"mels": 40}), json!({"seconds": -1}), json!({"padding": 1e9})] {
            assert_eq!(shape(wrong, 0).unwrap_err().code, "invalid-option");
        }
    }

    #[test]
    fn sound_is_brought_to_a_window_or_taken_as_it_is() {
        assert_eq!(shape(json!({}), 16_000), Ok(vec![1, 80, 3000]));
        assert_eq!(shape(json!({}), 0), Ok(vec![1, 80, 3000]));
        assert_eq!(shape(json!({"mels": 128, "seconds": 10}), 16_000), Ok(vec![1, 128, 1000]));
        assert_eq!(shape(json!({"seconds": 0}), 16_100), Ok(vec![1, 80, 100]));
        assert_eq!(shape(json!({"seconds": 0, "padding": 1.5}), 16_000), Ok(vec![1, 80, 250]));
    }

    #[test]
    fn sound_that_does_not_fit_is_refused() {
        assert_eq!(shape(json!({"seconds": 1}), 16_001).unwrap_err().code, "audio-too-large");
        assert_eq!(shape(json!({"seconds": 0}), 200).unwrap_err().code, "audio-empty");
        let stage: LogMel = testing::create(&json!({}), Files::default()).unwrap();
        let stereo = Audio::new(RATE, 2, vec![0.0; 400]).unwrap();
        assert_eq!(stage.run(Values::new().with("audio", stereo)).unwrap_err().code, "invalid-input");
    }
}
