//! Element types of safetensors files.

use std::fmt;

/// How elements are stored, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// The names of the format: <https://github.com/huggingface/safetensors#format>.
const NAMES: [(&str, Dtype, u64); 15] = [
    ("F64", Dtype::F64, 8),
    ("F32", Dtype::F32, 4),
    ("F16", Dtype::F16, 2),
    ("BF16", Dtype::BF16, 2),
    ("F8_E4M3", Dtype::F8E4M3, 1),
    ("F8_E5M2", Dtype::F8E5M2, 1),
    ("I64", Dtype::I64, 8),
    ("I32", Dtype::I32, 4),
    ("I16", Dtype::I16, 2),
    ("I8", Dtype::I8, 1),
    ("U64", Dtype::U64, 8),
    ("U32", Dtype::U32, 4),
    ("U16", Dtype::U16, 2),
    ("U8", Dtype::U8, 1),
    ("BOOL", Dtype::Bool, 1),
];

impl Dtype {
    /// The type of this name in a header.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|n| n.0 == name).map(|n| n.1)
    }

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|n| n.1 == self).map_or("", |n| n.0)
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        NAMES.iter().find(|n| n.1 == self).map_or(1, |n| n.2)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
