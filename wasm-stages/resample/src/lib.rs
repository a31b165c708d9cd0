//! Brings sound to another sample rate, and to one channel.

mod filter;
mod polyphase;

use pajamas_stage::{Audio, Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use polyphase::resample;

/// The rates that sound may have and may be brought to, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 1000..=384_000;
/// The most samples that a run makes: what a stage may leave.
const MAX_SAMPLES: u64 = 64 << 20;

/// The stage `resample`.
#[derive(Debug)]
pub struct Resample {
    rate: u32,
    mono: bool,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    rate: u32,
    mono: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rate: 16_000, mono: true }
    }
}

impl Stage for Resample {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Brings sound to another sample rate: band-limited by a windowed sinc that keeps nine tenths of the band and \
             lets nothing above -100 dB through beyond it. Mixes the channels to one first, if asked.",
        )
        .input(Port::new("audio", Kind::Audio, "sound at any rate from 1 to 384 kHz"))
        .output(Port::new("audio", Kind::Audio, "the same sound at the rate that was asked for"))
        .options(json!({
            "rate": {
                "type": "integer", "minimum": RATES.start(), "maximum": RATES.end(), "default": defaults.rate,
                "description": "the sample rate of the output in Hz",
            },
            "mono": {
                "type": "boolean", "default": defaults.mono,
                "description": "whether the channels are mixed to one, their mean",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { rate, mono } = options;
        if !RATES.contains(&rate) {
            let (low, high) = RATES.into_inner();
            return Err(Error::invalid_option(format!("`rate` is {rate}: {low} to {high} Hz are possible")));
        }
        Ok(Self { rate, mono })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let audio = inputs.audio("audio")?;
        audio.check()?;
        if !RATES.contains(&audio.sample_rate) {
            let (low, high) = RATES.into_inner();
            let what = format!("sound at {} Hz: {low} to {high} Hz are possible", audio.sample_rate);
            return Err(Error::invalid_input(what));
        }
        let audio = if self.mono { audio.into_mono()? } else { audio };
        if audio.sample_rate == self.rate {
            return Ok(Values::new().with("audio", audio));
        }
        let samples =
            polyphase::length(audio.frames(), audio.sample_rate, self.rate) * u64::from(audio.channels);
        if samples > MAX_SAMPLES {
            return Err(Error::new(
                "audio-too-large",
                format!("{samples} samples at {} Hz: at most {MAX_SAMPLES} can be made", self.rate),
            )
            .with_help("resample shorter sound, or to a lower rate"));
        }
        Ok(Values::new().with("audio", self.convert(&audio)?))
    }
}

impl Resample {
    /// Channel by channel.
    fn convert(&self, audio: &Audio) -> Result<Audio> {
        let channels = usize::from(audio.channels);
        if channels == 1 {
            return Audio::new(self.rate, 1, resample(&audio.samples, audio.sample_rate, self.rate));
        }
        let mut out = Vec::new();
        for channel in 0..channels {
            let alone: Vec<f32> = audio.samples.iter().skip(channel).step_by(channels).copied().collect();
            let alone = resample(&alone, audio.sample_rate, self.rate);
            out.resize(alone.len() * channels, 0.0);
            out.iter_mut().skip(channel).step_by(channels).zip(alone).for_each(|(to, from)| *to = from);
        }
        Audio::new(self.rate, audio.channels, out)
    }
}

export_stage!(Resample);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    fn run(options: serde_json::Value, audio: Audio) -> Result<Audio> {
        let stage: Resample = testing::create(&options, Files::default())?;
        stage.run(Values::new().with("audio", audio))?.audio("audio")
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<Resample>(Files::default());
        let refused = run(json!({"rate": 10}), Audio::new(8000, 1, vec![]).unwrap());
        assert_eq!(refused.unwrap_err().code, "invalid-option");
    }

    #[test]
    fn channels_stay_apart_or_are_mixed() {
        let tone = |hz: f32, i: usize| (i as f32 * hz * std::f32::consts::TAU / 8000.0).sin();
        let samples: Vec<f32> = (0..4000).flat_map(|i| [tone(200.0, i), tone(300.0, i)]).collect();
        let both = Audio::new(8000, 2, samples).unwrap();
        let apart = run(json!({"mono": false}), both.clone()).unwrap();
        assert_eq!((apart.sample_rate, apart.channels, apart.frames()), (16_000, 2, 8000));
        let mixed = run(json!({}), both).unwrap();
        assert_eq!((mixed.channels, mixed.frames()), (1, 8000));
        for (frame, mean) in apart.samples.chunks(2).zip(&mixed.samples) {
            assert!(((frame[0] + frame[1]) / 2.0 - mean).abs() < 1e-6);
        }
    }

    #[test]
    fn the_same_rate_leaves_samples_as_they_are() {
        let sound = Audio::new(16_000, 1, vec![0.1, -0.2, 0.3]).unwrap();
        assert_eq!(run(json!({}), sound.clone()), Ok(sound));
    }

    #[test]
    fn what_cannot_be_resampled_is_refused() {
        let slow = Audio::new(7, 1, vec![0.0; 7]).unwrap();
        assert_eq!(run(json!({}), slow).unwrap_err().code, "invalid-input");
        let long = Audio::new(1000, 1, vec![0.0; 1 << 20]).unwrap();
        assert_eq!(run(json!({"rate": 192_000}), long).unwrap_err().code, "audio-too-large");
        let nothing = Audio::new(8000, 1, vec![]).unwrap();
        assert!(run(json!({}), nothing).unwrap().samples.is_empty());
    }
}
