//! The header of a safetensors file, read from bytes that nobody has checked yet.
//!
//! Format: eight bytes with the length of a JSON object, the object, the data
//! (<https://github.com/huggingface/safetensors#format>). As the reference implementation does, this reader asks
//! that the data is covered from end to end, without gaps and without sharing.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::Dtype;
use crate::error::codes;

/// The longest header that is read: the reference implementation's limit.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The most dimensions of a tensor: no format that is written here has more than four.
const MAX_DIMENSIONS: usize = 8;
/// The longest name of a tensor.
const MAX_NAME_BYTES: usize = 512;
/// What is no tensor: free text about the file.
const METADATA: &str = "__metadata__";

/// A tensor's name, shape and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Where its data begins in the file.
    pub start: u64,
    /// Where its data ends in the file.
    pub end: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// One of [`codes`].
    pub code: &'static str,
    /// What, and where.
    pub what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn invalid<T>(code: &'static str, what: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid { code, what: what.into() })
}

/// Reads the header of a file, whose bytes these are, and returns its tensors by name.
///
/// # Errors
/// Whatever does not hold together, with a code of its own each: nothing is believed that was not checked against
/// the length of the file.
pub fn parse(file: &[u8]) -> Result<Vec<TensorInfo>, Invalid> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        let what = format!("the file has {} bytes, fewer than the eight of a header's length", file.len());
        return invalid(codes::SAFETENSORS_TRUNCATED, what);
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let what = format!("the header claims {length} bytes, more than {MAX_HEADER_BYTES}");
        return invalid(codes::SAFETENSORS_HEADER_TOO_LARGE, what);
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        let what = format!("the header claims {length} bytes; the file has {} after its length", rest.len());
        return invalid(codes::SAFETENSORS_TRUNCATED, what);
    };
    let entries: Entries = serde_json::from_slice(header).map_err(|error| {
        let code = match error.to_string().contains(TWICE) {
            true => codes::SAFETENSORS_DUPLICATE,
            false => codes::SAFETENSORS_INVALID,
        };
        Invalid { code, what: format!("the header does not parse: {error}") }
    })?;
    let base = 8 + length;
    let mut tensors = Vec::with_capacity(entries.0.len());
    for (name, entry) in entries.0 {
        tensors.push(check(name, &entry, base, data.len() as u64)?);
    }
    check_cover(&tensors, base, file.len() as u64)?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn check(name: String, entry: &Entry, base: u64, data: u64) -> Result<TensorInfo, Invalid> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        let what = format!("a tensor's name has {} bytes, not 1 to {MAX_NAME_BYTES}", name.len());
        return invalid(codes::SAFETENSORS_INVALID, what);
    }
    let Some(dtype) = Dtype::from_name(&entry.dtype) else {
        let what = format!("tensor `{name}` is of the unknown type `{}`", entry.dtype.escape_debug());
        return invalid(codes::TENSOR_DTYPE_UNSUPPORTED, what);
    };
    if entry.shape.len() > MAX_DIMENSIONS {
        let what =
            format!("tensor `{name}` has {} dimensions, more than {MAX_DIMENSIONS}", entry.shape.len());
        return invalid(codes::SAFETENSORS_INVALID, what);
    }
    let (start, end) = entry.data_offsets;
    if start > end {
        let what = format!("tensor `{name}` begins at {start} and ends before that, at {end}");
        return invalid(codes::SAFETENSORS_INVALID, what);
    }
    if end > data {
        let what = format!("tensor `{name}` ends at byte {end} of the data, which has {data}");
        return invalid(codes::SAFETENSORS_TRUNCATED, what);
    }
    let wanted = entry.shape.iter().try_fold(dtype.bytes(), |n, d| n.checked_mul(*d));
    if wanted != Some(end - start) {
        let what = format!("tensor `{name}` of {dtype} {:?} is given {} bytes", entry.shape, end - start);
        return invalid(codes::SAFETENSORS_SIZE_MISMATCH, what);
    }
    Ok(TensorInfo { name, dtype, shape: entry.shape.clone(), start: base + start, end: base + end })
}

/// Checks that tensors lie end to end: a gap hides bytes, and an overlap makes two tensors of one.
fn check_cover(tensors: &[TensorInfo], base: u64, file: u64) -> Result<(), Invalid> {
    let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
    by_place.sort_by_key(|t| (t.start, t.end));
    let mut end = base;
    for tensor in by_place {
        if tensor.start != end {
            let how =
                if tensor.start < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            let what =
                format!("tensor `{}` {how}: it begins at byte {}, not {end}", tensor.name, tensor.start);
            return invalid(codes::SAFETENSORS_OVERLAP, what);
        }
        end = tensor.end;
    }
    if end != file {
        let what = format!("the file has {} bytes after the last tensor", file - end);
        return invalid(codes::SAFETENSORS_OVERLAP, what);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The object of the header in the file's order. A map type would keep the last of two equal names in silence.
struct Entries(Vec<(String, Entry)>);

/// Part of the message about a name that stands twice, from which its code is told.
const TWICE: &str = "stands twice in the header";

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Header;
        impl<'de> Visitor<'de> for Header {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut names = HashSet::new();
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{}` {TWICE}", name.escape_debug())));
                    }
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn tensor(start: u64, end: u64) -> String {
        format!(r#"{{"dtype":"F16","shape":[{}],"data_offsets":[{start},{end}]}}"#, (end - start) / 2)
    }

    #[test]
    fn a_sound_file_is_read_in_order_of_names() {
        let header =
            format!(r#"{{"__metadata__":{{"format":"pt"}},"b":{},"a":{}}} "#, tensor(0, 4), tensor(4, 10));
        let tensors = parse(&file(&header, 10)).unwrap();
        let base = 8 + header.len() as u64;
        assert_eq!(tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((tensors[0].start, tensors[0].end, tensors[0].elements()), (base + 4, base + 10, 3));
        assert_eq!(parse(&file("{}", 0)), Ok(vec![]));
    }

    #[test]
    fn each_fault_has_its_code() {
        let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
        for (bytes, code) in [
            (vec![1, 2], codes::SAFETENSORS_TRUNCATED),
            (file("{}", 0)[..9].to_vec(), codes::SAFETENSORS_TRUNCATED),
            (u64::MAX.to_le_bytes().to_vec(), codes::SAFETENSORS_HEADER_TOO_LARGE),
            (file("[]", 0), codes::SAFETENSORS_INVALID),
            (file("nonsense", 0), codes::SAFETENSORS_INVALID),
            (file(&format!(r#"{{"a":{}}}"#, tensor(0, 4)), 2), codes::SAFETENSORS_TRUNCATED),
            (file(&two(tensor(0, 4), tensor(2, 6)), 6), codes::SAFETENSORS_OVERLAP),
            (file(&two(tensor(0, 4), tensor(6, 8)), 8), codes::SAFETENSORS_OVERLAP),
            (file(&two(tensor(0, 4), tensor(4, 6)), 8), codes::SAFETENSORS_OVERLAP),
            (
                file(&two(tensor(0, 4), tensor(4, 6)).replace("\"b\"", "\"a\""), 6),
                codes::SAFETENSORS_DUPLICATE,
            ),
            (
                file(r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}}"#, 4),
                codes::SAFETENSORS_SIZE_MISMATCH,
            ),
            (
                file(r#"{"a":{"dtype":"F16","shape":[9223372036854775807,4],"data_offsets":[0,4]}}"#, 4),
                codes::SAFETENSORS_SIZE_MISMATCH,
            ),
            (
                file(r#"{"a":{"dtype":"F16","shape":[-1],"data_offsets":[0,4]}}"#, 4),
                codes::SAFETENSORS_INVALID,
            ),
            (
                file(r#"{"a":{"dtype":"F16","shape":[0],"data_offsets":[4,0]}}"#, 4),
                codes::SAFETENSORS_INVALID,
            ),
            (
                file(r#"{"a":{"dtype":"F7","shape":[4],"data_offsets":[0,4]}}"#, 4),
                codes::TENSOR_DTYPE_UNSUPPORTED,
            ),
            (file(r#"{"":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4), codes::SAFETENSORS_INVALID),
        ] {
            assert_eq!(parse(&bytes).unwrap_err().code, code, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_changed_or_cut_header_never_lies(at in 0usize..200, byte: u8, cut in 0usize..220) {
            let header = format!(r#"{{"a":{},"b":{}}}"#, tensor(0, 4), tensor(4, 40));
            let mut bytes = file(&header, 40);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut.max(1).min(bytes.len()));
            if let Ok(tensors) = parse(&bytes) {
                for tensor in tensors {
                    prop_assert!(tensor.start <= tensor.end && tensor.end <= bytes.len() as u64);
                    prop_assert_eq!(tensor.elements() * tensor.dtype.bytes(), tensor.end - tensor.start);
                }
            }
        }
    }
}
