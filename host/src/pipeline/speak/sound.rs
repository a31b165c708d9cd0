//! What was spoken, and the bytes that it leaves as.

use pajamas_plugin_api::Usage;

use super::params::Format;
use crate::error::{Error, Result};
use crate::value::Audio;

/// Bytes of a WAV file before its samples.
const HEADER: usize = 44;
/// What stands for a length that is not known yet, as ffmpeg and OpenAI's servers write it.
const UNKNOWN: u32 = u32::MAX;

/// Some of the bytes of what is spoken, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The next bytes of the file, or of the bare samples.
    pub bytes: Vec<u8>,
    /// Samples a second.
    pub sample_rate: u32,
    /// Whether nothing follows.
    pub last: bool,
}

/// What was spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// How it was written.
    pub format: Format,
    /// Samples a second of what was written.
    pub sample_rate: u32,
    /// Sentences that were spoken.
    pub sentences: u32,
    /// Ids that the model was given.
    pub ids: u32,
    /// Bytes that were written.
    pub bytes: u64,
    /// Samples that the voice made, and how many of them are a second.
    samples: u64,
    voice_rate: u32,
}

impl Speech {
    /// Nothing yet.
    pub(super) const fn new(format: Format) -> Self {
        Self { format, sample_rate: 0, sentences: 0, ids: 0, bytes: 0, samples: 0, voice_rate: 0 }
    }

    /// Seconds of sound.
    pub fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(self.voice_rate.max(1))
    }

    /// What is counted of it: the ids that the model was given. It writes no tokens.
    pub fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.ids, completion_tokens: 0, cached_tokens: 0 }
    }

    /// Counts a sentence's sound.
    ///
    /// # Errors
    /// `audio-too-large` beyond `most` bytes of 16-bit samples; `pipeline-incomplete` for sound of another rate, or of more
    /// than one channel.
    pub(super) fn take(&mut self, audio: &Audio, most: u64) -> Result<()> {
        if audio.channels != 1 || (self.voice_rate != 0 && self.voice_rate != audio.sample_rate) {
            return Err(Error::new(
                "pipeline-incomplete",
                "the stages after the model leave sound of several channels or rates",
            ));
        }
        self.voice_rate = audio.sample_rate;
        self.samples += audio.samples.len() as u64;
        if self.samples.saturating_mul(2) > most {
            let what = format!("the text is {:.0} s of speech and goes on", self.seconds());
            return Err(Error::new("audio-too-large", what).help(
                "say it in parts, or raise `stages.limits.output`, which 16-bit samples have to fit into",
            ));
        }
        Ok(())
    }

    /// The bytes that leave for what a stage wrote. The first of a WAV file begin with its header, which has the lengths only
    /// when nothing follows.
    pub(super) fn written(&mut self, bytes: Vec<u8>, rate: u32, last: bool) -> Vec<u8> {
        let first = self.bytes == 0;
        self.sample_rate = rate;
        let bytes = match self.format {
            Format::Wav if first => {
                let length = if last { u32::try_from(bytes.len()).unwrap_or(UNKNOWN) } else { UNKNOWN };
                let mut file = header(rate, length);
                file.extend(bytes);
                file
            }
            _ => bytes,
        };
        self.bytes += bytes.len() as u64;
        bytes
    }
}

/// The header of a WAV file with one channel of 16-bit samples.
fn header(rate: u32, length: u32) -> Vec<u8> {
    let mut header = b"RIFF".to_vec();
    header.extend(length.saturating_add(HEADER as u32 - 8).to_le_bytes());
    header.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    header.extend(rate.to_le_bytes());
    header.extend(rate.saturating_mul(2).to_le_bytes());
    header.extend(b"\x02\0\x10\0data");
    header.extend(length.to_le_bytes());
    header
}

/// Writes the lengths into a whole file whose header left before they were known.
pub fn known_length(format: Format, file: &mut [u8]) {
    let Some(length) = file.len().checked_sub(HEADER).filter(|_| format == Format::Wav) else { return };
    let Ok(length) = u32::try_from(length) else { return };
    file[4..8].copy_from_slice(&length.saturating_add(HEADER as u32 - 8).to_le_bytes());
    file[HEADER - 4..HEADER].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_length_when_it_is_known() {
        let mut speech = Speech::new(Format::Wav);
        let mut file = speech.written(vec![1, 2], 8000, false);
        assert_eq!(
            (&file[..8], &file[40..]),
            (&b"RIFF\xff\xff\xff\xff"[..], &[255, 255, 255, 255, 1, 2][..])
        );
        file.extend(speech.written(vec![3, 4], 8000, true));
        assert_eq!((file.len(), speech.bytes), (48, 48));
        known_length(Format::Wav, &mut file);
        let whole = Speech::new(Format::Wav).written(vec![1, 2, 3, 4], 8000, true);
        assert_eq!(file, whole);
        assert_eq!(whole[4..8], 40u32.to_le_bytes());
        let mut bare = vec![1, 2];
        known_length(Format::Pcm, &mut bare);
        assert_eq!(bare, [1, 2]);
    }

    #[test]
    fn sound_is_counted_and_bounded() {
        let mut speech = Speech::new(Format::Pcm);
        let mut audio = Audio { sample_rate: 4, channels: 1, samples: vec![0.0; 6] };
        speech.take(&audio, 20).unwrap();
        assert_eq!(speech.seconds(), 1.5);
        assert_eq!(speech.take(&audio, 20).unwrap_err().code(), "audio-too-large");
        audio.sample_rate = 5;
        assert_eq!(speech.take(&audio, 99).unwrap_err().code(), "pipeline-incomplete");
    }
}
