//! Matrices in files: GGUF, as `llama-imatrix` writes and reads it (`save_imatrix`; common/imatrix-loader.cpp).
//!
//! For each tensor NAME there is a tensor `NAME.in_sum2` with the sums and `NAME.counts` with the counts. What is ours
//! alone lies beside it in the metadata, where llama.cpp does not look.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use pajamas_llama_cpp::gguf::{Header, TensorInfo, TensorType, Value, Writer};
use pajamas_plugin_api::{PluginError, Result};

use super::{Entry, Identity, Matrix};
use crate::convert::output;
use crate::error::{self, codes as own};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
/// Ours: the text's identity.
const NAME: &str = "pajamas.calibration.name";
const SHA256: &str = "pajamas.calibration.sha256";
const TOKENS: &str = "pajamas.calibration.tokens";
/// Ours: a list for each layer, with its number behind.
const EXPERT_USE: &str = "pajamas.expert_use.";
/// A longer list is no list of experts.
const MOST_EXPERTS: u64 = 4096;

impl Matrix {
    /// Reads a file, ours or one of llama.cpp's.
    ///
    /// # Errors
    /// `model-not-found`; `importance-invalid` for a file that is none, or holds numbers that are not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let invalid = |what: String| {
            error::at(own::IMPORTANCE_INVALID, path, what)
                .help("make it again, with `pajamas calibrate` or llama-imatrix of a recent version")
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
        let by_name: HashMap<&str, &TensorInfo> =
            header.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let mut entries = BTreeMap::new();
        for sums in &header.tensors {
            let Some(name) = sums.name.strip_suffix(SUMS) else { continue };
            let Some(counts) = by_name.get(format!("{name}{COUNTS}").as_str()) else {
                return Err(invalid(format!("tensor `{name}{COUNTS}` is missing")));
            };
            if sums.tensor_type != TensorType::F32 || counts.tensor_type != TensorType::F32 {
                return Err(invalid(format!("the sums and counts of `{name}` are not 32-bit floats")));
            }
            let columns = sums.dimensions.first().and_then(|n| usize::try_from(*n).ok());
            let (sums, counts) = (data(sums), data(counts));
            if !sums.iter().chain(&counts).all(|n| n.is_finite() && *n >= 0.0) {
                return Err(invalid(format!("the importance of `{name}` is not finite")));
            }
            let entry = Entry { sums, counts: counts.iter().map(|n| *n as u64).collect() };
            if entry.columns().is_none() || entry.columns() != columns {
                return Err(invalid(format!("the sums and counts of `{name}` do not belong together")));
            }
            entries.insert(name.to_owned(), entry);
        }
        if entries.is_empty() {
            return Err(invalid("it holds no tensor".into()));
        }
        let number = |key: &str| header.value(key).and_then(Value::as_u64).unwrap_or(0);
        Ok(Self {
            entries,
            datasets: match header.value(DATASETS) {
                Some(Value::Array(list)) => {
                    list.items.iter().filter_map(Value::as_text).map(str::to_owned).collect()
                }
                _ => Vec::new(),
            },
            chunks: number(CHUNK_COUNT),
            chunk_size: number(CHUNK_SIZE),
            calibration: identity(&header),
            expert_use: expert_use(&header),
        })
    }

    /// Writes a file, whole or not at all. Returns its size.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn write(&self, path: &Path) -> Result<u64> {
        self.write_with(path, |_| {})
    }

    /// As [`write`](Self::write), with more metadata.
    ///
    /// # Errors
    /// `write-failed`.
    pub(crate) fn write_with(&self, path: &Path, more: impl FnOnce(&mut Writer)) -> Result<u64> {
        let mut writer = Writer::empty();
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        writer.set("general.type", "imatrix");
        writer.set(DATASETS, self.datasets.clone());
        writer.set(CHUNK_COUNT, count(self.chunks)).set(CHUNK_SIZE, count(self.chunk_size));
        if let Some(identity) = &self.calibration {
            writer.set(NAME, identity.name.as_str()).set(SHA256, identity.sha256.as_str());
            writer.set(TOKENS, identity.tokens);
        }
        for (layer, hits) in &self.expert_use {
            writer.set(&format!("{EXPERT_USE}{layer}"), hits.iter().map(|n| count(*n)).collect::<Vec<u32>>());
        }
        more(&mut writer);
        // In the order of their names, as upstream's.
        let mut data: Vec<Vec<f32>> = Vec::new();
        for (name, entry) in &self.entries {
            let Some(columns) = entry.columns() else { continue };
            let matrices = entry.counts.len() as u64;
            writer.tensor(&format!("{name}{SUMS}"), TensorType::F32, &trimmed([columns as u64, matrices]));
            writer.tensor(&format!("{name}{COUNTS}"), TensorType::F32, &trimmed([1, matrices]));
            data.push(entry.sums.clone());
            data.push(entry.counts.iter().map(|n| *n as f32).collect());
        }
        output::whole(path, |out| {
            let mut data = data.iter();
            let written = writer.write(out, |_, out| {
                data.next().into_iter().flatten().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            });
            written.map_err(|e| error::unwritable(path, &e))
        })
    }
}

/// Dimensions without ones at the end, as ggml writes them.
fn trimmed(dimensions: [u64; 2]) -> Vec<u64> {
    let [inner, outer] = dimensions;
    if outer > 1 { vec![inner, outer] } else { vec![inner] }
}

fn identity(header: &Header) -> Option<Identity> {
    let text = |key: &str| header.value(key).and_then(Value::as_text).map(str::to_owned);
    let tokens = header.value(TOKENS).and_then(Value::as_u64)?;
    Some(Identity { name: text(NAME)?, sha256: text(SHA256)?, tokens })
}

fn expert_use(header: &Header) -> BTreeMap<u32, Vec<u64>> {
    let layers = header.metadata.iter().filter_map(|(key, value)| {
        let layer = key.strip_prefix(EXPERT_USE)?.parse().ok()?;
        let Value::Array(list) = value else { return None };
        let known = list.len == list.items.len() as u64 && list.len <= MOST_EXPERTS;
        known.then(|| (layer, list.items.iter().filter_map(Value::as_u64).collect()))
    });
    layers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let entry = |sums: &[f32], counts: &[u64]| Entry { sums: sums.to_vec(), counts: counts.to_vec() };
        let matrix = Matrix {
            entries: [
                ("blk.0.attn_q.weight".to_owned(), entry(&[1.5, 2.0, 0.0], &[512])),
                ("blk.0.ffn_up_exps.weight".to_owned(), entry(&[1.0, 2.0, 0.0, 0.0], &[500, 0])),
            ]
            .into(),
            datasets: vec!["general".into(), "rag".into()],
            chunks: 3,
            chunk_size: 512,
            calibration: Some(Identity { name: "general".into(), sha256: "ab".into(), tokens: 1536 }),
            expert_use: [(0, vec![500, 0])].into(),
        };
        let bytes = matrix.write(&path).unwrap();
        assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
        assert_eq!(Matrix::read(&path).unwrap(), matrix);
    }

    #[test]
    fn damaged_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let refused = |tensors: &[(&str, &[f32])]| {
            let mut writer = Writer::empty();
            writer.set("general.type", "imatrix");
            tensors.iter().for_each(|(name, data)| {
                writer.tensor(name, TensorType::F32, &[data.len() as u64]);
            });
            let mut data = tensors.iter();
            let file = File::create(&path).unwrap();
            let write = |_: &TensorInfo, out: &mut dyn std::io::Write| {
                data.next().unwrap().1.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
            };
            writer.write(file, write).unwrap();
            Matrix::read(&path).unwrap_err()
        };
        assert_eq!(
            refused(&[("t.in_sum2", &[1.0, f32::NAN]), ("t.counts", &[1.0])]).code,
            "importance-invalid"
        );
        let error = refused(&[("t.in_sum2", &[1.0, 2.0])]);
        assert!(error.message.contains("`t.counts` is missing"), "{error}");
        let error = refused(&[("t.in_sum2", &[1.0, 2.0, 3.0]), ("t.counts", &[1.0, 1.0])]);
        assert!(error.message.contains("do not belong together"), "{error}");
        assert!(refused(&[("other", &[1.0])]).message.contains("no tensor"));
    }
}
