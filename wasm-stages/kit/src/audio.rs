//! Sound: checking it, and bringing it to one channel.

use crate::{Audio, Error, Result};

impl Audio {
    /// Sound; `samples` holds `channels` interleaved, in -1..=1.
    pub fn new(sample_rate: u32, channels: u16, samples: Vec<f32>) -> Result<Self> {
        let audio = Self { sample_rate, channels, samples };
        audio.check()?;
        Ok(audio)
    }

    /// Whether rate, channels and samples agree. Sound that comes from elsewhere is checked before they are believed.
    pub fn check(&self) -> Result<()> {
        let Self { sample_rate, channels, ref samples } = *self;
        if sample_rate == 0 || channels == 0 {
            return Err(Error::invalid_input(format!("sound of {channels} channels at {sample_rate} Hz")));
        }
        if !samples.len().is_multiple_of(usize::from(channels)) {
            return Err(Error::invalid_input(format!(
                "{} samples cannot be shared among {channels} channels",
                samples.len()
            )));
        }
        Ok(())
    }

    /// Samples of each channel.
    pub fn frames(&self) -> usize {
        self.samples.len() / usize::from(self.channels.max(1))
    }

    /// The sound in one channel, checked: the mean of all. Without a copy when it has one already.
    pub fn into_mono(self) -> Result<Self> {
        self.check()?;
        if self.channels == 1 {
            return Ok(self);
        }
        let mut samples = Vec::with_capacity(self.frames());
        mix(&self.samples, usize::from(self.channels), &mut samples);
        Ok(Self { channels: 1, samples, ..self })
    }

    /// The samples of sound that must have this rate and one channel, checked.
    pub fn into_mono_at(self, sample_rate: u32) -> Result<Vec<f32>> {
        self.check()?;
        if self.sample_rate == sample_rate && self.channels == 1 {
            return Ok(self.samples);
        }
        Err(Error::invalid_input(format!(
            "sound of {} channels at {} Hz: one channel at {sample_rate} Hz is needed",
            self.channels, self.sample_rate
        ))
        .with_help(format!("put the stage resample before this one, with the rate {sample_rate}")))
    }
}

/// Appends the mean of each frame of `channels` interleaved samples to `out`.
pub fn mix(interleaved: &[f32], channels: usize, out: &mut Vec<f32>) {
    let share = 1.0 / channels as f32;
    out.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_lie_are_refused() {
        assert!(Audio::new(16_000, 2, vec![0.0; 4]).is_ok());
        for (rate, channels, samples) in [(0, 1, 1), (8000, 0, 0), (8000, 2, 3)] {
            let error = Audio::new(rate, channels, vec![0.0; samples]).unwrap_err();
            assert_eq!(error.code, "invalid-input");
        }
    }

    #[test]
    fn channels_are_mixed_to_their_mean() {
        let mono = Audio::new(8000, 2, vec![1.0, 0.0, -0.5, 0.25]).unwrap().into_mono().unwrap();
        assert_eq!((mono.channels, mono.samples), (1, vec![0.5, -0.125]));
    }

    #[test]
    fn another_rate_is_refused_with_the_stage_that_helps() {
        assert_eq!(Audio::new(8000, 1, vec![1.0]).unwrap().into_mono_at(8000), Ok(vec![1.0]));
        let error = Audio::new(8000, 1, vec![1.0]).unwrap().into_mono_at(16_000).unwrap_err();
        assert!(error.message.contains("8000 Hz") && error.help.contains("resample"), "{error:?}");
    }
}
