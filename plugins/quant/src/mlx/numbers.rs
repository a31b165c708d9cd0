//! Floating-point numbers of the types that MLX computes with, as bytes and as 32-bit floats.
//!
//! Everything that runs over weights is written as plain loops over lanes, which compilers turn into vector code for the
//! instructions of the function that they are inlined into.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::scan::first;
use crate::source::Dtype;

/// An element type of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// 32 bits.
    F32,
    /// Half precision.
    F16,
    /// The upper half of 32 bits.
    Bf16,
}

impl Float {
    /// The type that a source's elements have; `None` for what MLX has no numbers for.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The type of a name as `torch_dtype` in `config.json` has it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "float32" => Some(Self::F32),
            "float16" => Some(Self::F16),
            "bfloat16" => Some(Self::Bf16),
            _ => None,
        }
    }

    /// Its name in a file of tensors.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// Reads as many elements as there is room for.
#[inline(always)]
pub fn decode(from: Float, bytes: &[u8], out: &mut [f32]) {
    match from {
        Float::F32 => out.iter_mut().zip(words::<4>(bytes)).for_each(|(v, b)| *v = f32::from_le_bytes(b)),
        Float::F16 => {
            out.iter_mut().zip(words::<2>(bytes)).for_each(|(v, b)| *v = widen(u16::from_le_bytes(b)));
        }
        Float::Bf16 => out
            .iter_mut()
            .zip(words::<2>(bytes))
            .for_each(|(v, b)| *v = f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
    }
}

/// Half precision to 32 bits: exponent and fraction moved to their places and the exponents' bias made up for by a
/// multiplication, which is exact and takes care of denormal numbers; infinity and what is no number keep all bits
/// of their exponent.
#[inline(always)]
fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    let value = (f32::from_bits(rest) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(value | special | sign)
}

/// Rounds numbers to those that a type has: to the nearest, ties to even.
#[inline(always)]
pub fn round(to: Float, values: &mut [f32]) {
    match to {
        Float::F32 => {}
        Float::F16 => values.iter_mut().for_each(|v| *v = round_half(*v)),
        Float::Bf16 => values.iter_mut().for_each(|v| {
            let bits = v.to_bits();
            let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
            // What is no number must not round to infinity, or over into zero.
            *v = f32::from_bits(if v.is_nan() { bits | 0x0040_0000 } else { rounded });
        }),
    }
}

#[inline(always)]
fn round_half(value: f32) -> f32 {
    let sign = value.to_bits() & 0x8000_0000;
    let bits = value.to_bits() & 0x7fff_ffff;
    let magnitude = f32::from_bits(bits);
    let normal = f32::from_bits(bits.wrapping_add(0xfff + ((bits >> 13) & 1)) & 0xffff_e000);
    // Below 2^-14 halves are 2^-24 apart, as 32-bit numbers above 0.5 are.
    let small = (magnitude + 0.5) - 0.5;
    let finite = if magnitude < f32::from_bits(0x3880_0000) { small } else { normal };
    let rounded = if magnitude >= 65520.0 { f32::INFINITY } else { finite };
    let kept = if bits > 0x7f80_0000 { magnitude } else { rounded };
    f32::from_bits(kept.to_bits() | sign)
}

/// Appends numbers in a type.
pub fn encode(to: Float, values: &[f32], out: &mut Vec<u8>) {
    match to {
        Float::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        Float::F16 => {
            let mut some = [f16::ZERO; 256];
            for values in values.chunks(some.len()) {
                let some = &mut some[..values.len()];
                some.convert_from_f32_slice(values);
                out.extend(some.iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        Float::Bf16 => out.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
    }
}

/// The first element that is no number or infinite.
pub fn not_finite(from: Float, bytes: &[u8]) -> Option<usize> {
    let mask: u16 = if from == Float::F16 { 0x7c00 } else { 0x7f80 };
    match from {
        Float::F32 => first(bytes.as_chunks::<4>().0, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        Float::F16 | Float::Bf16 => first(bytes.as_chunks::<2>().0, |b| u16::from_le_bytes(b) & mask == mask),
    }
}

/// The first element that is no number or infinite once it is rounded to a type.
pub fn not_finite_as(from: Float, to: Float, bytes: &[u8]) -> Option<usize> {
    bytes.chunks_exact(from.bytes()).position(|bytes| {
        let mut value = [0.0];
        decode(from, bytes, &mut value);
        round(to, &mut value);
        !value[0].is_finite()
    })
}

#[inline(always)]
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every number of sixteen bits, and every one of 32 bits that lies near a border.
    #[test]
    fn halves_are_widened_as_the_library_widens_them() {
        for bits in 0..=u16::MAX {
            for (from, wanted) in
                [(Float::F16, f16::from_bits(bits).to_f32()), (Float::Bf16, bf16::from_bits(bits).to_f32())]
            {
                let mut out = [0.0];
                decode(from, &bits.to_le_bytes(), &mut out);
                assert_eq!(out[0].is_nan(), wanted.is_nan());
                assert!(out[0].is_nan() || out[0].to_bits() == wanted.to_bits(), "{from:?} {bits:#x}");
                assert_eq!(not_finite(from, &bits.to_le_bytes()).is_some(), !wanted.is_finite());
            }
        }
    }

    fn same(value: f32) {
        let mut out = [value, value];
        round(Float::F16, &mut out[..1]);
        round(Float::Bf16, &mut out[1..]);
        for (ours, wanted) in out.iter().zip([f16::from_f32(value).to_f32(), bf16::from_f32(value).to_f32()])
        {
            assert_eq!(ours.is_nan(), wanted.is_nan());
            assert!(
                ours.is_nan() || ours.to_bits() == wanted.to_bits(),
                "{value:e}: {ours:e}, not {wanted:e}"
            );
        }
    }

    #[test]
    fn borders_are_rounded_as_the_library_rounds_them() {
        for bits in 0..=u16::MAX {
            // Half-way between two halves, and its neighbours.
            let value = f16::from_bits(bits).to_f32().to_bits();
            (0x0fff..=0x1001).for_each(|above| same(f32::from_bits(value.wrapping_add(above))));
            let value = u32::from(bits) << 16;
            (0x7fff..=0x8001).for_each(|above| same(f32::from_bits(value + above)));
        }
    }

    proptest! {
        #[test]
        fn rounding_is_that_of_the_library(bits: u32) {
            same(f32::from_bits(bits));
        }

        #[test]
        fn what_was_rounded_survives(values in proptest::collection::vec(-1e6f32..1e6, 0..600)) {
            for float in [Float::F32, Float::F16, Float::Bf16] {
                let mut rounded = values.clone();
                round(float, &mut rounded);
                let mut bytes = Vec::new();
                encode(float, &values, &mut bytes);
                let mut back = vec![0.0; values.len()];
                decode(float, &bytes, &mut back);
                prop_assert_eq!(&back, &rounded);
            }
        }
    }
}
