//! A reader that knows where it is and how much can still come.

use std::collections::HashSet;
use std::io::Read;

use super::value::{Array, Kind, Value};
use super::{Error, TensorType};

/// The longest text that is kept in memory. Chat templates reach some hundred KiB.
const LONGEST_TEXT: u64 = 64 << 20;
/// The longest list whose texts are compared: the largest vocabularies have some hundred thousand tokens.
pub(super) const MOST_DISTINCT: u64 = 4 << 20;

pub(super) struct Reader<R> {
    inner: R,
    at: u64,
    len: u64,
}

impl<R: Read> Reader<R> {
    /// A reader over `len` bytes.
    pub fn new(inner: R, len: u64) -> Self {
        Self { inner, at: 0, len }
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn remaining(&self) -> u64 {
        self.len.saturating_sub(self.at)
    }

    pub fn invalid(&self, what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into(), at: self.at }
    }

    /// Refuses to go on when `bytes` cannot follow: what `what` counts is cut off, or the count is wrong.
    pub fn expect(&self, bytes: u64, what: &str) -> Result<(), Error> {
        if bytes > self.remaining() {
            return Err(self.invalid(format!(
                "the file ends too early: {what} needs {bytes} bytes and {} follow",
                self.remaining()
            )));
        }
        Ok(())
    }

    pub fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        self.expect(N as u64, what)?;
        let mut buffer = [0; N];
        self.inner.read_exact(&mut buffer)?;
        self.at += N as u64;
        Ok(buffer)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, Error> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    pub fn text(&mut self, what: &str) -> Result<String, Error> {
        let len = self.u64(what)?;
        self.expect(len, what)?;
        if len > LONGEST_TEXT {
            return Err(self.invalid(format!("{what} is {len} bytes long, more than any text may be")));
        }
        let mut buffer = vec![0; len as usize];
        self.inner.read_exact(&mut buffer)?;
        self.at += len;
        // Lossy, for vocabularies may hold pieces of characters.
        Ok(String::from_utf8(buffer).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Reads past a list of texts that must all differ; returns how many.
    pub fn distinct_texts(&mut self, what: &str) -> Result<u64, Error> {
        let len = self.u64(what)?;
        self.expect(len.saturating_mul(Kind::Text.least_bytes()), what)?;
        if len > MOST_DISTINCT {
            return Err(self.invalid(format!("{what} has {len} entries, more than any vocabulary")));
        }
        let mut seen = HashSet::new();
        for index in 0..len {
            let bytes = self.u64(what)?;
            self.expect(bytes, what)?;
            if bytes > LONGEST_TEXT {
                return Err(self.invalid(format!("entry {index} of {what} is {bytes} bytes long")));
            }
            let mut text = vec![0; bytes as usize];
            self.inner.read_exact(&mut text)?;
            self.at += bytes;
            // llama.cpp gives empty ones names of their own.
            if bytes > 0 && seen.contains(&text) {
                let text = text.escape_ascii().to_string();
                return Err(self.invalid(format!("{what} has the entry \"{text}\" twice")));
            }
            seen.insert(text);
        }
        Ok(len)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        let skipped = std::io::copy(&mut self.inner.by_ref().take(bytes), &mut std::io::sink())?;
        self.at += skipped;
        if skipped < bytes {
            return Err(self.invalid("the file ends too early"));
        }
        Ok(())
    }

    pub fn kind(&mut self, what: &str) -> Result<Kind, Error> {
        let number = self.u32(what)?;
        Kind::from_number(number).ok_or_else(|| self.invalid(format!("{what} has the unknown type {number}")))
    }

    pub fn tensor_type(&mut self, what: &str) -> Result<TensorType, Error> {
        let number = self.u32(what)?;
        TensorType::from_number(number)
            .ok_or_else(|| self.invalid(format!("{what} has the unknown or retired type {number}")))
    }

    pub fn value(&mut self, kind: Kind, what: &str) -> Result<Value, Error> {
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.bytes(what)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.bytes(what)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.bytes(what)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.bytes(what)?)),
            Kind::U32 => Value::U32(self.u32(what)?),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.bytes(what)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.bytes(what)?)),
            Kind::Bool => Value::Bool(self.bytes::<1>(what)? != [0]),
            Kind::Text => Value::Text(self.text(what)?),
            Kind::U64 => Value::U64(self.u64(what)?),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.bytes(what)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.bytes(what)?)),
            Kind::Array => Value::Array(self.array(what, Array::KEPT)?),
        })
    }

    /// Reads an array, and keeps its elements unless there are more than `kept`.
    pub fn array(&mut self, what: &str, kept: u64) -> Result<Array, Error> {
        let kind = self.kind(what)?;
        if kind == Kind::Array {
            return Err(self.invalid(format!("{what} is an array of arrays, which llama.cpp does not read")));
        }
        let len = self.u64(what)?;
        self.expect(len.saturating_mul(kind.least_bytes()), what)?;
        let mut items = Vec::new();
        if len <= kept {
            for _ in 0..len {
                items.push(self.value(kind, what)?);
            }
        } else if kind == Kind::Text {
            for _ in 0..len {
                let bytes = self.u64(what)?;
                self.expect(bytes, what)?;
                self.skip(bytes)?;
            }
        } else {
            self.skip(len * kind.least_bytes())?;
        }
        Ok(Array { kind, len, items })
    }
}
