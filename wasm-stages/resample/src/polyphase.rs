//! Resampling by any ratio: each output sample is one row of the filter over the input around its place.

use wide::f32x4;

use crate::filter::{Filter, phases};

/// Frames that come out: every place of the output that lies before the end of the input.
pub fn length(frames: usize, from: u32, to: u32) -> u64 {
    let exact = (frames as u128 * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// Brings one channel from one rate to another. The sound keeps its place: there is no delay, and silence is taken to lie
/// before and after it.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let divisor = gcd(from, to);
    let (from, to) = (from / divisor, to / divisor);
    let phases = phases(from, to);
    let filter = Filter::new(from, to, phases);
    let exact = phases == to;
    let frames = length(samples.len(), from, to) as usize;
    let mut out = Vec::with_capacity(frames);
    // The place of the output in the input: `at` samples and `part / to` of another.
    let (mut at, mut part) = (0usize, 0u32);
    let (step, rest) = ((from / to) as usize, from % to);
    for _ in 0..frames {
        out.push(if exact {
            apply(samples, at, filter.row(part as usize))
        } else {
            let place = f64::from(part) * f64::from(phases) / f64::from(to);
            let (phase, between) = (place as usize, place.fract() as f32);
            let near = apply(samples, at, filter.row(phase));
            near + between * (apply(samples, at, filter.row(phase + 1)) - near)
        });
        at += step;
        part += rest;
        if part >= to {
            part -= to;
            at += 1;
        }
    }
    out
}

/// One row over the samples around `at`.
fn apply(samples: &[f32], at: usize, row: &[f32]) -> f32 {
    // Tap `lead` is the one for the sample `at` itself.
    let lead = row.len() / 2 - 1;
    match at.checked_sub(lead).and_then(|start| samples.get(start..start + row.len())) {
        Some(inner) => dot(inner, row),
        None => {
            let skipped = lead.saturating_sub(at);
            let inner = samples.get((at + skipped).saturating_sub(lead)..).unwrap_or_default();
            inner.iter().zip(&row[skipped..]).map(|(sample, tap)| sample * tap).sum()
        }
    }
}

/// The sum of products, in sixteen lanes: `row` is a multiple of four long, and `samples` as long.
fn dot(samples: &[f32], row: &[f32]) -> f32 {
    // As it lies in memory: made of four elements, a vector would be put together one by one.
    let load = |lanes: &[f32; 4]| -> f32x4 { bytemuck::cast(*lanes) };
    let (samples16, row16) = (samples.as_chunks::<16>(), row.as_chunks::<16>());
    let (mut s0, mut s1, mut s2, mut s3) = (f32x4::ZERO, f32x4::ZERO, f32x4::ZERO, f32x4::ZERO);
    for (a, b) in samples16.0.iter().zip(row16.0) {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]): ([f32x4; 4], [f32x4; 4]) =
            (bytemuck::cast(*a), bytemuck::cast(*b));
        s0 += a0 * b0;
        s1 += a1 * b1;
        s2 += a2 * b2;
        s3 += a3 * b3;
    }
    for (a, b) in samples16.1.as_chunks::<4>().0.iter().zip(row16.1.as_chunks::<4>().0) {
        s0 += load(a) * load(b);
    }
    ((s0 + s1) + (s2 + s3)).reduce_add()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: u32, frames: usize) -> Vec<f32> {
        let turn = std::f64::consts::TAU * hz / f64::from(rate);
        (0..frames).map(|i| (turn * i as f64).sin() as f32).collect()
    }

    /// The largest difference away from the ends, where silence mixes in.
    fn worst(a: &[f32], b: &[f32]) -> f32 {
        let margin = 300;
        a.iter()
            .zip(b)
            .skip(margin)
            .take(a.len() - 2 * margin)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_stays_that_tone() {
        // Exact ratios, and one that has to be interpolated.
        for (from, to) in
            [(44_100, 16_000), (48_000, 16_000), (8000, 16_000), (22_050, 16_000), (44_099, 16_001)]
        {
            let heard = resample(&tone(1000.0, from, from as usize / 2), from, to);
            assert_eq!(heard.len() as u64, length(from as usize / 2, from, to));
            let difference = worst(&heard, &tone(1000.0, to, heard.len()));
            assert!(difference < 1e-5, "{from} to {to}: {difference}");
        }
    }

    #[test]
    fn the_band_is_kept_up_to_nine_tenths_and_nothing_passes_beyond_it() {
        let kept = resample(&tone(7200.0, 48_000, 24_000), 48_000, 16_000);
        assert!(worst(&kept, &tone(7200.0, 16_000, kept.len())) < 1e-4);
        for hz in [8000.0, 9000.0, 15_000.0, 23_000.0] {
            let folded = resample(&tone(hz, 48_000, 24_000), 48_000, 16_000);
            let silence = vec![0.0; folded.len()];
            assert!(worst(&folded, &silence) < 2e-5, "{hz} Hz: {}", worst(&folded, &silence));
        }
    }

    #[test]
    fn short_sounds_and_ends_are_as_if_in_silence() {
        assert!(resample(&[], 44_100, 16_000).is_empty());
        let padded: Vec<f32> = [vec![0.0; 441], tone(300.0, 44_100, 100), vec![0.0; 4410]].concat();
        let (alone, within) =
            (resample(&padded[441..541], 44_100, 16_000), resample(&padded, 44_100, 16_000));
        for (a, b) in alone.iter().zip(&within[160..]) {
            assert!((a - b).abs() < 1e-6);
        }
        assert_eq!(alone.len(), 37);
    }
}
