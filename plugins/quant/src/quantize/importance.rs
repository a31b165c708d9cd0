//! How important each column of each tensor is: an importance matrix, as llama.cpp's `llama-imatrix` writes it.
//!
//! The file is GGUF: for each tensor NAME a tensor `NAME.in_sum2` with the sums of squares of what each column was
//! multiplied by, and `NAME.counts` with how often, one for each expert (tools/imatrix/imatrix.cpp,
//! tools/quantize/quantize.cpp: `load_imatrix`).

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use pajamas_llama_cpp::gguf::{Header, TensorInfo, TensorType, Value};
use pajamas_plugin_api::{PluginError, Result};

use crate::error::{self, codes as own};

/// Mean squares of what columns are multiplied by, tensor by tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Importance {
    tensors: HashMap<String, Vec<f32>>,
    /// The texts it was collected on.
    pub datasets: Vec<String>,
    /// Pieces of text that it was collected on.
    pub chunks: u64,
}

impl Importance {
    /// Reads a file.
    ///
    /// # Errors
    /// `model-not-found`; `importance-invalid` for a file that is none, or holds numbers that are not finite.
    pub fn open(path: &Path) -> Result<Self> {
        let invalid = |what: String| {
            error::at(own::IMPORTANCE_INVALID, path, what)
                .help("make it again, with llama-imatrix of a recent version")
        };
        let missing = |e: std::io::Error| PluginError::model_unreadable(path, &e);
        let file = File::open(path).map_err(missing)?;
        // SAFETY: the map is private to this process and only read, as for weights.
        let map = unsafe { Mmap::map(&file) }.map_err(missing)?;
        let header = Header::read(&map[..], map.len() as u64).map_err(|e| invalid(e.to_string()))?;
        if header.value("general.type").and_then(Value::as_text) != Some("imatrix") {
            return Err(invalid("the metadata entry `general.type` is not \"imatrix\"".into()));
        }
        let data = |tensor: &TensorInfo| {
            let start = (header.data_offset + tensor.offset) as usize;
            let bytes = map.get(start..start + tensor.bytes as usize).unwrap_or(&[]);
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>()
        };
        let find = |name: &str| header.tensors.iter().find(|t| t.name == name);
        let mut importance = Self {
            datasets: match header.value("imatrix.datasets") {
                Some(Value::Array(list)) => {
                    list.items.iter().filter_map(Value::as_text).map(str::to_owned).collect()
                }
                _ => Vec::new(),
            },
            chunks: header.value("imatrix.chunk_count").and_then(Value::as_u64).unwrap_or(0),
            ..Self::default()
        };
        for sums in &header.tensors {
            let Some(name) = sums.name.strip_suffix(".in_sum2") else { continue };
            let Some(counts) = find(&format!("{name}.counts")) else {
                return Err(invalid(format!("tensor `{name}.counts` is missing")));
            };
            let plain = sums.tensor_type == TensorType::F32 && counts.tensor_type == TensorType::F32;
            let columns = sums.dimensions.first().copied().unwrap_or(0) as usize;
            let (sums, counts) = (data(sums), data(counts));
            if !plain || columns == 0 || sums.len() != columns * counts.len() {
                return Err(invalid(format!("the sums and counts of `{name}` do not belong together")));
            }
            let means = sums.chunks(columns).zip(&counts).flat_map(|(sums, count)| {
                // What was never reached says nothing: every column is as good as the others.
                sums.iter().map(move |sum| if *count > 0.0 { sum / count } else { 1.0 })
            });
            let means: Vec<f32> = means.collect();
            if !means.iter().all(|m| m.is_finite() && *m >= 0.0) {
                return Err(invalid(format!("the importance of `{name}` is not finite")));
            }
            importance.tensors.insert(name.to_owned(), means);
        }
        match importance.tensors.is_empty() {
            true => Err(invalid("it holds no tensor".into())),
            false => Ok(importance),
        }
    }

    /// How many tensors it knows.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Each tensor with the importance of its columns, expert after expert.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.tensors.iter().map(|(name, means)| (name.as_str(), means.as_slice()))
    }

    /// The importance of a tensor's columns, one for each matrix in it; `None` when it was not collected.
    ///
    /// # Errors
    /// `importance-mismatch` when it was collected on another model. Of embeddings, which are looked up and not
    /// multiplied, it is left out instead.
    pub(super) fn of(&self, name: &str, dimensions: &[u64]) -> Result<Option<&[f32]>> {
        let Some(means) = self.tensors.get(name) else { return Ok(None) };
        let size = |at: usize| dimensions.get(at).copied().unwrap_or(1);
        let wanted = size(0) * size(2);
        match means.len() as u64 == wanted {
            true => Ok(Some(means)),
            false if super::category::is_embeddings(name) => Ok(None),
            false => {
                let what =
                    format!("the importance of `{name}` has {} columns, the tensor {wanted}", means.len());
                Err(PluginError::new(own::IMPORTANCE_MISMATCH, what)
                    .help("collect the importance matrix on this very model"))
            }
        }
    }
}

/// Refuses a type that cannot be made without importance.
pub(super) fn missing(name: &str, wanted: TensorType) -> PluginError {
    let what = format!("tensor `{name}` as {wanted} needs an importance matrix: without one it holds noise");
    PluginError::new(own::IMPORTANCE_MISSING, what).help(
        "give one with the option `imatrix`, or take a precision that needs none, such as IQ4_XS or Q3_K_S",
    )
}

#[cfg(test)]
mod tests {
    use pajamas_llama_cpp::gguf::Writer;

    use super::*;

    fn write(path: &Path, sums: &[f32], counts: &[f32], columns: u64) {
        let mut writer = Writer::empty();
        writer.set("general.type", "imatrix").set("imatrix.datasets", vec!["a text".to_owned()]);
        writer.set("imatrix.chunk_count", 3u32).set("imatrix.chunk_size", 512u32);
        writer.tensor("t.weight.in_sum2", TensorType::F32, &[columns, sums.len() as u64 / columns]);
        writer.tensor("t.weight.counts", TensorType::F32, &[1, counts.len() as u64]);
        let file = File::create(path).unwrap();
        let mut data = [sums, counts].into_iter();
        let write = |_: &TensorInfo, out: &mut dyn std::io::Write| {
            data.next().unwrap().iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
        };
        writer.write(file, write).unwrap();
    }

    #[test]
    fn sums_become_means_and_what_was_not_reached_counts_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imatrix.gguf");
        write(&path, &[2.0, 4.0, 9.0, 9.0], &[2.0, 0.0], 2);
        let importance = Importance::open(&path).unwrap();
        assert_eq!(importance.of("t.weight", &[2, 8, 2]).unwrap(), Some(&[1.0, 2.0, 1.0, 1.0][..]));
        assert_eq!(importance.of("u.weight", &[2, 8]).unwrap(), None);
        assert_eq!(importance.of("t.weight", &[3, 8]).unwrap_err().code, "importance-mismatch");
        assert_eq!((importance.len(), importance.chunks, importance.datasets.len()), (1, 3, 1));
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imatrix.gguf");
        write(&path, &[f32::NAN, 1.0], &[1.0], 2);
        assert_eq!(Importance::open(&path).unwrap_err().code, "importance-invalid");
        write(&path, &[1.0, 1.0], &[1.0, 1.0], 2);
        assert_eq!(Importance::open(&path).unwrap_err().code, "importance-invalid");
        std::fs::write(&path, "old format").unwrap();
        assert_eq!(Importance::open(&path).unwrap_err().code, "importance-invalid");
        assert_eq!(Importance::open(&folder.path().join("no")).unwrap_err().code, "model-not-found");
    }
}
