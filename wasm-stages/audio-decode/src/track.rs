//! The decoder of a track: symphonia's, or the one for Opus.

use pajamas_stage::{Error, Result};
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Failure;
use symphonia::core::packet::Packet;

use crate::format::Format;
use crate::opus::{self, Opus};

/// Turns packets into samples.
pub struct Decoder {
    format: Format,
    codec: Codec,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

/// What a packet held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub sample_rate: u32,
    pub channels: usize,
}

impl Decoder {
    /// The decoder for a track of these parameters.
    ///
    /// Errors: `audio-unsupported`, `audio-invalid`.
    pub fn new(format: Format, parameters: &AudioCodecParameters) -> Result<Self> {
        let codec = if parameters.codec == CODEC_ID_OPUS {
            let header = parameters.extra_data.as_deref().unwrap_or_default();
            let opus =
                Opus::new(header).map_err(|error| invalid(format, &format!("Opus header: {error}")))?;
            Codec::Opus(Box::new(opus))
        } else {
            let decoders = symphonia::default::get_codecs();
            let decoder = decoders.make_audio_decoder(parameters, &AudioDecoderOptions::default());
            Codec::Symphonia(decoder.map_err(|failure| refusal(format, &failure))?)
        };
        Ok(Self { format, codec })
    }

    /// Frames that stand before the sound and are not decoded: Opus has such.
    pub fn delay(&self) -> u64 {
        match &self.codec {
            Codec::Symphonia(_) => 0,
            Codec::Opus(decoder) => decoder.delay(),
        }
    }

    /// The packet's interleaved samples, left in `samples`.
    pub fn decode(&mut self, packet: &Packet, samples: &mut Vec<f32>) -> Result<Shape> {
        match &mut self.codec {
            Codec::Symphonia(decoder) => {
                let decoded = decoder.decode(packet).map_err(|failure| refusal(self.format, &failure))?;
                decoded.copy_to_vec_interleaved(samples);
                let spec = decoded.spec();
                Ok(Shape { sample_rate: spec.rate(), channels: spec.channels().count() })
            }
            Codec::Opus(decoder) => {
                let channels = decoder.channels();
                let decoded = decoder.decode(&packet.data);
                let decoded = decoded.map_err(|error| invalid(self.format, &format!("Opus: {error}")))?;
                let padding = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                let end = decoded.len().saturating_sub(padding.saturating_mul(channels));
                samples.clear();
                samples.extend_from_slice(&decoded[..end]);
                Ok(Shape { sample_rate: opus::RATE, channels })
            }
        }
    }
}

/// Whether the file was over when more of it was needed.
pub fn is_end(failure: &Failure) -> bool {
    matches!(failure, Failure::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof)
}

/// What symphonia says, with a code.
pub fn refusal(format: Format, failure: &Failure) -> Error {
    let name = format.name();
    match failure {
        failure if is_end(failure) => truncated(format),
        Failure::Unsupported(what) => {
            Error::new("audio-unsupported", format!("this kind of {name} cannot be decoded: {what}"))
                .with_help("convert it to 16-bit WAV or FLAC")
        }
        Failure::ResetRequired => {
            Error::new("audio-unsupported", format!("the {name} changes its kind of sound midway"))
                .with_help("send its parts one by one")
        }
        Failure::LimitError(what) => {
            Error::new("audio-too-large", format!("the {name} goes beyond a limit of its format: {what}"))
        }
        other => invalid(format, &other.to_string()),
    }
}

/// The file is damaged.
pub fn invalid(format: Format, what: &str) -> Error {
    Error::new("audio-invalid", format!("the {} is damaged: {what}", format.name()))
        .with_help("send the file again, or convert it anew")
}

/// The file ends too early.
pub fn truncated(format: Format) -> Error {
    Error::new("audio-truncated", format!("the {} ends in the middle of its sound", format.name()))
        .with_help("send the whole file")
}
