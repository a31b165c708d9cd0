//! The decoding itself: from the bytes of a file to all of its samples.

use pajamas_stage::{Audio, Error, Result, audio};
use symphonia::core::errors::Error as Failure;
use symphonia::core::formats::TrackType;

use crate::end;
use crate::format::{self, Format};
use crate::track::{Decoder, Shape, invalid, is_end, refusal, truncated};

/// How much sound a file may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds of sound.
    pub max_seconds: f64,
    /// Samples that are kept, all channels together.
    pub max_samples: u64,
    /// Bytes of the file.
    pub max_bytes: u64,
}

/// Decodes a file, with its channels mixed to one (`mono`) or as they are.
///
/// Errors: `audio-empty` (no sound in it), `audio-unsupported` (no known format or codec), `audio-too-large` (over the
/// limits, found out of the header where it says so, and else before more is decoded than allowed), `audio-truncated`,
/// `audio-invalid` (damaged, or samples that are no numbers).
pub fn decode(mut bytes: Vec<u8>, mono: bool, limits: Limits) -> Result<Audio> {
    if bytes.len() as u64 > limits.max_bytes {
        let what = format!("a file of {} bytes: at most {} are allowed", bytes.len(), limits.max_bytes);
        return Err(too_large(what, "max_bytes"));
    }
    bytes.drain(..format::tags(&bytes));
    let format = Format::of(&bytes)?;
    if !end::is_whole(format, &bytes) {
        return Err(truncated(format));
    }
    let mut reader = format.open(bytes).map_err(|failure| refusal(format, &failure))?;
    let Some(track) = reader.default_track(TrackType::Audio) else {
        return Err(Error::new("audio-unsupported", format!("there is no sound in the {}", format.name())));
    };
    let Some(parameters) = track.codec_params.as_ref().and_then(|codec| codec.audio()) else {
        return Err(Error::new("audio-unsupported", format!("the {} does not say its codec", format.name())));
    };
    let mut decoder = Decoder::new(format, parameters)?;
    // In Ogg, Opus counts what stands before the sound, too.
    let before = if format == Format::Ogg { decoder.delay() } else { 0 };
    let frames = track.num_frames.filter(|frames| *frames > 0).map(|frames| frames.saturating_sub(before));
    let id = track.id;
    let mut sound = Sound { format, mono, limits, shape: None, frames: 0, samples: Vec::new() };
    let mut packet_samples = Vec::new();
    if let (Some(frames), Some(sample_rate), Some(channels)) =
        (frames, parameters.sample_rate, parameters.channels.as_ref())
    {
        sound.announce(frames, Shape { sample_rate, channels: channels.count() })?;
    }
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // Where nothing says how long the recording is, it ends with the file.
            Err(failure) if frames.is_none() && format.may_be_endless() && is_end(&failure) => break,
            Err(failure) => return Err(refusal(format, &failure)),
        };
        if packet.track_id == id {
            let shape = decoder.decode(&packet, &mut packet_samples)?;
            sound.add(shape, &packet_samples)?;
        }
    }
    if let Some(frames) = frames {
        if sound.frames < frames {
            return Err(truncated(format));
        }
        if before > 0 {
            sound.cut(frames);
        }
    }
    sound.finish()
}

/// What was decoded so far.
struct Sound {
    format: Format,
    mono: bool,
    limits: Limits,
    shape: Option<Shape>,
    frames: u64,
    samples: Vec<f32>,
}

impl Sound {
    /// Makes room for what the header promises, when that is allowed.
    fn announce(&mut self, frames: u64, shape: Shape) -> Result<()> {
        self.check(frames, shape)?;
        let samples = frames.saturating_mul(self.kept(shape) as u64);
        // At once: an hour would not fit beside a copy of itself. What a header promises for nothing stays untouched.
        self.samples.reserve_exact(usize::try_from(samples).unwrap_or(0));
        Ok(())
    }

    /// Adds the samples of one packet.
    fn add(&mut self, shape: Shape, samples: &[f32]) -> Result<()> {
        if samples.is_empty() {
            return Ok(());
        }
        if *self.shape.get_or_insert(shape) != shape {
            return Err(refusal(self.format, &Failure::ResetRequired));
        }
        self.frames += (samples.len() / shape.channels) as u64;
        self.check(self.frames, shape)?;
        let more = samples.len() / shape.channels * self.kept(shape);
        if self.samples.capacity() - self.samples.len() < more {
            // By a quarter rather than by as much again: the last step is the one that has to fit into memory.
            self.samples.reserve_exact(more.max(self.samples.len() / 4));
        }
        if self.mono && shape.channels > 1 {
            audio::mix(samples, shape.channels, &mut self.samples);
        } else {
            self.samples.extend_from_slice(samples);
        }
        Ok(())
    }

    /// Drops what the last packets hold beyond the sound.
    fn cut(&mut self, frames: u64) {
        if let (Some(shape), Ok(frames)) = (self.shape, usize::try_from(frames)) {
            self.samples.truncate(frames.saturating_mul(self.kept(shape)));
        }
    }

    /// Channels that are kept.
    const fn kept(&self, shape: Shape) -> usize {
        if self.mono { 1 } else { shape.channels }
    }

    fn check(&self, frames: u64, shape: Shape) -> Result<()> {
        let Shape { sample_rate, channels } = shape;
        if sample_rate == 0 || channels == 0 {
            let what = format!("{channels} channels at {sample_rate} Hz");
            return Err(invalid(self.format, &what));
        }
        let Limits { max_seconds, max_samples, .. } = self.limits;
        let seconds = frames as f64 / f64::from(sample_rate);
        if seconds > max_seconds {
            let what = format!("{seconds:.1} s of sound or more: at most {max_seconds} s are allowed");
            return Err(too_large(what, "max_seconds"));
        }
        let samples = frames.saturating_mul(self.kept(shape) as u64);
        if samples > max_samples {
            let what = format!("{samples} samples or more: at most {max_samples} are allowed");
            return Err(too_large(what, "max_samples"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Audio> {
        let Some(shape) = self.shape else {
            return Err(Error::new(
                "audio-empty",
                format!("there is no sound in the {}: it holds no samples", self.format.name()),
            ));
        };
        let kept = self.kept(shape);
        if let Some(at) = self.samples.iter().position(|sample| !sample.is_finite()) {
            let what = format!("sample {} is {}, not a number", at / kept, self.samples[at]);
            return Err(invalid(self.format, &what));
        }
        let channels = u16::try_from(kept).map_err(|_| invalid(self.format, "too many channels"))?;
        Audio::new(shape.sample_rate, channels, self.samples)
    }
}

fn too_large(what: String, option: &str) -> Error {
    Error::new("audio-too-large", what)
        .with_help(format!("send a shorter recording, or raise `{option}` of the stage audio-decode"))
}
