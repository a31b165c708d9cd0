//! How important each column of each tensor is: the means of an importance matrix (tools/quantize/quantize.cpp:
//! `load_imatrix`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result};

use crate::error::codes as own;
use crate::imatrix::{Identity, Matrix, layer_of};

/// Mean squares of what columns are multiplied by, tensor by tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Importance {
    tensors: HashMap<String, Vec<f32>>,
    /// The texts it was collected on.
    pub datasets: Vec<String>,
    /// Pieces of text that it was collected on.
    pub chunks: u64,
    /// Which text that was, when it was written down.
    pub calibration: Option<Identity>,
    /// How often each expert was chosen, layer by layer.
    expert_hits: BTreeMap<u32, Vec<u64>>,
    /// The experts that nothing was collected from, layer by layer.
    never_reached: BTreeMap<u32, Vec<u32>>,
}

impl Importance {
    /// Reads a file.
    ///
    /// # Errors
    /// Those of [`Matrix::read`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::of_matrix(Matrix::read(path)?))
    }

    /// The means of a matrix.
    pub fn of_matrix(matrix: Matrix) -> Self {
        let mut never_reached: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (layer, expert) in matrix.experts_below(1) {
            never_reached.entry(layer).or_default().push(expert);
        }
        Self {
            tensors: matrix.entries.iter().map(|(name, entry)| (name.clone(), entry.means())).collect(),
            chunks: matrix.chunks,
            expert_hits: matrix.expert_hits(),
            never_reached,
            datasets: matrix.datasets,
            calibration: matrix.calibration,
        }
    }

    /// The experts of a tensor that nothing was collected from.
    pub(super) fn never_reached(&self, name: &str) -> &[u32] {
        let layer = layer_of(name).filter(|_| name.contains("_exps."));
        layer.and_then(|layer| self.never_reached.get(&layer)).map_or(&[], Vec::as_slice)
    }

    /// How often each expert of a layer was chosen; nothing when that was not collected.
    pub(super) fn expert_hits(&self, layer: u32) -> &[u64] {
        self.expert_hits.get(&layer).map_or(&[], Vec::as_slice)
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
    use std::fs::File;

    use pajamas_llama_cpp::gguf::{TensorInfo, Writer};

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
