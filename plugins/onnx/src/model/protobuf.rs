//! A bounded, streaming reader of the protobuf wire format.
//!
//! It reads what it is asked for and seeks over the rest, so that a file of many gigabytes costs a few
//! kilobytes of memory. No length is believed before it is known to fit into what encloses it.

use std::fmt;
use std::io::{self, BufReader, Read, Seek};

/// Why a file is not what it should be.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file could not be read.
    Io(io::Error),
    /// The file ends before what it announces.
    Truncated { offset: u64, needs: u64, has: u64 },
    /// These bytes are no protobuf, or not this one.
    Malformed { offset: u64, what: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "reading failed: {error}"),
            Self::Truncated { offset, needs, has } => {
                write!(f, "the file is truncated: at byte {offset} it announces {needs} bytes and has {has}")
            }
            Self::Malformed { offset, what } => write!(f, "not an ONNX model: {what} at byte {offset}"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A field's content; for `Bytes` its length, the content being next in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(u64),
}

/// A stream of fields with its position.
pub(crate) struct Reader<R> {
    source: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads `source`, which holds `length` bytes, from its beginning.
    pub(crate) fn new(source: R, length: u64) -> Self {
        Self { source: BufReader::new(source), position: 0, length }
    }

    /// Bytes read or skipped so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next field of the message that ends at `end`, or `None` at its end. The content of a `Bytes` field
    /// must then be consumed: by [`skip`](Self::skip), by [`text`](Self::text), or field by field.
    pub(crate) fn field(&mut self, end: u64) -> Result<Option<(u64, Content)>, Fault> {
        if self.position >= end {
            return Ok(None);
        }
        let start = self.position;
        let tag = self.varint(end)?;
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 || number > 0x1fff_ffff {
            return Err(Fault::Malformed { offset: start, what: format!("field number {number}") });
        }
        let content = match wire {
            0 => Content::Varint(self.varint(end)?),
            1 => Content::Fixed64(u64::from_le_bytes(self.array(end)?)),
            2 => {
                let length = self.varint(end)?;
                self.fits(length, end)?;
                Content::Bytes(length)
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.array(end)?)),
            other => return Err(Fault::Malformed { offset: start, what: format!("wire type {other}") }),
        };
        Ok(Some((number, content)))
    }

    /// Passes over a field's content.
    pub(crate) fn skip(&mut self, content: Content) -> Result<(), Fault> {
        if let Content::Bytes(length) = content {
            let offset = i64::try_from(length).map_err(|_| Fault::Malformed {
                offset: self.position,
                what: format!("a length of {length}"),
            })?;
            self.source.seek_relative(offset)?;
            self.position += length;
        }
        Ok(())
    }

    /// The content of a `Bytes` field as text; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn text(&mut self, length: u64) -> Result<String, Fault> {
        let size = usize::try_from(length).map_err(|_| Fault::Malformed {
            offset: self.position,
            what: format!("a text of {length} bytes"),
        })?;
        let mut bytes = vec![0; size];
        self.read(&mut bytes)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The next varint of what ends at `end`.
    pub(crate) fn varint(&mut self, end: u64) -> Result<u64, Fault> {
        let start = self.position;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array(end)?;
            // The tenth byte holds the last bit; what it holds beyond is cut, as protobuf's own readers do.
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed { offset: start, what: "a number of more than ten bytes".to_owned() })
    }

    fn array<const N: usize>(&mut self, end: u64) -> Result<[u8; N], Fault> {
        self.fits(N as u64, end)?;
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.source.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Fails unless `needs` more bytes fit before `end`; tells a truncated file from a broken message.
    fn fits(&self, needs: u64, end: u64) -> Result<(), Fault> {
        let has = end.saturating_sub(self.position);
        match needs <= has {
            true => Ok(()),
            false if end == self.length => Err(Fault::Truncated { offset: self.position, needs, has }),
            false => Err(Fault::Malformed {
                offset: self.position,
                what: format!("{needs} bytes announced where {has} are left of the message"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn reader(bytes: &[u8]) -> Reader<Cursor<Vec<u8>>> {
        Reader::new(Cursor::new(bytes.to_vec()), bytes.len() as u64)
    }

    #[test]
    fn reads_every_wire_type() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x15, 1, 0, 0, 0, // 2: fixed32 1
            0x19, 2, 0, 0, 0, 0, 0, 0, 0, // 3: fixed64 2
            0x22, 2, b'h', b'i', // 4: "hi"
        ];
        let mut r = reader(&bytes);
        let end = bytes.len() as u64;
        assert_eq!(r.field(end).unwrap(), Some((1, Content::Varint(150))));
        assert_eq!(r.field(end).unwrap(), Some((2, Content::Fixed32(1))));
        assert_eq!(r.field(end).unwrap(), Some((3, Content::Fixed64(2))));
        assert_eq!(r.field(end).unwrap(), Some((4, Content::Bytes(2))));
        assert_eq!(r.text(2).unwrap(), "hi");
        assert_eq!(r.field(end).unwrap(), None);
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let mut bytes = vec![0x08];
        bytes.extend([0xff; 9]);
        bytes.push(0x01);
        let mut r = reader(&bytes);
        assert_eq!(r.field(11).unwrap(), Some((1, Content::Varint(u64::MAX))));
    }

    #[test]
    fn a_length_beyond_the_file_is_a_truncated_file() {
        let mut r = reader(&[0x3a, 0x7f, 1, 2]);
        let fault = r.field(4).unwrap_err();
        assert!(matches!(fault, Fault::Truncated { offset: 2, needs: 127, has: 2 }), "{fault}");
    }

    #[test]
    fn a_length_beyond_its_message_is_malformed() {
        let mut r = reader(&[0x3a, 0x03, 0x0a, 0x05, 1, 2, 3, 4]);
        assert_eq!(r.field(8).unwrap(), Some((7, Content::Bytes(3))));
        let fault = r.field(5).unwrap_err();
        assert!(matches!(fault, Fault::Malformed { .. }), "{fault}");
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[0x00u8, 0x00][..], &[0x0b], &[0x0f], &[0x08, 0xff], &[0xff; 12]] {
            reader(bytes).field(bytes.len() as u64).unwrap_err();
        }
    }
}
