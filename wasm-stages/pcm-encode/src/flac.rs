//! FLAC, by flacenc.

use flacenc::bitsink::ByteSink;
use flacenc::component::BitRepr;
use flacenc::config::Encoder;
use flacenc::error::Verify;
use flacenc::source::MemSource;
use pajamas_stage::{Audio, Error, Result};

use crate::integer;

/// What a FLAC header has room for.
const MAX_CHANNELS: u16 = 8;
const MAX_RATE: u32 = 655_350;

/// The whole file, with samples of so many bits.
///
/// Errors: `invalid-input` (more channels or a higher rate than FLAC has), `audio-empty`.
pub fn encode(audio: &Audio, bits: u16) -> Result<Vec<u8>> {
    let Audio { sample_rate, channels, .. } = *audio;
    if channels > MAX_CHANNELS || sample_rate > MAX_RATE {
        return Err(Error::invalid_input(format!(
            "sound of {channels} channels at {sample_rate} Hz: FLAC has {MAX_CHANNELS} channels and {MAX_RATE} Hz at most"
        ))
        .with_help("set `format` to wav"));
    }
    if audio.samples.is_empty() {
        return Err(Error::new("audio-empty", "there is no sound to write as FLAC"));
    }
    let failed = |what: String| Error::new("audio-invalid", format!("FLAC cannot hold this sound: {what}"));
    let config = Encoder::default().into_verified().map_err(|(_, error)| failed(error.to_string()))?;
    let samples: Vec<i32> = audio.samples.iter().map(|sample| integer(*sample, bits)).collect();
    let source =
        MemSource::from_samples(&samples, usize::from(channels), usize::from(bits), sample_rate as usize);
    drop(samples);
    let mut stream = flacenc::encode_with_fixed_block_size(&config, source, config.block_size)
        .map_err(|error| failed(error.to_string()))?;
    // The last block, which may be shorter, does not count (RFC 9639, 8.2); flacenc counts it, and readers then take the
    // blocks for ones of varying sizes.
    let blocks = stream.stream_info_mut().set_block_sizes(config.block_size, config.block_size);
    blocks.map_err(|error| failed(error.to_string()))?;
    let mut sink = ByteSink::with_capacity(stream.count_bits());
    stream.write(&mut sink).map_err(|error| failed(error.to_string()))?;
    Ok(sink.into_inner())
}
