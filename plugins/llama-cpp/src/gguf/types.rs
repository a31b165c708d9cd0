//! Element types of tensors.

use std::fmt;

/// How a tensor's elements are stored: a plain number, or blocks of quantized ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType(u32);

/// (number, name, elements per block, bytes per block), as in ggml.
const TYPES: &[(u32, &str, u64, u64)] = &[
    (0, "f32", 1, 4),
    (1, "f16", 1, 2),
    (2, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (8, "q8_0", 32, 34),
    (9, "q8_1", 32, 36),
    (10, "q2_K", 256, 84),
    (11, "q3_K", 256, 110),
    (12, "q4_K", 256, 144),
    (13, "q5_K", 256, 176),
    (14, "q6_K", 256, 210),
    (15, "q8_K", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56),
    (30, "bf16", 1, 2),
    (34, "tq1_0", 256, 54),
    (35, "tq2_0", 256, 66),
    (39, "mxfp4", 32, 17),
    (40, "nvfp4", 64, 36),
    (41, "q1_0", 128, 18),
    (42, "q2_0", 64, 18),
];

#[expect(missing_docs, reason = "the names are ggml's, whose documentation they are")]
impl TensorType {
    pub const F32: Self = Self(0);
    pub const F16: Self = Self(1);
    pub const BF16: Self = Self(30);
    pub const Q4_0: Self = Self(2);
    pub const Q4_1: Self = Self(3);
    pub const Q5_0: Self = Self(6);
    pub const Q5_1: Self = Self(7);
    pub const Q8_0: Self = Self(8);
    pub const Q2_K: Self = Self(10);
    pub const Q3_K: Self = Self(11);
    pub const Q4_K: Self = Self(12);
    pub const Q5_K: Self = Self(13);
    pub const Q6_K: Self = Self(14);
    pub const IQ1_S: Self = Self(19);
    pub const IQ1_M: Self = Self(29);
    pub const IQ2_XXS: Self = Self(16);
    pub const IQ2_XS: Self = Self(17);
    pub const IQ2_S: Self = Self(22);
    pub const IQ3_XXS: Self = Self(18);
    pub const IQ3_S: Self = Self(21);
    pub const IQ4_NL: Self = Self(20);
    pub const IQ4_XS: Self = Self(23);
    pub const TQ1_0: Self = Self(34);
    pub const TQ2_0: Self = Self(35);
    pub const MXFP4: Self = Self(39);
    pub const Q2_0: Self = Self(42);
}

impl TensorType {
    /// The type of this number in a file, if ggml still reads it.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.iter().any(|t| t.0 == number).then_some(Self(number))
    }

    /// The type of this name, for example `q4_K`.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|t| t.1.eq_ignore_ascii_case(name)).map(|t| Self(t.0))
    }

    /// Its number in a file, which is also ggml's.
    pub fn number(self) -> u32 {
        self.0
    }

    /// ggml's name for it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements of one block.
    pub fn block_len(self) -> u64 {
        self.row().2
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u64 {
        self.row().3
    }

    /// Bytes of a tensor of these dimensions, innermost first; `None` when rows are no whole number of blocks or
    /// the size does not fit 63 bits.
    pub fn tensor_bytes(self, dimensions: &[u64]) -> Option<u64> {
        let row = dimensions.first().copied().unwrap_or(1);
        if row % self.block_len() != 0 {
            return None;
        }
        let elements = dimensions.iter().try_fold(1u64, |n, d| n.checked_mul(*d))?;
        (elements / self.block_len()).checked_mul(self.block_bytes()).filter(|n| *n <= i64::MAX as u64)
    }

    fn row(self) -> &'static (u32, &'static str, u64, u64) {
        // Only numbers of the table are ever wrapped; f32 stands in for the impossible rest.
        TYPES.iter().find(|t| t.0 == self.0).unwrap_or(&TYPES[0])
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::text, sys};

    /// The table is typed in by hand: it must be ggml's, and complete.
    #[test]
    fn the_table_is_ggmls_own() {
        for number in 0..sys::GGML_TYPE_COUNT {
            // SAFETY: the number is below ggml's count.
            let (name, block, bytes) = unsafe {
                (text(sys::ggml_type_name(number)), sys::ggml_blck_size(number), sys::ggml_type_size(number))
            };
            match TensorType::from_number(number) {
                Some(t) => {
                    assert_eq!(
                        (t.name(), t.block_len() as i64, t.block_bytes() as usize),
                        (&*name, block, bytes)
                    );
                }
                None => assert!(block == 0, "{name} is missing"),
            }
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(TensorType::Q8_0.tensor_bytes(&[64, 3]), Some(2 * 3 * 34));
        assert_eq!(TensorType::Q8_0.tensor_bytes(&[33]), None);
        assert_eq!(TensorType::F32.tensor_bytes(&[u64::MAX, 2]), None);
        assert_eq!(TensorType::F32.tensor_bytes(&[]), Some(4));
    }
}
