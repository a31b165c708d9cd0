//! The header of a WAV file.

use pajamas_stage::{Audio, Error, Result};

use crate::Encoding;

/// All that stands before the samples: RIFF, the format, for floats the number of frames, and the samples' length.
///
/// Errors: `audio-too-large` where the lengths have no room in 32 bits.
pub fn header(audio: &Audio, encoding: Encoding) -> Result<Vec<u8>> {
    let width = encoding.bits() / 8;
    let too_large = || Error::new("audio-too-large", "more than 4 GiB of samples: WAV has no room for them");
    let length = (audio.samples.len() as u64) * u64::from(width);
    let length = u32::try_from(length).ok().filter(|n| *n < u32::MAX - 100).ok_or_else(too_large)?;
    let frame = width.checked_mul(audio.channels).ok_or_else(too_large)?;
    let floats = encoding == Encoding::F32;
    let mut out = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
    let format: u16 = if floats { 3 } else { 1 };
    // Formats other than PCM have the length of what they add, and count their frames.
    out.extend(if floats { 18u32 } else { 16 }.to_le_bytes());
    out.extend(format.to_le_bytes());
    out.extend(audio.channels.to_le_bytes());
    out.extend(audio.sample_rate.to_le_bytes());
    out.extend(audio.sample_rate.saturating_mul(u32::from(frame)).to_le_bytes());
    out.extend(frame.to_le_bytes());
    out.extend(encoding.bits().to_le_bytes());
    if floats {
        out.extend(0u16.to_le_bytes());
        out.extend(b"fact\x04\0\0\0");
        out.extend((audio.frames() as u32).to_le_bytes());
    }
    out.extend(b"data");
    out.extend(length.to_le_bytes());
    let whole = length + out.len() as u32 - 8;
    out[4..8].copy_from_slice(&whole.to_le_bytes());
    Ok(out)
}
