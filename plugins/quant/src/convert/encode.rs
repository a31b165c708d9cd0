//! Numbers from one type to another, with the results that llama.cpp's converter has to the bit.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pajamas_llama_cpp::gguf::TensorType;

use crate::scan::first;
use crate::source::Dtype;

/// Elements of a block of q8_0.
pub(super) const Q8_BLOCK: usize = 32;

/// Whether elements of this type can be converted.
pub(super) fn readable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Appends elements as 32-bit floats.
pub(super) fn decode(dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) {
    match dtype {
        Dtype::F64 => out.extend(words::<8>(bytes).iter().map(|b| f64::from_le_bytes(*b) as f32)),
        Dtype::F32 => out.extend(words::<4>(bytes).iter().map(|b| f32::from_le_bytes(*b))),
        Dtype::F16 => {
            let halves: Vec<f16> = words::<2>(bytes).iter().map(|b| f16::from_le_bytes(*b)).collect();
            let start = out.len();
            out.resize(start + halves.len(), 0.0);
            halves.convert_to_f32_slice(&mut out[start..]);
        }
        Dtype::BF16 => out.extend(words::<2>(bytes).iter().map(|b| widened(*b))),
        // `readable` said no: planning refused the tensor.
        _ => {}
    }
}

/// The upper half of 32 bits with a lower half of zeros: also what is no number keeps its bits.
fn widened(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Appends elements in a type of the file; a number of them that the type's blocks divide.
pub(super) fn encode(values: &[f32], to: TensorType, out: &mut Vec<u8>) {
    if to == TensorType::F16 {
        let mut halves = vec![f16::ZERO; values.len()];
        halves.convert_from_f32_slice(values);
        append(&halves, |half| half.to_le_bytes(), out);
    } else if to == TensorType::BF16 {
        append(values, |v| to_bf16(v).to_le_bytes(), out);
    } else if to == TensorType::Q8_0 {
        for block in values.chunks_exact(Q8_BLOCK) {
            q8_block(block, out);
        }
    } else {
        append(values, f32::to_le_bytes, out);
    }
}

/// Appends the bytes of each. Into room that is there already this is done for many at once.
fn append<T: Copy, const N: usize>(items: &[T], bytes: impl Fn(T) -> [u8; N], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + items.len() * N, 0);
    let room = out[start..].as_chunks_mut::<N>().0;
    room.iter_mut().zip(items).for_each(|(room, item)| *room = bytes(*item));
}

/// To the nearest, ties to even; what is no number stays none (`ggml_compute_fp32_to_bf16`, ggml-impl.h).
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) | 64) as u16;
    }
    // The largest finite value rounds to infinity without leaving 32 bits.
    ((bits + (0x7fff + ((bits >> 16) & 1))) >> 16) as u16
}

/// A scale in 16 bits, then the elements as signed bytes (`quantize_row_q8_0_ref`, ggml-quants.c).
fn q8_block(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    out.extend(f16::from_f32(scale).to_le_bytes());
    // Halves away from zero, as C's roundf does.
    out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
}

/// One more in half precision: the sum in 32 bits, rounded once.
pub(super) fn add_one_f16(bytes: &[u8], out: &mut Vec<f32>) {
    out.extend(
        words::<2>(bytes).iter().map(|b| f16::from_f32(f16::from_le_bytes(*b).to_f32() + 1.0).to_f32()),
    );
}

/// Whether an element is no number, or infinite: its index.
pub(super) fn not_finite(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    match dtype {
        Dtype::F64 => first(words::<8>(bytes), |b| !f64::from_le_bytes(b).is_finite()),
        Dtype::F32 => first(words::<4>(bytes), |b| !f32::from_le_bytes(b).is_finite()),
        Dtype::F16 => first(words::<2>(bytes), |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        Dtype::BF16 => first(words::<2>(bytes), |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        _ => None,
    }
}

fn words<const N: usize>(bytes: &[u8]) -> &[[u8; N]] {
    bytes.as_chunks::<N>().0
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bf16_rounds_to_even_and_keeps_what_is_no_number() {
        for (value, wanted) in [
            (1.0f32, 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::MAX, 0x7f80),
            (f32::INFINITY, 0x7f80),
        ] {
            assert_eq!(to_bf16(value), wanted, "{value}");
        }
        assert!(bf16::from_bits(to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
    }

    #[test]
    fn a_block_of_zeros_has_no_scale() {
        let mut out = Vec::new();
        encode(&[0.0; 32], TensorType::Q8_0, &mut out);
        assert_eq!(out, [0; 34]);
    }

    #[test]
    fn what_is_not_finite_is_found() {
        let half: Vec<u8> =
            [1.0, f32::INFINITY].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(not_finite(Dtype::F16, &half), Some(1));
        let brain: Vec<u8> =
            [1.0, 2.0, f32::NAN].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(not_finite(Dtype::BF16, &brain), Some(2));
        assert_eq!(not_finite(Dtype::BF16, &brain[..4]), None);
    }

    proptest! {
        #[test]
        fn what_fits_survives(values in proptest::collection::vec(-1e4f32..1e4, 32)) {
            let exact: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
            let mut bytes = Vec::new();
            encode(&exact, TensorType::BF16, &mut bytes);
            let mut back = Vec::new();
            decode(Dtype::BF16, &bytes, &mut back);
            prop_assert_eq!(&back, &exact);

            let mut bytes = Vec::new();
            encode(&values, TensorType::Q8_0, &mut bytes);
            let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            for (value, q) in values.iter().zip(&bytes[2..]) {
                prop_assert!((value - f32::from(*q as i8) * scale).abs() <= scale * 0.7);
            }
        }
    }
}
