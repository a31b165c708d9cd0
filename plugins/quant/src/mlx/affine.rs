//! Quantization as `mx.quantize` does it on a processor: codes of some bits, with a scale and a bias to each group.
//!
//! The arithmetic is that of MLX 0.32 (mlx/backend/cpu/quantized.cpp, `quantize`), operation by operation in 32-bit
//! floats, so that results are equal to the bit. A code stands for `code * scale + bias`. Codes of a row lie end to end,
//! the first in the lowest bits.

use super::numbers::{self, Float};

/// Bits that a code can have.
pub const BITS: [u32; 6] = [2, 3, 4, 5, 6, 8];
/// Weights that can share a scale.
pub const GROUPS: [u32; 3] = [32, 64, 128];
/// Weights that are in work at a time: they stay in the processor's nearest memory.
const BATCH: usize = 1024;
/// The most groups of a batch.
const MOST: usize = BATCH / 32;
/// The least scale.
const EPSILON: f32 = 1e-7;
/// From here on 32-bit floats are whole numbers: adding it rounds what is smaller, ties to even, into the lowest bits.
const WHOLE: f32 = 8_388_608.0;

/// How a matrix is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine {
    /// Bits of a code: one of [`BITS`].
    pub(super) bits: u32,
    /// Weights with a common scale: one of [`GROUPS`].
    pub(super) group: u32,
}

/// What weights become.
#[derive(Debug, Default)]
pub struct Quantized {
    /// Codes.
    pub codes: Vec<u8>,
    /// A scale to each group.
    pub scales: Vec<f32>,
    /// A bias to each group.
    pub biases: Vec<f32>,
}

impl Quantized {
    /// Forgets what was quantized, and keeps the memory.
    pub fn clear(&mut self) {
        self.codes.clear();
        self.scales.clear();
        self.biases.clear();
    }
}

impl Affine {
    /// A way to quantize, when MLX has it: one of [`BITS`] and one of [`GROUPS`].
    pub fn new(bits: u32, group: u32) -> Option<Self> {
        (BITS.contains(&bits) && GROUPS.contains(&group)).then_some(Self { bits, group })
    }

    /// Bytes of the codes of so many weights.
    pub fn code_bytes(self, weights: u64) -> u64 {
        weights * u64::from(self.bits) / 8
    }

    /// Quantizes weights of one type, rounded to another before, and appends the result. A rest that is no whole group
    /// is left out. Tells whether all were finite numbers: the codes of a group with another mean nothing.
    pub fn quantize(self, bytes: &[u8], from: Float, to: Float, out: &mut Quantized) -> bool {
        let run = match self.bits {
            2 => run::<2>,
            3 => run::<3>,
            4 => run::<4>,
            5 => run::<5>,
            6 => run::<6>,
            _ => run::<8>,
        };
        run(bytes, (from, to), self.group as usize, out)
    }

    /// Appends the numbers that the codes of a row stand for (`dequantize`), with a scale and a bias to each group. What
    /// has no code, or no scale, is left out.
    pub fn restore(self, codes: &[u8], scales: &[f32], biases: &[f32], out: &mut Vec<f32>) {
        let (bits, mask) = (self.bits as usize, (1u64 << self.bits) - 1);
        // Eight codes are as many bytes as a code has bits.
        let mut eights = codes.chunks_exact(bits).map(|bytes| {
            let mut word = [0; 8];
            word[..bits].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        });
        for (scale, bias) in scales.iter().zip(biases) {
            for word in eights.by_ref().take(self.group as usize / 8) {
                out.extend((0..8).map(|i| (word >> (i * bits) & mask) as f32 * scale + bias));
            }
        }
    }
}

/// Runs the loop in the widest vectors that this processor has.
fn run<const BITS: usize>(bytes: &[u8], types: (Float, Float), group: usize, out: &mut Quantized) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn wide<const BITS: usize>(
            bytes: &[u8],
            types: (Float, Float),
            group: usize,
            out: &mut Quantized,
        ) -> bool {
            groups::<BITS>(bytes, types, group, out)
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the instructions that the function is compiled for.
            return unsafe { wide::<BITS>(bytes, types, group, out) };
        }
    }
    groups::<BITS>(bytes, types, group, out)
}

#[inline(always)]
fn groups<const BITS: usize>(bytes: &[u8], types: (Float, Float), group: usize, out: &mut Quantized) -> bool {
    let (from, to) = types;
    let bytes = &bytes[..bytes.len() / (group * from.bytes()) * group * from.bytes()];
    let mut at = out.codes.len();
    let end = at + bytes.len() / from.bytes() * BITS / 8;
    // Eight codes are written as eight bytes, of which those behind the codes are overwritten by the next.
    out.codes.resize(end + 8, 0);
    let mut values = [0.0; BATCH];
    let mut codes = [0; BATCH];
    let mut fits = Fits::default();
    let mut finite = true;
    for bytes in bytes.chunks(BATCH * from.bytes()) {
        let values = &mut values[..bytes.len() / from.bytes()];
        numbers::decode(from, bytes, values);
        if from != to {
            numbers::round(to, values);
        }
        finite &= fits.find(values, group, ((1u32 << BITS) - 1) as f32);
        for (i, values) in values.chunks_exact(group).enumerate() {
            encode::<BITS>(values, fits.scales[i], fits.biases[i], &mut codes[i * group..][..group]);
        }
        for codes in codes[..values.len()].as_chunks::<8>().0 {
            out.codes[at..at + 8].copy_from_slice(&pack::<BITS>(u64::from_le_bytes(*codes)).to_le_bytes());
            at += BITS;
        }
        out.scales.extend_from_slice(&fits.scales[..values.len() / group]);
        out.biases.extend_from_slice(&fits.biases[..values.len() / group]);
    }
    out.codes.truncate(end);
    finite
}

/// Scales and biases of the groups of a batch. They hang on divisions, one after the other: groups take them side by
/// side.
struct Fits {
    scales: [f32; MOST],
    biases: [f32; MOST],
}

impl Default for Fits {
    fn default() -> Self {
        Self { scales: [0.0; MOST], biases: [0.0; MOST] }
    }
}

impl Fits {
    /// One end of a group's range is met exactly, and zero too. Tells whether all are finite numbers.
    #[inline(always)]
    fn find(&mut self, values: &[f32], group: usize, bins: f32) -> bool {
        let (mut lows, mut highs) = ([0.0f32; MOST], [0.0f32; MOST]);
        for ((values, low), high) in values.chunks_exact(group).zip(&mut lows).zip(&mut highs) {
            (*low, *high) = range(values);
        }
        for i in 0..MOST {
            let (low, high) = (lows[i], highs[i]);
            let below = low.abs() > high.abs();
            let step = (high - low) / bins;
            let step = if step < EPSILON { EPSILON } else { step };
            let step = if below { step } else { -step };
            let edge = if below { low } else { high };
            let whole = (edge / step).round_ties_even();
            let exact = edge / whole;
            self.scales[i] = if whole == 0.0 { step } else { exact };
            self.biases[i] = if whole == 0.0 { 0.0 } else { edge };
        }
        lows.iter().chain(&highs).fold(true, |all, end| all & end.is_finite())
    }
}

/// The least and the largest of some values. Floats are compared as whole numbers in the same order, which any compiler
/// reduces in vectors; what is no number lies beyond the infinities.
#[inline(always)]
fn range(values: &[f32]) -> (f32, f32) {
    let order = |bits: i32| bits ^ ((bits >> 31) & 0x7fff_ffff);
    let (low, high) = values.iter().fold((i32::MAX, i32::MIN), |(low, high), value| {
        let place = order(value.to_bits() as i32);
        (low.min(place), high.max(place))
    });
    (f32::from_bits(order(low) as u32), f32::from_bits(order(high) as u32))
}

/// The codes of a group. Rounded after the limits are applied, which is the same, the limits being whole.
#[inline(always)]
fn encode<const BITS: usize>(values: &[f32], scale: f32, bias: f32, codes: &mut [u8]) {
    let bins = ((1u32 << BITS) - 1) as f32;
    for (code, value) in codes.iter_mut().zip(values) {
        let place = (value - bias) / scale;
        let place = if place > 0.0 { place } else { 0.0 };
        let place = if place < bins { place } else { bins };
        *code = (place + WHOLE).to_bits() as u8;
    }
}

/// Moves eight codes of a byte each together: neighbours become pairs, pairs become fours, and those one number.
#[inline(always)]
const fn pack<const BITS: usize>(codes: u64) -> u64 {
    if BITS == 8 {
        return codes;
    }
    let pairs = codes & 0x00ff_00ff_00ff_00ff | (codes & 0xff00_ff00_ff00_ff00) >> (8 - BITS);
    let fours = pairs & 0x0000_ffff_0000_ffff | (pairs & 0xffff_0000_ffff_0000) >> (16 - 2 * BITS);
    fours & 0xffff_ffff | (fours >> 32) << (4 * BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MLX's own words in plain Rust: one weight after the other, one bit after the other.
    fn plainly(weights: &[f32], affine: Affine) -> Quantized {
        let bins = ((1u32 << affine.bits) - 1) as f32;
        let mut out = Quantized::default();
        let mut bits = Vec::new();
        for group in weights.chunks_exact(affine.group as usize) {
            let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let low = group.iter().copied().fold(f32::INFINITY, f32::min);
            let mask = low.abs() > high.abs();
            let mut scale = ((high - low) / bins).max(1e-7);
            scale = if mask { scale } else { -scale };
            let edge = if mask { low } else { high };
            let whole = (edge / scale).round_ties_even();
            let mut bias = 0.0;
            if whole != 0.0 {
                (scale, bias) = (edge / whole, edge);
            }
            for weight in group {
                let code = ((weight - bias) / scale).round_ties_even().clamp(0.0, bins) as u32;
                bits.extend((0..affine.bits).map(|i| (code >> i & 1) as u8));
            }
            out.scales.push(scale);
            out.biases.push(bias);
        }
        out.codes = bits.chunks(8).map(|b| b.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect();
        out
    }

    fn unpack(codes: &[u8], bits: u32, count: usize) -> Vec<u32> {
        let bit = |at: usize| u32::from(codes[at / 8] >> (at % 8) & 1);
        (0..count).map(|i| (0..bits as usize).map(|b| bit(i * bits as usize + b) << b).sum()).collect()
    }

    fn every() -> impl Iterator<Item = Affine> {
        BITS.into_iter().flat_map(|bits| GROUPS.map(|group| Affine { bits, group }))
    }

    fn ours(weights: &[f32], affine: Affine) -> Quantized {
        let mut bytes = Vec::new();
        numbers::encode(Float::F32, weights, &mut bytes);
        let mut out = Quantized::default();
        affine.quantize(&bytes, Float::F32, Float::F32, &mut out);
        out
    }

    fn equal(a: &Quantized, b: &Quantized) -> bool {
        let same = |a: &[f32], b: &[f32]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
        a.codes == b.codes && same(&a.scales, &b.scales) && same(&a.biases, &b.biases)
    }

    #[test]
    fn numbers_are_restored_as_codes_say() {
        let weights: Vec<f32> = (0..512).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        for affine in every() {
            let made = ours(&weights, affine);
            let mut restored = Vec::new();
            affine.restore(&made.codes, &made.scales, &made.biases, &mut restored);
            let codes = unpack(&made.codes, affine.bits, weights.len());
            let group = |i: usize| i / affine.group as usize;
            let wanted: Vec<f32> = codes
                .iter()
                .enumerate()
                .map(|(i, code)| *code as f32 * made.scales[group(i)] + made.biases[group(i)])
                .collect();
            assert_eq!(restored, wanted, "{affine:?}");
            for (i, (a, b)) in restored.iter().zip(&weights).enumerate() {
                assert!((a - b).abs() <= made.scales[group(i)].abs() * 1.01, "{affine:?} {i}: {a} {b}");
            }
        }
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        for (bits, pack) in
            [(2, pack::<2> as fn(u64) -> u64), (3, pack::<3>), (4, pack::<4>), (5, pack::<5>), (6, pack::<6>)]
        {
            let codes: Vec<u8> = (0..8).map(|i| (i * 37 + 11) as u8 & ((1 << bits) - 1)).collect();
            let packed = pack(u64::from_le_bytes(codes.clone().try_into().unwrap()));
            assert_eq!(packed >> (8 * bits), 0, "{bits}");
            let back = unpack(&packed.to_le_bytes(), bits, 8);
            assert_eq!(back, codes.iter().map(|c| u32::from(*c)).collect::<Vec<_>>(), "{bits}");
        }
    }

    #[test]
    fn groups_without_a_range_have_the_least_scale() {
        for affine in every() {
            let out = ours(&vec![0.0; 128], affine);
            assert!(out.scales.iter().all(|s| *s == -1e-7) && out.biases.iter().all(|b| *b == 0.0));
            let out = ours(&vec![-3.5; 128], affine);
            let code = unpack(&out.codes, affine.bits, 1)[0] as f32;
            assert_eq!(code * out.scales[0] + out.biases[0], -3.5);
        }
    }

    #[test]
    fn a_rest_and_what_is_no_number_are_no_panic() {
        for affine in every() {
            let count = 256 / affine.group as usize;
            assert_eq!(ours(&[0.5; 270], affine).scales.len(), count);
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
                let mut weights = [0.25; 256];
                weights[7] = odd;
                weights[8] = -odd;
                assert_eq!(ours(&weights, affine).codes.len(), affine.code_bytes(256) as usize);
            }
        }
    }

    proptest! {
        #[test]
        fn fast_and_plain_are_equal(
            weights in proptest::collection::vec(-2.0f32..2.0, 256),
            power in -40i32..40,
            offset in prop_oneof![Just(0.0f32), -3.0f32..3.0],
            steps in prop_oneof![Just(0.0f32), 1.0f32..20.0],
        ) {
            let weights: Vec<f32> = weights
                .iter()
                // Whole steps make ties.
                .map(|w| if steps > 0.0 { (w * steps).round() / steps } else { *w })
                .map(|w| (w + offset) * 2f32.powi(power))
                .collect();
            for affine in every() {
                prop_assert!(equal(&ours(&weights, affine), &plainly(&weights, affine)), "{:?}", affine);
            }
        }

        #[test]
        fn a_code_stands_for_its_weight(weights in proptest::collection::vec(-1.0f32..1.0, 128)) {
            for affine in every() {
                let out = ours(&weights, affine);
                let codes = unpack(&out.codes, affine.bits, weights.len());
                for (i, (weight, code)) in weights.iter().zip(codes).enumerate() {
                    let at = i / affine.group as usize;
                    let back = code as f32 * out.scales[at] + out.biases[at];
                    // The other end of the range may be missed by more than half a step, never by a whole one.
                    prop_assert!((back - weight).abs() <= out.scales[at].abs() * 1.01);
                }
            }
        }
    }
}
