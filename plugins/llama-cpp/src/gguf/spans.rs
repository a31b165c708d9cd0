//! Where metadata entries lie in a file: for those who carry them over to another file as they are.

use std::ops::Range;

use super::value::Kind;
use super::{Error, MAGIC};

/// The metadata entries of a file, in its order: each key, and where the number of its kind and its value lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans(pub Vec<(String, Range<usize>)>);

impl Spans {
    /// Finds the entries of a file, whose bytes these are.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the place where the file stops making sense.
    pub fn of(file: &[u8]) -> Result<Self, Error> {
        let mut walk = Walk { file, at: 0 };
        if walk.take(4)? != MAGIC {
            return Err(walk.invalid("no GGUF file"));
        }
        walk.u32()?;
        walk.u64()?;
        let count = walk.u64()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let key = String::from_utf8_lossy(walk.text()?).into_owned();
            let start = walk.at;
            let kind = walk.kind()?;
            walk.value(kind)?;
            entries.push((key, start..walk.at));
        }
        Ok(Self(entries))
    }
}

struct Walk<'f> {
    file: &'f [u8],
    at: usize,
}

impl<'f> Walk<'f> {
    fn take(&mut self, bytes: u64) -> Result<&'f [u8], Error> {
        let end = usize::try_from(bytes).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| Some((end, self.file.get(self.at..end)?))) {
            Some((end, bytes)) => {
                self.at = end;
                Ok(bytes)
            }
            None => Err(self.invalid("the file ends too early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| self.invalid("the file ends too early"))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'f [u8], Error> {
        let bytes = self.u64()?;
        self.take(bytes)
    }

    fn kind(&mut self) -> Result<Kind, Error> {
        let number = self.u32()?;
        Kind::from_number(number).ok_or_else(|| self.invalid("a value of an unknown type"))
    }

    /// Passes over a value.
    fn value(&mut self, kind: Kind) -> Result<(), Error> {
        match kind {
            Kind::Text => self.text().map(drop),
            Kind::Array => {
                let kind = self.kind()?;
                let count = self.u64()?;
                match kind {
                    Kind::Array => Err(self.invalid("an array of arrays")),
                    Kind::Text => (0..count).try_for_each(|_| self.text().map(drop)),
                    kind => self.take(count.saturating_mul(kind.least_bytes())).map(drop),
                }
            }
            kind => self.take(kind.least_bytes()).map(drop),
        }
    }

    fn invalid(&self, what: &str) -> Error {
        Error::Invalid { what: what.to_owned(), at: self.at as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TensorType, Writer};
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new("llama");
        writer
            .set("a", 7u32)
            .set("words", vec!["one".to_owned(), "two".to_owned()])
            .set("x", vec![1.5f32; 3]);
        writer.tensor("t", TensorType::F32, &[2]);
        let mut file = Vec::new();
        writer.write(&mut file, |t, out| out.write_all(&vec![1; t.bytes as usize])).unwrap();
        assert_eq!(writer.file_bytes().unwrap(), file.len() as u64);
        file
    }

    #[test]
    fn a_copy_of_every_entry_is_the_same_file() {
        let file = sample();
        let spans = Spans::of(&file).unwrap();
        let mut copy = Writer::empty();
        spans.0.iter().for_each(|(key, span)| _ = copy.copy(key, &file[span.clone()]));
        copy.tensor("t", TensorType::F32, &[2]);
        let mut again = Vec::new();
        copy.write(&mut again, |t, out| out.write_all(&vec![1; t.bytes as usize])).unwrap();
        assert_eq!(again, file);
    }

    #[test]
    fn an_entry_that_is_set_again_moves_to_the_end() {
        let mut writer = Writer::new("llama");
        writer.set("a", 1u32).set("b", 2u32).set_last("a", 3u32);
        let mut file = Vec::new();
        writer.write(&mut file, |_, _| Ok(())).unwrap();
        let keys: Vec<String> = Spans::of(&file).unwrap().0.into_iter().map(|(k, _)| k).collect();
        assert_eq!(keys, ["general.architecture", "b", "a"]);
        assert_eq!(writer.value("a"), Some(&super::super::Value::U32(3)));
    }

    proptest::proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..400, byte: u8, end in 0usize..400) {
            let mut file = sample();
            let at = at % file.len();
            file[at] = byte;
            file.truncate(file.len() - end % file.len());
            let _ = Spans::of(&file);
        }
    }
}
