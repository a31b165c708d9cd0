//! The header: metadata, and where each tensor lies.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::read::{MOST_DISTINCT, Reader};
use super::value::{Array, Kind, Value};
use super::{DEFAULT_ALIGNMENT, Error, MAGIC, TensorType, VERSION};

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// ggml keeps names in arrays of 64 bytes with a zero at the end.
const LONGEST_TENSOR_NAME: usize = 63;
/// The list of tokens.
const TOKENS: &str = "tokenizer.ggml.tokens";
/// What each token is: kept whatever its length, for it has to suit the tokenizer.
pub(super) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";

/// What a file says about itself, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// The metadata by key. Long arrays, and the vocabulary, are counted but not kept.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensor data in bytes.
    pub alignment: u64,
    /// Where tensor data begins in the file.
    pub data_offset: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// A tensor's name, shape and place.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub tensor_type: TensorType,
    /// Its dimensions, innermost first.
    pub dimensions: Vec<u64>,
    /// Where its data begins, counted from the header's `data_offset`.
    pub offset: u64,
    /// Bytes of its data.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

impl Header {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// Wrong magic or version, counts or lengths beyond the file, unknown types, duplicate names, and tensor data
    /// that is misaligned or lies outside the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Self::read(BufReader::new(file), len)
    }

    /// Reads and checks a header of a file of `len` bytes.
    ///
    /// # Errors
    /// As [`Header::open`].
    pub fn read(input: impl Read, len: u64) -> Result<Self, Error> {
        let mut reader = Reader::new(input, len);
        if len == 0 {
            return Err(reader.invalid("the file is empty"));
        }
        let magic: [u8; 4] = reader.bytes("the magic number")?;
        if magic != MAGIC {
            let what =
                format!("no GGUF file: it begins with \"{}\", not with \"GGUF\"", magic.escape_ascii());
            return Err(Error::Invalid { what, at: 0 });
        }
        let version = reader.u32("the version")?;
        if !(2..=VERSION).contains(&version) {
            let what = if version.swap_bytes() <= VERSION {
                "the file is big-endian, which this machine is not".to_owned()
            } else {
                format!("version {version} of the format: versions 2 and {VERSION} are read")
            };
            return Err(reader.invalid(what));
        }
        let tensor_count = reader.u64("the number of tensors")?;
        let metadata_count = reader.u64("the number of metadata entries")?;
        // Each needs at least its fixed-size parts: counts beyond that are damage, and would take all memory.
        reader.expect(metadata_count.saturating_mul(13), "the metadata")?;
        let metadata = read_metadata(&mut reader, metadata_count)?;
        let alignment = alignment(&reader, &metadata)?;

        reader.expect(tensor_count.saturating_mul(24), "the list of tensors")?;
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            let tensor = read_tensor(&mut reader)?;
            if !names.insert(tensor.name.clone()) {
                return Err(reader.invalid(format!("two tensors are named `{}`", tensor.name)));
            }
            tensors.push(tensor);
        }
        let data_offset = reader.at().next_multiple_of(alignment);
        let header = Self { version, metadata, tensors, alignment, data_offset, file_bytes: reader.len() };
        header.check_places()?;
        Ok(header)
    }

    /// A metadata entry.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The model's family, for example `llama`.
    pub fn architecture(&self) -> Option<&str> {
        self.value("general.architecture")?.as_text()
    }

    /// An integer among the family's own entries, for example `context_length` for `llama.context_length`.
    pub fn family_u64(&self, key: &str) -> Option<u64> {
        self.value(&format!("{}.{key}", self.architecture()?))?.as_u64()
    }

    /// Bytes from the first tensor's data to the end of the last one's: what is mapped into memory.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.offset + t.bytes).max().unwrap_or(0)
    }

    fn check_places(&self) -> Result<(), Error> {
        for tensor in &self.tensors {
            let start = self.data_offset.checked_add(tensor.offset);
            let end = start.and_then(|s| s.checked_add(tensor.bytes));
            let at = start.unwrap_or(u64::MAX);
            if tensor.offset % self.alignment != 0 {
                let what = format!("tensor `{}` is not aligned to {} bytes", tensor.name, self.alignment);
                return Err(Error::Invalid { what, at });
            }
            if end.is_none_or(|e| e > self.file_bytes) {
                let what = format!(
                    "the {} bytes of tensor `{}` lie outside the file, which ends at byte {}",
                    tensor.bytes, tensor.name, self.file_bytes
                );
                return Err(Error::Invalid { what, at });
            }
        }
        Ok(())
    }
}

fn read_metadata(reader: &mut Reader<impl Read>, count: u64) -> Result<BTreeMap<String, Value>, Error> {
    let mut metadata = BTreeMap::new();
    for number in 0..count {
        let key = reader.text(&format!("the key of metadata entry {number}"))?;
        if key.is_empty() {
            return Err(reader.invalid(format!("metadata entry {number} has no key")));
        }
        let what = format!("the metadata entry `{}`", key.escape_debug());
        let kind = reader.kind(&what)?;
        let value = match kind {
            Kind::Array if key == TOKENS => read_vocabulary(reader, &what)?,
            Kind::Array if key == TOKEN_TYPES => Value::Array(reader.array(&what, MOST_DISTINCT)?),
            kind => reader.value(kind, &what)?,
        };
        if metadata.insert(key, value).is_some() {
            return Err(reader.invalid(format!("{what} appears twice")));
        }
    }
    Ok(metadata)
}

/// The vocabulary is counted and checked, never kept: llama.cpp asserts that no token has two ids.
fn read_vocabulary(reader: &mut Reader<impl Read>, what: &str) -> Result<Value, Error> {
    let kind = reader.kind(what)?;
    if kind != Kind::Text {
        return Err(reader.invalid(format!("{what} is no list of texts")));
    }
    Ok(Value::Array(Array { kind, len: reader.distinct_texts(what)?, items: Vec::new() }))
}

fn alignment(reader: &Reader<impl Read>, metadata: &BTreeMap<String, Value>) -> Result<u64, Error> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(a)) if a.is_power_of_two() => Ok(u64::from(*a)),
        Some(value) if value.kind() == Kind::U32 => {
            Err(reader.invalid("`general.alignment` is no power of two"))
        }
        Some(_) => Err(reader.invalid("`general.alignment` is no u32")),
    }
}

fn read_tensor(reader: &mut Reader<impl Read>) -> Result<TensorInfo, Error> {
    let name = reader.text("a tensor's name")?;
    if name.len() > LONGEST_TENSOR_NAME {
        return Err(reader.invalid(format!("a tensor's name is {} bytes long", name.len())));
    }
    let what = format!("tensor `{}`", name.escape_debug());
    let rank = reader.u32(&what)?;
    if rank > MAX_DIMENSIONS {
        return Err(reader.invalid(format!("{what} has {rank} dimensions, more than {MAX_DIMENSIONS}")));
    }
    let mut dimensions = Vec::new();
    for _ in 0..rank {
        dimensions.push(reader.u64(&what)?);
    }
    let tensor_type = reader.tensor_type(&what)?;
    let offset = reader.u64(&what)?;
    let bytes = tensor_type.tensor_bytes(&dimensions).ok_or_else(|| {
        reader.invalid(format!("{what} cannot have the shape {dimensions:?} with the type {tensor_type}"))
    })?;
    Ok(TensorInfo { name, tensor_type, dimensions, offset, bytes })
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    /// A small valid file.
    fn sample() -> Vec<u8> {
        let mut writer = Writer::new("llama");
        writer.set("llama.context_length", 512u32).set("general.name", "sample");
        writer.set("tokenizer.ggml.tokens", vec!["a".to_owned(), "b".to_owned()]);
        writer.tensor("one", TensorType::F32, &[4, 2]).tensor("two", TensorType::Q8_0, &[32]);
        let mut file = Vec::new();
        writer.write(&mut file, |tensor, out| out.write_all(&vec![7; tensor.bytes as usize])).unwrap();
        file
    }

    fn read(file: &[u8]) -> Result<Header, Error> {
        Header::read(file, file.len() as u64)
    }

    fn message(file: &[u8]) -> String {
        read(file).unwrap_err().to_string()
    }

    /// Replaces the first occurrence of `from`.
    fn patch(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = file.windows(from.len()).position(|w| w == from).unwrap();
        let mut file = file.to_vec();
        file[at..at + to.len()].copy_from_slice(to);
        file
    }

    #[test]
    fn a_written_file_reads_back() {
        let header = read(&sample()).unwrap();
        assert_eq!(header.architecture(), Some("llama"));
        assert_eq!(header.family_u64("context_length"), Some(512));
        assert_eq!(header.tensors.len(), 2);
        assert_eq!(header.tensors[1].bytes, 34);
        assert_eq!(header.data_bytes(), 32 + 34);
        assert_eq!(header.data_offset % header.alignment, 0);
    }

    #[test]
    fn every_truncation_is_an_error_and_says_so() {
        let file = sample();
        for len in 0..file.len() - 32 {
            let text = message(&file[..len]);
            assert!(
                text.contains("empty")
                    || text.contains("ends too early")
                    || text.contains("outside the file"),
                "cut at {len}: {text}"
            );
        }
    }

    #[test]
    fn foreign_files_are_named() {
        assert!(message(b"PK\x03\x04 and more of a zip archive").contains("begins with \"PK"));
        assert!(message(b"").contains("empty"));
    }

    #[test]
    fn versions_and_byte_order_are_told() {
        assert!(message(&patch(&sample(), &3u32.to_le_bytes(), &9u32.to_le_bytes())).contains("version 9"));
        assert!(message(&patch(&sample(), &3u32.to_le_bytes(), &3u32.to_be_bytes())).contains("big-endian"));
    }

    #[test]
    fn offsets_outside_the_file_are_refused() {
        let mut file = sample();
        let name = file.windows(3).position(|w| w == b"two").unwrap();
        // name, rank, one dimension, type, then the offset
        let offset = name + 3 + 4 + 8 + 4;
        file[offset..offset + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(message(&file).contains("tensor `two` lie outside"), "{}", message(&file));
        file[offset..offset + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(message(&file).contains("aligned"));
    }

    #[test]
    fn absurd_counts_do_not_allocate() {
        let mut file = sample();
        file[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(message(&file).contains("list of tensors"));
        file[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(message(&file).contains("metadata"));
    }

    #[test]
    fn duplicates_are_refused() {
        assert!(message(&patch(&sample(), b"two", b"one")).contains("two tensors"));
        let tokens = [&1u64.to_le_bytes()[..], b"b"].concat();
        let twice = message(&patch(&sample(), &tokens, &[&1u64.to_le_bytes()[..], b"a"].concat()));
        assert!(twice.contains("entry \"a\" twice"), "{twice}");
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = read(&bytes);
            let mut file = sample()[..24].to_vec();
            file.extend(bytes);
            let _ = read(&file);
        }

        #[test]
        fn damaged_files_never_panic(at in 0usize..300, byte: u8) {
            let mut file = sample();
            let at = at % file.len();
            file[at] = byte;
            let _ = read(&file);
        }
    }
}
