//! Writing files.

use std::io::{self, Write};

use super::header::TensorInfo;
use super::value::{Array, Value};
use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType, VERSION};

/// Describes a file, then writes it in one pass: tensor data is asked for when its turn comes and need never be in
/// memory all at once.
#[derive(Debug, Clone)]
pub struct Writer {
    metadata: Vec<(String, Entry)>,
    tensors: Vec<TensorInfo>,
    end: u64,
}

/// A metadata entry's value.
#[derive(Debug, Clone)]
enum Entry {
    Value(Value),
    /// As it stands in another file: the number of its kind, and its bytes.
    Copied(Vec<u8>),
}

impl Writer {
    /// A file of a model of this family.
    pub fn new(architecture: &str) -> Self {
        let mut writer = Self::empty();
        writer.set("general.architecture", architecture);
        writer
    }

    /// A file that says nothing yet.
    pub fn empty() -> Self {
        Self { metadata: Vec::new(), tensors: Vec::new(), end: 0 }
    }

    /// Sets a metadata entry; a later value of one key replaces the earlier.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = Entry::Value(value.into());
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Sets a metadata entry and moves it to the end, which is what ggml does to one that is set again.
    pub fn set_last(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.remove(key);
        self.set(key, value)
    }

    /// Adds a metadata entry as it stands in another file ([`super::Spans`]).
    pub fn copy(&mut self, key: &str, kind_and_value: &[u8]) -> &mut Self {
        self.remove(key);
        self.metadata.push((key.to_owned(), Entry::Copied(kind_and_value.to_vec())));
        self
    }

    /// Removes a metadata entry, if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self
    }

    /// A metadata entry that was set here.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).and_then(|(_, entry)| match entry {
            Entry::Value(value) => Some(value),
            Entry::Copied(_) => None,
        })
    }

    /// Takes the metadata alone, without tensors.
    #[must_use]
    pub fn metadata_only(&self) -> Self {
        Self { metadata: self.metadata.clone(), tensors: Vec::new(), end: 0 }
    }

    /// The file's exact size.
    ///
    /// # Errors
    /// `InvalidInput` as for [`write`](Self::write).
    pub fn file_bytes(&self) -> io::Result<u64> {
        let mut out = Counted { inner: io::sink(), written: 0 };
        self.write_head(&mut out)?;
        for tensor in &self.tensors {
            tensor.check()?;
            write_place(&mut out, tensor)?;
        }
        Ok(out.written.next_multiple_of(DEFAULT_ALIGNMENT) + self.end)
    }

    /// Adds a tensor; dimensions are innermost first, and rows a whole number of the type's blocks.
    pub fn tensor(&mut self, name: &str, tensor_type: TensorType, dimensions: &[u64]) -> &mut Self {
        let bytes = tensor_type.tensor_bytes(dimensions).unwrap_or(0);
        let info = TensorInfo {
            name: name.to_owned(),
            tensor_type,
            dimensions: dimensions.to_vec(),
            offset: self.end,
            bytes,
        };
        self.end += bytes.next_multiple_of(DEFAULT_ALIGNMENT);
        self.tensors.push(info);
        self
    }

    /// Writes the file. `data` writes exactly the bytes of the tensor it is called with.
    ///
    /// # Errors
    /// Those of `out` and of `data`; `InvalidInput` for a tensor whose shape does not suit its type or whose data
    /// has another length.
    pub fn write<W: Write>(
        &self,
        out: W,
        mut data: impl FnMut(&TensorInfo, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = Counted { inner: out, written: 0 };
        self.write_head(&mut out)?;
        for tensor in &self.tensors {
            write_place(&mut out, tensor)?;
        }
        out.pad()?;
        for tensor in &self.tensors {
            tensor.check()?;
            let start = out.written;
            data(tensor, &mut out)?;
            if out.written - start != tensor.bytes {
                return Err(invalid(tensor, "was given data of another length"));
            }
            out.pad()?;
        }
        out.flush()
    }

    /// Writes what comes before the list of tensors.
    fn write_head(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&(self.metadata.len() as u64).to_le_bytes())?;
        for (key, entry) in &self.metadata {
            write_text(out, key)?;
            match entry {
                Entry::Copied(bytes) => out.write_all(bytes)?,
                Entry::Value(value) => {
                    out.write_all(&(value.kind() as u32).to_le_bytes())?;
                    write_value(out, value)?;
                }
            }
        }
        Ok(())
    }
}

impl TensorInfo {
    fn check(&self) -> io::Result<()> {
        match self.tensor_type.tensor_bytes(&self.dimensions) {
            Some(_) => Ok(()),
            None => Err(invalid(self, "has a shape that its type cannot have")),
        }
    }
}

fn write_place(out: &mut impl Write, tensor: &TensorInfo) -> io::Result<()> {
    write_text(out, &tensor.name)?;
    out.write_all(&(tensor.dimensions.len() as u32).to_le_bytes())?;
    for dimension in &tensor.dimensions {
        out.write_all(&dimension.to_le_bytes())?;
    }
    out.write_all(&tensor.tensor_type.number().to_le_bytes())?;
    out.write_all(&tensor.offset.to_le_bytes())
}

fn invalid(tensor: &TensorInfo, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("tensor `{}` {what}", tensor.name))
}

fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

fn write_value(out: &mut impl Write, value: &Value) -> io::Result<()> {
    match value {
        Value::U8(v) => out.write_all(&v.to_le_bytes()),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => out.write_all(&v.to_le_bytes()),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(*v)]),
        Value::Text(v) => write_text(out, v),
        Value::U64(v) => out.write_all(&v.to_le_bytes()),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
        Value::Array(Array { kind, items, .. }) => {
            out.write_all(&(*kind as u32).to_le_bytes())?;
            out.write_all(&(items.len() as u64).to_le_bytes())?;
            items.iter().try_for_each(|item| write_value(out, item))
        }
    }
}

/// Counts what passes through, to know how much padding the alignment asks for.
struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(DEFAULT_ALIGNMENT) - self.written;
        self.write_all(&[0; DEFAULT_ALIGNMENT as usize][..missing as usize])
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_another_length_is_refused() {
        let mut writer = Writer::new("llama");
        writer.tensor("t", TensorType::F32, &[4]);
        let error = writer.write(Vec::new(), |_, out| out.write_all(&[0; 3])).unwrap_err();
        assert!(error.to_string().contains("`t`"), "{error}");
        writer.tensor("u", TensorType::Q8_0, &[5]);
        let error = writer.write(Vec::new(), |t, out| out.write_all(&vec![0; t.bytes as usize])).unwrap_err();
        assert!(error.to_string().contains("shape"), "{error}");
    }
}
