//! From samples to the scaled logarithm of the mel bands, as Whisper's `log_mel_spectrogram` defines it.

use wide::f32x4;

use crate::fft::{FRAME, Fft, Scratch};
use crate::mel::{self, BINS, Filter};

/// Samples from one frame to the next.
const HOP: usize = 160;
/// Samples that are mirrored at both ends, so that frames lie around their times.
pub const MARGIN: usize = FRAME / 2;
/// The least power that is told from silence, and its logarithm.
const FLOOR: f32 = 1e-10;
const SILENCE: f32 = -10.0;
/// Frames that are computed together.
const LANES: usize = 4;

/// What is computed once for all sounds.
#[derive(Debug)]
pub struct Spectrogram {
    window: Vec<f32>,
    filters: Vec<Filter>,
    fft: Fft,
}

impl Spectrogram {
    /// For so many mel bands.
    pub fn new(bands: usize) -> Self {
        // Periodic, as for a transform: the window of 401 points without its last.
        let hann = |n: usize| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / FRAME as f64).cos();
        Self {
            window: (0..FRAME).map(|n| hann(n) as f32).collect(),
            filters: mel::filters(bands),
            fft: Fft::new(),
        }
    }

    /// Rows and columns of the spectrogram of so many samples.
    pub fn bands_and_frames(&self, samples: usize) -> (usize, usize) {
        (self.filters.len(), samples / HOP)
    }

    /// The spectrogram of `samples` with silence behind them up to `length`, which must be more than [`MARGIN`]: a row for
    /// each band, a column for each frame.
    pub fn log_mel(&self, samples: &[f32], length: usize) -> Vec<f32> {
        let (bands, frames) = self.bands_and_frames(length);
        let mut out = vec![SILENCE; bands * frames];
        let mut scratch = Scratch::new();
        let mut power = [f32x4::ZERO; BINS];
        let mut taken = [0.0; FRAME + (LANES - 1) * HOP];
        let mut loudest = f32x4::splat(SILENCE);
        // Frames that lie in the silence behind the sound stay as they are; the mirrored end is part of it, or of the sound.
        let heard =
            if samples.len() + MARGIN < length { (samples.len() + MARGIN).div_ceil(HOP) } else { frames };
        for first in (0..heard.min(frames)).step_by(LANES) {
            let start = (first * HOP) as isize - MARGIN as isize;
            let around = match usize::try_from(start)
                .ok()
                .and_then(|start| samples.get(start..start + taken.len()))
            {
                Some(inner) => inner,
                None => {
                    taken.iter_mut().zip(start..).for_each(|(to, at)| *to = mirrored(samples, length, at));
                    &taken[..]
                }
            };
            self.spectrum(around, &mut scratch, &mut power);
            let together = LANES.min(frames - first);
            for (band, filter) in self.filters.iter().enumerate() {
                let bins = &power[filter.first..][..filter.weights.len()];
                let energy = bins
                    .iter()
                    .zip(&filter.weights)
                    .fold(f32x4::ZERO, |sum, (bin, w)| sum + *bin * f32x4::splat(*w));
                let level = log10(energy.max(f32x4::splat(FLOOR)));
                let to = &mut out[band * frames + first..][..together];
                to.copy_from_slice(&level.to_array()[..together]);
                // Lanes beyond the last frame hold what lies behind the sound's end, mirrored: not to be heard.
                if together == LANES {
                    loudest = loudest.max(level);
                } else {
                    loudest = to.iter().fold(loudest, |loudest, level| loudest.max(f32x4::splat(*level)));
                }
            }
        }
        let loudest = loudest.to_array().into_iter().fold(SILENCE, f32::max);
        let least = loudest - 8.0;
        out.iter_mut().for_each(|level| *level = (level.max(least) + 4.0) / 4.0);
        out
    }

    /// The power spectra of four frames that lie [`HOP`] apart.
    fn spectrum(&self, samples: &[f32], scratch: &mut Scratch, power: &mut [f32x4; BINS]) {
        let lanes: [&[f32]; LANES] = std::array::from_fn(|lane| &samples[lane * HOP..][..FRAME]);
        let windowed = |n: usize| {
            f32x4::new([lanes[0][n], lanes[1][n], lanes[2][n], lanes[3][n]]) * f32x4::splat(self.window[n])
        };
        for pair in 0..FRAME / 2 {
            scratch.put(pair, windowed(2 * pair), windowed(2 * pair + 1));
        }
        self.fft.power(scratch, power);
    }
}

/// The sample at `at` of a sound of `length` samples that ends in silence, mirrored at both ends without repeating the
/// outermost samples.
fn mirrored(samples: &[f32], length: usize, at: isize) -> f32 {
    let last = length as isize - 1;
    let at = at.abs();
    let at = if at > last { 2 * last - at } else { at };
    usize::try_from(at).ok().and_then(|at| samples.get(at)).copied().unwrap_or(0.0)
}

/// The decimal logarithm of four positive numbers: exponent and mantissa apart, and the series of the area tangent for
/// the mantissa, which lies within a factor of the square root of two around one. Right to 2e-7.
fn log10(x: f32x4) -> f32x4 {
    use wide::u32x4;
    /// The bits of the square root of one half.
    const HALF_ROOT: u32 = 0x3f35_04f3;
    let bits = u32x4::new(x.to_array().map(f32::to_bits));
    let raised = bits - u32x4::splat(HALF_ROOT);
    let exponent = raised.to_array().map(|bits| (bits as i32 >> 23) as f32);
    let mantissa =
        ((raised & u32x4::splat(0x007f_ffff)) + u32x4::splat(HALF_ROOT)).to_array().map(f32::from_bits);
    let (exponent, mantissa) = (f32x4::new(exponent), f32x4::new(mantissa));
    let one = f32x4::splat(1.0);
    // ln m = 2 artanh((m - 1) / (m + 1)).
    let t = (mantissa - one) / (mantissa + one);
    let square = t * t;
    let series = [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];
    let sum = series.into_iter().fold(f32x4::ZERO, |sum, c| sum * square + f32x4::splat(c));
    const LOG10_2: f32 = std::f32::consts::LOG10_2;
    const TWICE_LOG10_E: f32 = 2.0 * std::f32::consts::LOG10_E;
    exponent * f32x4::splat(LOG10_2) + t * sum * f32x4::splat(TWICE_LOG10_E)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_in_every_decade() {
        for n in 0..4000u32 {
            let x = 1e-10f32 * 1.012f32.powi(n as i32);
            let got = log10(f32x4::splat(x)).to_array()[n as usize % 4];
            let want = f64::from(x).log10();
            assert!((f64::from(got) - want).abs() < 2e-6, "{x}: {got} is not {want}");
        }
        assert_eq!(log10(f32x4::splat(1.0)).to_array(), [0.0; 4]);
    }

    #[test]
    fn both_ends_are_mirrored() {
        let sound = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([-2, -1, 0, 3, 4, 5].map(|at| mirrored(&sound, 4, at)), [3.0, 2.0, 1.0, 4.0, 3.0, 2.0]);
        assert_eq!([3, 4, 5, 6, 7].map(|at| mirrored(&sound, 6, at)), [4.0, 0.0, 0.0, 0.0, 4.0]);
    }

    /// The definition, in double precision and without shortcuts.
    fn defined(samples: &[f32], length: usize, bands: usize) -> Vec<f64> {
        let filters = mel::filters(bands);
        let frames = length / HOP;
        let mut out = vec![0.0; bands * frames];
        for frame in 0..frames {
            let windowed: Vec<f64> = (0..FRAME)
                .map(|n| {
                    let at = (frame * HOP + n) as isize - MARGIN as isize;
                    let hann = 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / FRAME as f64).cos();
                    f64::from(mirrored(samples, length, at)) * hann
                })
                .collect();
            let power: Vec<f64> = (0..BINS)
                .map(|k| {
                    let turn = |n: usize| std::f64::consts::TAU * (k * n % FRAME) as f64 / FRAME as f64;
                    let re: f64 = windowed.iter().enumerate().map(|(n, x)| x * turn(n).cos()).sum();
                    let im: f64 = windowed.iter().enumerate().map(|(n, x)| x * turn(n).sin()).sum();
                    re * re + im * im
                })
                .collect();
            for (band, filter) in filters.iter().enumerate() {
                let energy: f64 =
                    filter.weights.iter().zip(&power[filter.first..]).map(|(w, p)| f64::from(*w) * p).sum();
                out[band * frames + frame] = energy.max(1e-10).log10();
            }
        }
        let least = out.iter().copied().fold(f64::MIN, f64::max) - 8.0;
        out.into_iter().map(|level| (level.max(least) + 4.0) / 4.0).collect()
    }

    #[test]
    fn the_spectrogram_is_that_of_the_definition() {
        let sound: Vec<f32> = (0..2500u32).map(|n| ((n * n / 7) % 200) as f32 / 400.0 - 0.25).collect();
        // As it is, with silence behind it, and with so little of it that the end mirrors sound.
        for (bands, length) in [(80, 2500), (128, 5000), (80, 2560)] {
            let got = Spectrogram::new(bands).log_mel(&sound, length);
            for (i, (got, want)) in got.iter().zip(defined(&sound, length, bands)).enumerate() {
                assert!((f64::from(*got) - want).abs() < 1e-4, "{bands} bands, {i}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn silence_is_even() {
        for samples in [&[][..], &[0.0; 16_000]] {
            let levels = Spectrogram::new(80).log_mel(samples, 16_000);
            assert!(levels.iter().all(|level| (level + 1.5).abs() < 1e-6));
        }
    }
}
