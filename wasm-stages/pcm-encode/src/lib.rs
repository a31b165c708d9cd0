//! Writes sound as WAV, FLAC or bare PCM.

mod flac;
mod wav;

use pajamas_stage::{Audio, Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

/// The stage `pcm-encode`.
#[derive(Debug)]
pub struct PcmEncode {
    options: Options,
}

/// The file's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Wav,
    Flac,
    Pcm,
}

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    S16,
    S24,
    F32,
}

/// The stage's options.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    format: Format,
    encoding: Encoding,
}

impl Stage for PcmEncode {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Writes sound as a WAV or FLAC file, or as bare little-endian samples. Integers are rounded, and what is beyond \
             -1..=1 becomes the loudest that can be written.",
        )
        .input(Port::new("audio", Kind::Audio, "any sound"))
        .output(Port::new("bytes", Kind::Bytes, "the file"))
        .options(json!({
            "format": {
                "type": "string", "enum": ["wav", "flac", "pcm"], "default": "wav",
                "description": "wav, flac (lossless, up to eight channels), or pcm: the samples without a header",
            },
            "encoding": {
                "type": "string", "enum": ["s16", "s24", "f32"], "default": "s16",
                "description": "integers of 16 or 24 bits, or 32-bit floats (not in FLAC)",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        if options.format == Format::Flac && options.encoding == Encoding::F32 {
            return Err(Error::invalid_option("`encoding` is f32, and FLAC has no floats")
                .with_help("set `encoding` to s16 or s24, or `format` to wav"));
        }
        Ok(Self { options })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let audio = inputs.audio("audio")?;
        audio.check()?;
        if let Some(at) = audio.samples.iter().position(|sample| sample.is_nan()) {
            return Err(Error::invalid_input(format!("sample {at} is not a number")));
        }
        let Options { format, encoding } = self.options;
        let bytes = match format {
            Format::Wav => wav::header(&audio, encoding).map(|header| samples(&audio, encoding, header))?,
            Format::Pcm => samples(&audio, encoding, Vec::new()),
            Format::Flac => flac::encode(&audio, encoding.bits())?,
        };
        Ok(Values::new().with("bytes", bytes))
    }
}

impl Encoding {
    const fn bits(self) -> u16 {
        match self {
            Self::S16 => 16,
            Self::S24 => 24,
            Self::F32 => 32,
        }
    }
}

/// A sample as an integer of so many bits: the inverse of how integers become samples.
fn integer(sample: f32, bits: u16) -> i32 {
    let scale = (1i64 << (bits - 1)) as f64;
    (f64::from(sample) * scale).round().clamp(-scale, scale - 1.0) as i32
}

/// Appends the samples to `out`.
fn samples(audio: &Audio, encoding: Encoding, mut out: Vec<u8>) -> Vec<u8> {
    out.reserve_exact(audio.samples.len() * usize::from(encoding.bits() / 8));
    match encoding {
        Encoding::S16 => {
            audio.samples.iter().for_each(|s| out.extend((integer(*s, 16) as i16).to_le_bytes()))
        }
        Encoding::S24 => audio.samples.iter().for_each(|s| out.extend(&integer(*s, 24).to_le_bytes()[..3])),
        Encoding::F32 => audio.samples.iter().for_each(|s| out.extend(s.to_le_bytes())),
    }
    out
}

export_stage!(PcmEncode);

#[cfg(test)]
mod tests {
    use super::*;
    use audio_decode::{Limits, decode};
    use pajamas_stage::testing;

    fn encoded(options: serde_json::Value, audio: Audio) -> Result<Vec<u8>> {
        let stage: PcmEncode = testing::create(&options, Files::default())?;
        stage.run(Values::new().with("audio", audio))?.bytes("bytes")
    }

    fn sound(channels: u16) -> Audio {
        let sample = |n: i64| ((n * n * 31) % 4001 - 2000) as f32 / 2048.0;
        Audio::new(22_050, channels, (0..9000 * i64::from(channels)).map(sample).collect()).unwrap()
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<PcmEncode>(Files::default());
        let refused = encoded(json!({"format": "flac", "encoding": "f32"}), sound(1)).unwrap_err();
        assert_eq!(refused.code, "invalid-option");
        assert!(encoded(json!({"format": "mp3"}), sound(1)).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let limits = Limits { max_seconds: 60.0, max_samples: 1 << 20, max_bytes: 1 << 22 };
        for format in ["wav", "flac"] {
            for encoding in ["s16", "s24", "f32"] {
                if (format, encoding) == ("flac", "f32") {
                    continue;
                }
                for channels in [1, 2, 6] {
                    let bytes =
                        encoded(json!({"format": format, "encoding": encoding}), sound(channels)).unwrap();
                    let read = decode(bytes, false, limits).unwrap();
                    assert!(read == sound(channels), "{format} {encoding} of {channels} channels");
                }
            }
        }
    }

    #[test]
    fn bare_samples_are_clipped_and_rounded() {
        let loud =
            Audio::new(8000, 1, vec![0.0, 1.0, -1.0, 2.0, f32::NEG_INFINITY, 0.5 / 32768.0, 0.4 / 32768.0]);
        let bytes = encoded(json!({"format": "pcm"}), loud.unwrap()).unwrap();
        let read: Vec<i16> = bytes.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
        assert_eq!(read, [0, 32767, -32768, 32767, -32768, 1, 0]);
    }

    #[test]
    fn sound_that_cannot_be_written_is_refused() {
        let nan = Audio::new(8000, 1, vec![0.0, f32::NAN]).unwrap();
        assert_eq!(encoded(json!({}), nan).unwrap_err().code, "invalid-input");
        assert_eq!(encoded(json!({"format": "flac"}), sound(9)).unwrap_err().code, "invalid-input");
        let nothing = Audio::new(8000, 1, vec![]).unwrap();
        assert_eq!(encoded(json!({}), nothing.clone()).unwrap().len(), 44);
        assert_eq!(encoded(json!({"format": "flac"}), nothing).unwrap_err().code, "audio-empty");
    }
}
