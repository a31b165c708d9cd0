//! The pieces of a SentencePiece model, read from bytes that nobody has checked yet.
//!
//! A model is a protobuf message, `ModelProto` of
//! <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>, of which the pieces alone are
//! read: field 1, with the text in field 1, the score in field 2 and the kind in field 3.

use pajamas_plugin_api::{PluginError, Result};

use crate::error;

/// A piece of a vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// Its score.
    pub score: f32,
    /// Its kind: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub kind: i32,
}

/// Reads the pieces of a model, whose bytes these are.
///
/// # Errors
/// `tokenizer-invalid`, with the byte at which it ends or breaks the format.
pub fn pieces(file: &[u8]) -> Result<Vec<Piece>> {
    let mut reader = Reader { bytes: file, at: 0 };
    let mut pieces = Vec::new();
    while let Some((field, value)) = reader.field()? {
        if let (1, Field::Bytes(bytes)) = (field, value) {
            let inside = Reader { bytes, at: 0 };
            pieces.push(
                piece(inside)
                    .map_err(|e| invalid(&format!("has a broken piece {}: {}", pieces.len(), e.message)))?,
            );
        }
    }
    match pieces.is_empty() {
        true => Err(invalid("has no pieces: tokenizer.model is no SentencePiece model")),
        false => Ok(pieces),
    }
}

fn piece(mut reader: Reader<'_>) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
    while let Some((field, value)) = reader.field()? {
        match (field, value) {
            (1, Field::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| invalid("has text that is no UTF-8"))?;
                piece.text = text.to_owned();
            }
            (2, Field::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (3, Field::Number(kind @ 1..=6)) => piece.kind = kind as i32,
            (3, Field::Number(kind)) => {
                return Err(invalid(&format!("has a piece of the unknown kind {kind}")));
            }
            _ => {}
        }
    }
    Ok(piece)
}

enum Field<'a> {
    Number(u64),
    Four([u8; 4]),
    Bytes(&'a [u8]),
    Eight,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next field, its number and its value.
    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => self.take(8).map(|_| Field::Eight)?,
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let four = self.take(4)?;
                Field::Four([four[0], four[1], four[2], four[3]])
            }
            other => return Err(self.broken(&format!("a field of the unknown type {other}"))),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.broken("a number that does not end"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|n| self.at.checked_add(n));
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let Some(taken) = taken else {
            return Err(self.broken(&format!(
                "{length} bytes promised, of which {} are there",
                self.bytes.len() - self.at
            )));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn broken(&self, what: &str) -> PluginError {
        invalid(&format!("is no SentencePiece model: {what} (at byte {})", self.at))
    }
}

fn invalid(what: &str) -> PluginError {
    error::tokenizer(what).help("download tokenizer.model again")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: &[u8] = &[10, 10, 10, 1, b'a', 21, 0, 0, 128, 191, 24, 3, 10, 3, 10, 1, b'b', 18, 1, 0];

    #[test]
    fn pieces_are_read_with_their_defaults() {
        let wanted = [
            Piece { text: "a".into(), score: -1.0, kind: 3 },
            Piece { text: "b".into(), score: 0.0, kind: 1 },
        ];
        assert_eq!(pieces(MODEL).unwrap(), wanted);
        for broken in [&MODEL[..5], &[][..], &[10, 200][..], &[11][..], &[10, 2, 24, 9][..]] {
            assert_eq!(pieces(broken).unwrap_err().code, "tokenizer-invalid", "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pieces(&bytes);
        }

        #[test]
        fn a_changed_model_is_an_answer(at in 0usize..MODEL.len(), byte: u8) {
            let mut bytes = MODEL.to_vec();
            bytes[at] = byte;
            let _ = pieces(&bytes);
        }
    }
}
