//! Opus packets to samples, as RFC 7845 says for Ogg and as Matroska does it too.

use opus_decoder::{OpusDecoder, OpusError, OpusMultistreamDecoder};

/// What Opus decodes to, whatever went in.
pub const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const LONGEST: usize = 5760;

/// The decoder of one track.
pub struct Opus {
    streams: Streams,
    channels: usize,
    gain: f32,
    /// Frames at the beginning that are not part of the sound.
    skip: usize,
    scratch: Vec<f32>,
}

enum Streams {
    One(Box<OpusDecoder>),
    Several(Box<OpusMultistreamDecoder>),
}

impl Opus {
    /// Reads the identification header (RFC 7845, 5.1), which both containers carry.
    pub fn new(header: &[u8]) -> Result<Self, OpusError> {
        let Some((&[version, channels, skip0, skip1, _, _, _, _, gain0, gain1, family], mapping)) =
            header.strip_prefix(b"OpusHead").and_then(|rest| rest.split_first_chunk::<11>())
        else {
            return Err(OpusError::InvalidPacket);
        };
        if version >> 4 != 0 {
            return Err(OpusError::InvalidArgument("version"));
        }
        let channels = usize::from(channels);
        let streams = match (family, mapping) {
            (0, _) => Streams::One(Box::new(OpusDecoder::new(RATE, channels)?)),
            (_, [streams, coupled, mapping @ ..]) => {
                let mapping = mapping.get(..channels).ok_or(OpusError::InvalidPacket)?;
                let (streams, coupled) = (usize::from(*streams), usize::from(*coupled));
                let decoder = OpusMultistreamDecoder::new(RATE, channels, streams, coupled, mapping)?;
                Streams::Several(Box::new(decoder))
            }
            _ => return Err(OpusError::InvalidPacket),
        };
        // Q7.8 in decibels.
        let gain = 10f32.powf(f32::from(i16::from_le_bytes([gain0, gain1])) / (20.0 * 256.0));
        let skip = usize::from(u16::from_le_bytes([skip0, skip1]));
        Ok(Self { streams, channels, gain, skip, scratch: vec![0.0; LONGEST * channels] })
    }

    /// Channels of the samples.
    pub const fn channels(&self) -> usize {
        self.channels
    }

    /// Frames that are still to be dropped.
    pub const fn delay(&self) -> u64 {
        self.skip as u64
    }

    /// The interleaved samples of a packet, without what stands before the sound.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[f32], OpusError> {
        // An empty packet would be taken for one that was lost, and invented.
        if packet.is_empty() {
            return Err(OpusError::InvalidPacket);
        }
        let frames = match &mut self.streams {
            Streams::One(decoder) => decoder.decode_float(packet, &mut self.scratch, false),
            Streams::Several(decoder) => decoder.decode_float(packet, &mut self.scratch, false),
        }?;
        let skipped = self.skip.min(frames);
        self.skip -= skipped;
        let samples = &mut self.scratch[skipped * self.channels..frames * self.channels];
        if self.gain != 1.0 {
            samples.iter_mut().for_each(|sample| *sample *= self.gain);
        }
        Ok(samples)
    }
}
