//! Bytes to sound: WAV, AIFF, CAF, FLAC, MP3, AAC, M4A, Ogg, WebM and Matroska.

mod decode;
mod end;
mod format;
mod opus;
mod track;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use decode::{Limits, decode};

/// The stage `audio-decode`.
#[derive(Debug)]
pub struct AudioDecode {
    limits: Limits,
    mono: bool,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    mono: bool,
    max_seconds: f64,
    max_samples: u64,
    max_bytes: u64,
}

impl Default for Options {
    /// 60 million samples are an hour at 16 kHz, and stay below the 256 MiB that a stage may leave.
    fn default() -> Self {
        Self { mono: false, max_seconds: 7200.0, max_samples: 60_000_000, max_bytes: 128 << 20 }
    }
}

impl Stage for AudioDecode {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Decodes a sound file into samples: WAV, AIFF and CAF (PCM of 8 to 64 bits, A-law, mu-law, ADPCM), FLAC, MP3, \
             AAC, ALAC, Vorbis and Opus, in M4A, MP4, Ogg, WebM and Matroska. A file that is damaged or cut off is refused \
             as a whole.",
        )
        .input(Port::new("bytes", Kind::Bytes, "the file as it is"))
        .output(Port::new("audio", Kind::Audio, "the samples at the file's own rate, nominally in -1..=1"))
        .options(json!({
            "mono": {
                "type": "boolean", "default": defaults.mono,
                "description": "whether the channels are mixed to one, their mean, while decoding",
            },
            "max_seconds": {
                "type": "number", "exclusiveMinimum": 0, "default": defaults.max_seconds,
                "description": "sound that is longer is refused",
            },
            "max_samples": {
                "type": "integer", "minimum": 1, "default": defaults.max_samples,
                "description": "sound of more samples, all channels together (after mixing), is refused",
            },
            "max_bytes": {
                "type": "integer", "minimum": 1, "default": defaults.max_bytes,
                "description": "files of more bytes are refused",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { mono, max_seconds, max_samples, max_bytes } = options;
        if max_seconds.is_nan() || max_seconds <= 0.0 {
            return Err(Error::invalid_option(format!("`max_seconds` is {max_seconds}: it must be above 0")));
        }
        Ok(Self { limits: Limits { max_seconds, max_samples, max_bytes }, mono })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let audio = decode(inputs.bytes("bytes")?, self.mono, self.limits)?;
        Ok(Values::new().with("audio", audio))
    }
}

export_stage!(AudioDecode);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<AudioDecode>(Files::default());
        for wrong in [json!({"max_seconds": 0}), json!({"max_seconds": -1.0}), json!({"max_bytes": -1})] {
            let refused = testing::create::<AudioDecode>(&wrong, Files::default()).map(|_| ());
            assert_eq!(refused.map_err(|e| e.code), Err("invalid-option".to_owned()), "{wrong}");
        }
    }
}
