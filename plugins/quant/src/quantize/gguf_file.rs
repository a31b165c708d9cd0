//! A model in GGUF files as something to quantize.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use pajamas_llama_cpp::gguf::{self, Header, Spans, TensorInfo, Value, Writer};
use pajamas_llama_cpp::quantize;
use pajamas_plugin_api::{PluginError, Result, codes};

use super::original::{Original, Tensor, place};
use crate::error::{self, codes as own};

/// A model in a GGUF file, or in several.
pub struct GgufFile {
    maps: Vec<Mmap>,
    header: Header,
    metadata: Writer,
    tensors: Vec<Tensor>,
    /// In which file each tensor's bytes lie, and where.
    places: Vec<(usize, Range<usize>)>,
}

impl GgufFile {
    /// Opens a file, and those that belong to it when a model was split, and checks their structure.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`.
    pub fn open(path: &Path) -> Result<Self> {
        let (map, header) = map(path)?;
        let invalid = |e| damaged(path, e);
        header.check_model().map_err(invalid)?;
        if header.architecture().is_none() {
            return Err(error::at(
                codes::MODEL_INVALID,
                path,
                "the metadata entry `general.architecture` is missing",
            ));
        }
        let mut metadata = Writer::empty();
        for (key, span) in Spans::of(&map).map_err(invalid)?.0 {
            // Files are written with ggml's own alignment, whatever this one has; and a file that was split is one now.
            if key != "general.alignment" && !key.starts_with("split.") {
                metadata.copy(&key, map.get(span).unwrap_or(&[]));
            }
        }
        let mut files = vec![(map, header)];
        for part in &files[0].1.parts(path).map_err(invalid)?[1..] {
            files.push(self::map(part)?);
        }
        let mut found: Vec<(usize, &Header, &TensorInfo)> = files
            .iter()
            .enumerate()
            .flat_map(|(file, (_, header))| header.tensors.iter().map(move |tensor| (file, header, tensor)))
            .collect();
        found.sort_by(|a, b| place(&a.2.name).cmp(&place(&b.2.name)));
        if let Some(twice) = found.windows(2).find(|pair| pair[0].2.name == pair[1].2.name) {
            let what = format!("tensor `{}` is in two of the model's files", twice[0].2.name);
            return Err(error::at(codes::MODEL_INVALID, path, what));
        }
        let places = found.iter().map(|(file, header, tensor)| {
            let start = (header.data_offset + tensor.offset) as usize;
            (*file, start..start + tensor.bytes as usize)
        });
        let places = places.collect();
        let tensors = found.iter().map(|(.., tensor)| Tensor {
            name: tensor.name.clone(),
            tensor_type: tensor.tensor_type,
            dimensions: tensor.dimensions.clone(),
        });
        let tensors = tensors.collect();
        let header = files[0].1.clone();
        Ok(Self { tensors, places, metadata, header, maps: files.into_iter().map(|(map, _)| map).collect() })
    }

    /// What the file, or the first of several, says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn bytes(&self, tensor: usize) -> &[u8] {
        // Headers were checked against the lengths of their files.
        let (file, place) = &self.places[tensor];
        self.maps[*file].get(place.clone()).unwrap_or(&[])
    }
}

impl Original for GgufFile {
    fn metadata(&self) -> &Writer {
        &self.metadata
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.header.value(key)
    }

    fn family(&self) -> &str {
        self.header.architecture().unwrap_or_default()
    }

    fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    fn floats(&self, tensor: usize, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let info = &self.tensors[tensor];
        let row = info.tensor_type.tensor_bytes(&[info.columns()]).unwrap_or(0);
        let bytes =
            self.bytes(tensor).get((rows.start * row) as usize..(rows.end * row) as usize).unwrap_or(&[]);
        quantize::dequantize(info.tensor_type, bytes, out)
            .map_err(|e| PluginError::new(codes::MODEL_INVALID, format!("tensor `{}`: {e}", info.name)))
    }

    fn copy(
        &self,
        tensor: usize,
        allow_non_finite: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let info = &self.tensors[tensor];
        let bytes = self.bytes(tensor);
        if !allow_non_finite && !quantize::is_sound(info.tensor_type, bytes) {
            let what = format!("tensor `{}` holds numbers that are not finite, or damaged blocks", info.name);
            return Err(PluginError::new(own::WEIGHT_NOT_FINITE, what).help("take another copy of the model"));
        }
        bytes.chunks(super::CHUNK * 4).try_for_each(out)
    }
}

/// Maps a file and checks its header.
fn map(path: &Path) -> Result<(Mmap, Header)> {
    let file = File::open(path).map_err(|e| PluginError::model_unreadable(path, &e))?;
    // SAFETY: the map is private to this process and only read, as for weights.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| PluginError::model_unreadable(path, &e))?;
    let header = Header::read(&map[..], map.len() as u64).map_err(|e| damaged(path, e))?;
    Ok((map, header))
}

/// The header of a model in GGUF files: that of the first, with the tensors and bytes of all. Where tensors lie means
/// nothing then.
///
/// # Errors
/// `model-not-found`, `model-invalid`.
pub(crate) fn whole_header(path: &Path) -> Result<Header> {
    let open = |path: &Path| {
        Header::open(path).map_err(|e| match e {
            gguf::Error::Io(e) => PluginError::model_unreadable(path, &e),
            invalid => damaged(path, invalid),
        })
    };
    let mut header = open(path)?;
    for part in &header.parts(path).map_err(|e| damaged(path, e))?[1..] {
        let part = open(part)?;
        header.tensors.extend(part.tensors);
        header.file_bytes += part.file_bytes;
    }
    Ok(header)
}

fn damaged(path: &Path, error: gguf::Error) -> PluginError {
    error::at(codes::MODEL_INVALID, path, error).help("fetch the file again, and compare its size and hash")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pajamas_llama_cpp::gguf::TensorType;

    use super::*;

    /// Writes tensors of 32 equal numbers, as part `number` of so many.
    fn write(folder: &Path, tensors: &[(&str, f32)], number: u16, count: u16) -> PathBuf {
        let mut writer = Writer::empty();
        if number == 1 {
            writer.set("general.architecture", "llama").set("llama.block_count", 2u32);
        }
        if count > 1 {
            writer.set("split.no", number - 1).set("split.count", count);
        }
        tensors.iter().for_each(|(name, _)| _ = writer.tensor(name, TensorType::F32, &[32]));
        let name = if count > 1 { format!("m-{number:05}-of-{count:05}.gguf") } else { "m.gguf".into() };
        let path = folder.join(name);
        let mut values = tensors.iter().flat_map(|(_, value)| [value.to_le_bytes(); 32]);
        let data = |_: &TensorInfo, out: &mut dyn std::io::Write| {
            values.by_ref().take(32).try_for_each(|value| out.write_all(&value))
        };
        writer.write(File::create(&path).unwrap(), data).unwrap();
        path
    }

    #[test]
    fn a_model_in_several_files_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let whole = write(folder.path(), &[("blk.0.a", 1.0), ("blk.1.a", 2.0), ("blk.1.b", 3.0)], 1, 1);
        let first = write(folder.path(), &[("blk.1.a", 2.0)], 1, 2);
        let refused = |path: &Path| GgufFile::open(path).err().unwrap();
        assert_eq!(refused(&first).code, codes::MODEL_NOT_FOUND);
        assert_eq!(whole_header(&first).unwrap_err().code, codes::MODEL_NOT_FOUND);
        let second = write(folder.path(), &[("blk.0.a", 1.0), ("blk.1.b", 3.0)], 2, 2);
        let (one, two) = (GgufFile::open(&whole).unwrap(), GgufFile::open(&first).unwrap());
        assert_eq!(one.tensors(), two.tensors());
        for tensor in 0..3 {
            let floats = |file: &GgufFile| {
                let mut floats = Vec::new();
                file.floats(tensor, 0..1, &mut floats).unwrap();
                floats
            };
            assert_eq!(floats(&one), floats(&two));
        }
        let bytes = |file: &GgufFile| file.metadata().file_bytes().unwrap();
        assert_eq!(bytes(&one), bytes(&two), "nothing of the parts is left in the metadata");
        assert_eq!(whole_header(&first).unwrap().tensors.len(), 3);

        write(folder.path(), &[("blk.1.a", 1.0)], 2, 2);
        assert!(refused(&first).message.contains("`blk.1.a` is in two"), "{}", refused(&first));
        assert!(GgufFile::open(&second).is_err(), "the second part is no model");
    }
}
