//! Models in several files (`llama-gguf-split`): the first has the metadata, each has some of the tensors.

use std::path::{Path, PathBuf};

use super::{Error, Header, Value};

/// The most files of a model: numbers in their names have five digits.
const MOST_PARTS: u64 = 99_999;

impl Header {
    /// The files of a model of which this is the header of the first, that one included. Whether they are there is not
    /// looked at.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the file is not named like the first of several, or says that there are too many.
    pub fn parts(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        let count = self.value("split.count").and_then(Value::as_u64).unwrap_or(1);
        if count <= 1 {
            return Ok(vec![path.to_owned()]);
        }
        let invalid = |what: String| Error::Invalid { what, at: 0 };
        if count > MOST_PARTS {
            return Err(invalid(format!("the model is said to have {count} parts, more than {MOST_PARTS}")));
        }
        let first = part(path, 1, count).filter(|first| first == path);
        if first.is_none() {
            let what = format!(
                "this is one of {count} parts, but not named like the first, which ends in -00001-of-{count:05}.gguf"
            );
            return Err(invalid(what));
        }
        Ok((1..=count).filter_map(|number| part(path, number, count)).collect())
    }
}

/// The path of part `number`, by the name of the first: `…-00001-of-00003.gguf`.
fn part(first: &Path, number: u64, count: u64) -> Option<PathBuf> {
    let name = first.file_name()?.to_str()?;
    let prefix = name.strip_suffix(&format!("-00001-of-{count:05}.gguf"))?;
    Some(first.with_file_name(format!("{prefix}-{number:05}-of-{count:05}.gguf")))
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;

    #[test]
    fn parts_are_named_after_the_first() {
        let header = |count: u16| {
            let mut writer = Writer::new("llama");
            writer.set("split.count", count);
            let mut file = Vec::new();
            writer.write(&mut file, |_, _| Ok(())).unwrap();
            Header::read(&file[..], file.len() as u64).unwrap()
        };
        let parts = header(3).parts(Path::new("/m/big-00001-of-00003.gguf")).unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2], Path::new("/m/big-00003-of-00003.gguf"));
        assert_eq!(header(0).parts(Path::new("/m/big.gguf")).unwrap(), [Path::new("/m/big.gguf")]);
        for wrong in ["/m/big.gguf", "/m/big-00002-of-00003.gguf", "/m/big-00001-of-00002.gguf"] {
            let error = header(3).parts(Path::new(wrong)).unwrap_err().to_string();
            assert!(error.contains("one of 3 parts"), "{error}");
        }
    }
}
