//! The power spectrum of four frames of 400 real samples at once, one in each lane.
//!
//! 400 real samples are taken as 200 complex ones (even samples real, odd ones imaginary), transformed by Stockham's
//! algorithm in the radices 5, 5, 4 and 2 (E. O. Brigham, The Fast Fourier Transform, chapter 8), and taken apart again.
//! With a frame in each lane nothing is ever shuffled between lanes.

use std::f64::consts::TAU;

use wide::f32x4;

use crate::mel::BINS;

/// Samples of a frame.
pub const FRAME: usize = 400;
/// Complex points.
const POINTS: usize = FRAME / 2;

/// Four complex numbers.
#[derive(Debug, Clone, Copy)]
struct Complex {
    re: f32x4,
    im: f32x4,
}

const ZERO: Complex = Complex { re: f32x4::ZERO, im: f32x4::ZERO };

impl std::ops::Add for Complex {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl std::ops::Sub for Complex {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Complex {
    fn times(self, (re, im): (f32, f32)) -> Self {
        let (re, im) = (f32x4::splat(re), f32x4::splat(im));
        Self { re: self.re * re - self.im * im, im: self.re * im + self.im * re }
    }

    fn scaled(self, factor: f32) -> Self {
        let factor = f32x4::splat(factor);
        Self { re: self.re * factor, im: self.im * factor }
    }

    /// Turned by a quarter backwards: times -i.
    fn turned(self) -> Self {
        Self { re: self.im, im: -self.re }
    }
}

/// The factors of the transform, computed once.
#[derive(Debug)]
pub struct Fft {
    /// e^(-2 pi i k / 200).
    twiddles: Vec<(f32, f32)>,
    /// e^(-2 pi i k / 400), for taking the real spectrum apart.
    apart: Vec<(f32, f32)>,
}

/// Where the transform works.
#[derive(Debug)]
pub struct Scratch {
    a: Vec<Complex>,
    b: Vec<Complex>,
}

impl Scratch {
    /// Room for one transform.
    pub fn new() -> Self {
        Self { a: vec![ZERO; POINTS], b: vec![ZERO; POINTS] }
    }

    /// Puts two neighbouring samples of all four frames.
    pub fn put(&mut self, pair: usize, even: f32x4, odd: f32x4) {
        self.a[pair] = Complex { re: even, im: odd };
    }
}

impl Fft {
    pub fn new() -> Self {
        let unit = |k: usize, of: usize| {
            let angle = TAU * k as f64 / of as f64;
            (angle.cos() as f32, -angle.sin() as f32)
        };
        Self {
            twiddles: (0..POINTS).map(|k| unit(k, POINTS)).collect(),
            apart: (0..BINS).map(|k| unit(k, FRAME)).collect(),
        }
    }

    /// The squared magnitudes of the samples in `scratch`.
    pub fn power(&self, scratch: &mut Scratch, power: &mut [f32x4; BINS]) {
        let Scratch { a, b } = scratch;
        self.pass(a, b, 1, five);
        self.pass(b, a, 5, five);
        self.pass(a, b, 25, four);
        self.pass(b, a, 100, two);
        for (k, power) in power.iter_mut().enumerate() {
            let here = a[k % POINTS];
            let there = a[(POINTS - k) % POINTS];
            let mirrored = Complex { re: there.re, im: -there.im };
            let (even, odd) = (here + mirrored, (here - mirrored).turned().times(self.apart[k]));
            let whole = (even + odd).scaled(0.5);
            *power = whole.re * whole.re + whole.im * whole.im;
        }
    }

    /// One pass of radix `R`: `stride` transforms have been joined so far.
    fn pass<const R: usize>(
        &self,
        from: &[Complex],
        to: &mut [Complex],
        stride: usize,
        butterfly: fn([Complex; R]) -> [Complex; R],
    ) {
        // In this order of the passes a transform of `left` points is split into R.
        let left = POINTS / stride;
        let part = left / R;
        for k in 0..part {
            for q in 0..stride {
                let taken: [Complex; R] = std::array::from_fn(|j| from[q + stride * (k + part * j)]);
                let joined = butterfly(taken);
                to[q + stride * R * k] = joined[0];
                for (j, value) in joined.into_iter().enumerate().skip(1) {
                    to[q + stride * (R * k + j)] = value.times(self.twiddles[j * k * stride % POINTS]);
                }
            }
        }
    }
}

fn two([a, b]: [Complex; 2]) -> [Complex; 2] {
    [a + b, a - b]
}

fn four([a, b, c, d]: [Complex; 4]) -> [Complex; 4] {
    let (even, odd) = (two([a, c]), two([b, d]));
    let turned = odd[1].turned();
    [even[0] + odd[0], even[1] + turned, even[0] - odd[0], even[1] - turned]
}

fn five([a, b, c, d, e]: [Complex; 5]) -> [Complex; 5] {
    /// Cosine and sine of a fifth and of two fifths of a turn.
    const COS: [f32; 2] = [0.309_017, -0.809_017];
    const SIN: [f32; 2] = [0.951_056_5, 0.587_785_24];
    let (near, far) = (b + e, c + d);
    let (near_odd, far_odd) = ((b - e).turned(), (c - d).turned());
    let one = a + near.scaled(COS[0]) + far.scaled(COS[1]);
    let two = a + near.scaled(COS[1]) + far.scaled(COS[0]);
    let one_odd = near_odd.scaled(SIN[0]) + far_odd.scaled(SIN[1]);
    let two_odd = near_odd.scaled(SIN[1]) - far_odd.scaled(SIN[0]);
    [a + near + far, one + one_odd, two + two_odd, two - two_odd, one - one_odd]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spectrum_is_that_of_the_definition() {
        let sample = |lane: usize, n: usize| ((n * n * (lane + 3) + 7 * n * lane) % 101) as f64 / 50.0 - 1.0;
        let lanes = |n: usize| f32x4::new(std::array::from_fn(|lane| sample(lane, n) as f32));
        let mut scratch = Scratch::new();
        for pair in 0..POINTS {
            scratch.put(pair, lanes(2 * pair), lanes(2 * pair + 1));
        }
        let mut power = [f32x4::ZERO; BINS];
        Fft::new().power(&mut scratch, &mut power);
        for (k, power) in power.iter().enumerate() {
            for (lane, power) in power.to_array().into_iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for n in 0..FRAME {
                    let angle = -TAU * (k * n) as f64 / FRAME as f64;
                    re += sample(lane, n) * angle.cos();
                    im += sample(lane, n) * angle.sin();
                }
                let want = re * re + im * im;
                assert!(
                    (f64::from(power) - want).abs() < 1e-3 + want * 1e-5,
                    "bin {k}: {power} is not {want}"
                );
            }
        }
    }
}
