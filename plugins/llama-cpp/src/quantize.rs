//! ggml's conversions between floats and blocks of quantized ones.
//!
//! They need none of ggml's compute libraries: they are plain functions of its base library, the same on
//! every processor, and may be called from any thread.

use crate::gguf::TensorType;
use crate::{Error, Result, sys};

/// The largest weight that types made of a grid of points are given: squares of larger ones, weighted by importance,
/// would leave 32 bits, over which ggml ends the process. Weights of sound models stay below a hundred.
const LARGEST_ON_A_GRID: f32 = 1e6;
/// The largest importance that ggml is given, for the same reason.
const LARGEST_IMPORTANCE: f32 = 1e18;

impl TensorType {
    /// Whether ggml makes blocks of this type out of floats.
    pub fn can_be_made(self) -> bool {
        const OTHERS: [&str; 9] = ["q8_1", "q8_K", "i8", "i16", "i32", "i64", "f64", "q1_0", "nvfp4"];
        !OTHERS.contains(&self.name())
    }

    /// Whether it is made of blocks, and not of plain numbers.
    pub fn is_quantized(self) -> bool {
        // SAFETY: only numbers of ggml's own types are ever wrapped.
        unsafe { sys::ggml_is_quantized(self.number()) }
    }

    /// Whether blocks of this type cannot be made without knowing how important each column is.
    pub fn requires_importance(self) -> bool {
        // SAFETY: only numbers of ggml's own types are ever wrapped.
        unsafe { sys::ggml_quantize_requires_imatrix(self.number()) }
    }

    /// The largest magnitude that may be given to [`quantize_rows`].
    pub fn largest(self) -> f32 {
        if self.name().starts_with("iq") { LARGEST_ON_A_GRID } else { f32::MAX }
    }
}

/// Makes rows of `row` floats into blocks of a type, appended to `out`. `importance` holds one number for each column.
///
/// # Errors
/// [`Error::Quantize`] when lengths do not suit the type, for floats that are not finite or larger than
/// [`TensorType::largest`], for a missing importance, and when what came out is damaged.
pub fn quantize_rows(
    to: TensorType,
    values: &[f32],
    row: usize,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let refused = |what: String| Err(Error::Quantize { what });
    if row == 0 || !values.len().is_multiple_of(row) || !to.can_be_made() {
        return refused(format!("{} floats are no rows of {row} that {to} is made of", values.len()));
    }
    let Some(bytes) = to.tensor_bytes(&[row as u64, (values.len() / row) as u64]) else {
        return refused(format!("rows of {row} are no whole number of {to}'s blocks"));
    };
    let largest = to.largest();
    // Without a way out in the middle many are looked at at once; what is no number compares as false.
    let held = values.iter().fold(true, |all, v| all & (v.abs() <= largest));
    if to.is_quantized() && !held {
        return refused(format!("{to} holds no number beyond {largest:e}"));
    }
    match importance {
        None if to.requires_importance() => return refused(format!("{to} needs to know what is important")),
        Some(importance) => {
            let sound = importance.iter().all(|v| (0.0..=LARGEST_IMPORTANCE).contains(v));
            if importance.len() != row || !sound {
                return refused(format!("{} importances for rows of {row}", importance.len()));
            }
        }
        None => {}
    }
    let start = out.len();
    out.resize(start + bytes as usize, 0);
    // SAFETY: `values` holds whole rows, the new part of `out` has room for exactly their blocks, and `importance` has
    // one number for each column; what ggml asserts was checked above.
    let (written, sound) = unsafe {
        let blocks = out.as_mut_ptr().add(start).cast::<std::ffi::c_void>();
        let written = sys::ggml_quantize_chunk(
            to.number(),
            values.as_ptr(),
            blocks,
            0,
            (values.len() / row) as i64,
            row as i64,
            importance.map_or(std::ptr::null(), <[f32]>::as_ptr),
        );
        let sound = !to.is_quantized() || sys::ggml_validate_row_data(to.number(), blocks, bytes as usize);
        (written as u64, sound)
    };
    match sound && written == bytes {
        true => Ok(()),
        false => refused(format!("numbers too large for the scales of {to}")),
    }
}

/// Whether bytes are whole blocks of a type that hold finite numbers.
pub fn is_sound(blocks: TensorType, bytes: &[u8]) -> bool {
    // SAFETY: the bytes are read within their length, at any alignment of a tensor's.
    (bytes.len() as u64).is_multiple_of(blocks.block_bytes())
        && unsafe { sys::ggml_validate_row_data(blocks.number(), bytes.as_ptr().cast(), bytes.len()) }
}

/// Makes blocks of a type, or plain numbers, into floats, appended to `out`.
///
/// # Errors
/// [`Error::Quantize`] when the bytes are no whole number of blocks, or of a type that ggml does not read back.
pub fn dequantize(from: TensorType, bytes: &[u8], out: &mut Vec<f32>) -> Result<()> {
    let whole = (bytes.len() as u64).is_multiple_of(from.block_bytes());
    // SAFETY: the number is one of ggml's types, whose table of traits lives as long as the process.
    let convert = unsafe { sys::ggml_get_type_traits(from.number()).as_ref() }.and_then(|t| t.to_float);
    if from == TensorType::F32 && whole {
        out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        return Ok(());
    }
    let (true, Some(convert)) = (whole, convert) else {
        return Err(Error::Quantize { what: format!("{} bytes of {from} are not read back", bytes.len()) });
    };
    let elements = bytes.len() / from.block_bytes() as usize * from.block_len() as usize;
    let start = out.len();
    out.resize(start + elements, 0.0);
    // Blocks begin with 16-bit numbers: a file's tensors are aligned, a slice of them need not be.
    let aligned: Vec<u32>;
    let source = if bytes.as_ptr().cast::<u32>().is_aligned() {
        bytes.as_ptr()
    } else {
        let words = bytes.chunks(4).map(|c| {
            let mut word = [0; 4];
            word[..c.len()].copy_from_slice(c);
            u32::from_ne_bytes(word)
        });
        aligned = words.collect();
        aligned.as_ptr().cast::<u8>()
    };
    // SAFETY: `source` holds the whole blocks of `elements` numbers, aligned, for which `out` was given room.
    unsafe { convert(source.cast(), out.as_mut_ptr().add(start), elements as i64) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn what_is_made_is_read_back() {
        let values = ramp(512);
        for name in ["f32", "f16", "bf16", "q8_0", "q6_K", "q4_K", "q4_0", "iq4_nl", "mxfp4"] {
            let to = TensorType::from_name(name).unwrap();
            let mut blocks = Vec::new();
            quantize_rows(to, &values, 256, None, &mut blocks).unwrap();
            let mut back = Vec::new();
            dequantize(to, &blocks, &mut back).unwrap();
            assert_eq!(back.len(), values.len());
            let worst = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.3, "{name}: {worst}");
        }
    }

    #[test]
    fn what_ggml_asserts_is_refused() {
        let q4 = TensorType::from_name("q4_K").unwrap();
        let grid = TensorType::from_name("iq2_xs").unwrap();
        let mut out = Vec::new();
        let mut refused = |to, values: &[f32], row, importance| {
            let error = quantize_rows(to, values, row, importance, &mut out).unwrap_err();
            assert!(matches!(error, Error::Quantize { .. }), "{error}");
        };
        let values = ramp(256);
        refused(q4, &values, 0, None);
        refused(q4, &values[..255], 256, None);
        refused(q4, &values[..64], 64, None);
        refused(grid, &values, 256, None);
        refused(grid, &values, 256, Some(&[1.0; 255]));
        refused(grid, &values, 256, Some(&[f32::NAN; 256]));
        refused(grid, &[1e20; 256], 256, Some(&[1.0; 256]));
        refused(q4, &[f32::NAN; 256], 256, None);
        refused(q4, &[3e38; 256], 256, None);
        refused(TensorType::from_name("q8_1").unwrap(), &values, 256, None);
        assert!(out.is_empty() || out.len().is_multiple_of(144));
        quantize_rows(grid, &values, 256, Some(&[1.0; 256]), &mut Vec::new()).unwrap();
    }
}
