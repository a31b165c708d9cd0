//! A GGUF file taken apart down to its bytes, and hashes of the parts.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The file's parts in order, each with a hash: what the peers' script records of llama.cpp's converter's files.
pub fn parts(file: &[u8]) -> Value {
    let mut reader = Reader { file, at: 0 };
    assert_eq!(reader.take(4), b"GGUF");
    assert_eq!(reader.u32(), 3);
    let (tensors, entries) = (reader.u64(), reader.u64());
    let metadata: Vec<Value> = (0..entries)
        .map(|_| {
            let key = reader.text();
            let kind = reader.u32();
            let start = reader.at;
            let kind = reader.value(kind);
            json!([key, kind, hash(&file[start..reader.at])])
        })
        .collect();
    let infos: Vec<(String, Vec<u64>, u32, u64)> = (0..tensors)
        .map(|_| {
            let name = reader.text();
            let dimensions = reader.u32();
            let shape = (0..dimensions).map(|_| reader.u64()).collect();
            (name, shape, reader.u32(), reader.u64())
        })
        .collect();
    let data = reader.at.next_multiple_of(32);
    let tensors: Vec<Value> = infos
        .into_iter()
        .map(|(name, shape, kind, offset)| {
            let elements: u64 = shape.iter().product();
            let (label, block, bytes) = match kind {
                0 => ("F32", 1, 4),
                1 => ("F16", 1, 2),
                8 => ("Q8_0", 32, 34),
                30 => ("BF16", 1, 2),
                39 => ("MXFP4", 32, 17),
                other => panic!("{name} is of type {other}"),
            };
            let start = data + offset as usize;
            let end = start + (elements / block * bytes) as usize;
            json!([name, label, shape, hash(&file[start..end])])
        })
        .collect();
    json!({"file": hash(file), "metadata": metadata, "tensors": tensors})
}

/// The hash of bytes.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a [u8] {
        self.at += bytes;
        &self.file[self.at - bytes..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.u64();
        String::from_utf8(self.take(length as usize).to_vec()).unwrap()
    }

    /// Passes over a value and names its type.
    fn value(&mut self, kind: u32) -> String {
        let (name, bytes) = match kind {
            0 => ("UINT8", 1),
            4 => ("UINT32", 4),
            5 => ("INT32", 4),
            6 => ("FLOAT32", 4),
            7 => ("BOOL", 1),
            8 => {
                self.text();
                ("STRING", 0)
            }
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                let mut name = String::new();
                (0..count).for_each(|_| name = self.value(kind));
                return format!("[{name}]");
            }
            other => panic!("a value of type {other}"),
        };
        self.take(bytes);
        name.to_owned()
    }
}
