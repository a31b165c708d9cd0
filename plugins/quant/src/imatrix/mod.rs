//! Importance matrices: for each column of each matrix, the sum of squares of what it was multiplied by, and how often.
//!
//! Collected, written, read and merged as llama.cpp's `llama-imatrix` does (tools/imatrix/imatrix.cpp, MIT licence),
//! function by function, so that its files are ours and ours are its.

mod collect;
mod file;
mod statistics;

use std::collections::BTreeMap;

use pajamas_plugin_api::{PluginError, Result};
use serde::{Deserialize, Serialize};

use crate::error::codes as own;

pub use collect::{Collector, Shortage};
pub use statistics::{LayerStatistics, Statistics, TensorStatistics};

/// Tokens below which the importance of an expert's columns is not known well enough to build on.
pub const FEW_HITS: u64 = 64;

/// What was collected of one tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// Sums of squares, column by column, expert after expert.
    pub sums: Vec<f32>,
    /// How many rows went into them: one number, or one for each expert.
    pub counts: Vec<u64>,
}

/// The text that a matrix was collected on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the text, in lower-case hexadecimal; empty where it is not known.
    pub sha256: String,
    /// How many tokens of it were computed.
    pub tokens: u64,
}

/// An importance matrix, as sums and counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// By the tensor's name.
    pub entries: BTreeMap<String, Entry>,
    /// The texts it was collected on, by name.
    pub datasets: Vec<String>,
    /// Pieces of text.
    pub chunks: u64,
    /// Tokens of a piece.
    pub chunk_size: u64,
    /// Which text it was, when that was written down.
    pub calibration: Option<Identity>,
    /// How often each expert was chosen, layer by layer, before some were given more text.
    pub expert_use: BTreeMap<u32, Vec<u64>>,
}

/// An expert by its layer and its number.
pub type Expert = (u32, u32);

impl Entry {
    /// Columns of one matrix; `None` when sums and counts do not belong together.
    pub fn columns(&self) -> Option<usize> {
        let columns = self.sums.len().checked_div(self.counts.len())?;
        (columns > 0 && columns * self.counts.len() == self.sums.len()).then_some(columns)
    }

    /// Mean squares, column by column. What was never reached says nothing: every column is as good as the others.
    pub fn means(&self) -> Vec<f32> {
        let Some(columns) = self.columns() else { return Vec::new() };
        let of_one = self.sums.chunks(columns).zip(&self.counts);
        of_one
            .flat_map(|(sums, count)| {
                sums.iter().map(move |sum| if *count > 0 { sum / *count as f32 } else { 1.0 })
            })
            .collect()
    }
}

impl Matrix {
    /// Adds another matrix of the same model (`load_imatrix`).
    ///
    /// # Errors
    /// `importance-mismatch` when it is of another model.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        for (name, more) in other.entries {
            let entry = self.entries.entry(name.clone()).or_default();
            if entry.sums.is_empty() {
                *entry = more;
                continue;
            }
            // One count stands for all experts, in files of old versions.
            if entry.counts.len() == 1 && more.counts.len() > 1 {
                entry.counts = vec![entry.counts[0]; more.counts.len()];
            }
            if entry.sums.len() != more.sums.len() || entry.counts.len() != more.counts.len() {
                let what = format!(
                    "the importance of `{name}` has {} columns in one matrix and {} in another",
                    entry.sums.len(),
                    more.sums.len()
                );
                return Err(PluginError::new(own::IMPORTANCE_MISMATCH, what)
                    .help("merge matrices that were collected on the same model"));
            }
            entry.sums.iter_mut().zip(&more.sums).for_each(|(sum, more)| *sum += more);
            entry.counts.iter_mut().zip(&more.counts).for_each(|(count, more)| *count += more);
        }
        for (layer, more) in other.expert_use {
            let hits = self.expert_use.entry(layer).or_insert_with(|| vec![0; more.len()]);
            hits.iter_mut().zip(&more).for_each(|(hits, more)| *hits += more);
        }
        self.datasets.extend(other.datasets);
        self.chunks += other.chunks;
        self.chunk_size = self.chunk_size.max(other.chunk_size);
        self.calibration = match (self.calibration.take(), other.calibration) {
            (Some(one), Some(two)) => Some(one.and(&two)),
            (one, two) => one.or(two),
        };
        Ok(())
    }

    /// How often each expert was reached, layer by layer: counted before some were given more text, where that was
    /// written down.
    pub fn expert_hits(&self) -> BTreeMap<u32, Vec<u64>> {
        match self.expert_use.is_empty() {
            true => self.expert_counts(),
            false => self.expert_use.clone(),
        }
    }

    /// How many rows each expert's importance was collected from, layer by layer.
    pub fn expert_counts(&self) -> BTreeMap<u32, Vec<u64>> {
        let mut hits: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        // The tensors of a layer's experts are reached together: the first speaks for the others.
        for (name, entry) in self.entries.iter().filter(|(_, entry)| entry.counts.len() > 1) {
            if let Some(layer) = layer_of(name) {
                hits.entry(layer).or_insert_with(|| entry.counts.clone());
            }
        }
        hits
    }

    /// The experts whose importance was collected from fewer rows than so many.
    pub fn experts_below(&self, hits: u64) -> Vec<Expert> {
        let counts = self.expert_counts();
        let of_layer = counts.iter().flat_map(|(layer, counts)| {
            (0..).zip(counts).filter(move |(_, n)| **n < hits).map(move |(expert, _)| (*layer, expert))
        });
        of_layer.collect()
    }
}

impl Identity {
    /// Both texts as one.
    fn and(self, other: &Self) -> Self {
        if self.sha256 == other.sha256 {
            return Self { tokens: self.tokens + other.tokens, ..self };
        }
        Self {
            name: format!("{}+{}", self.name, other.name),
            sha256: crate::hash::of(&[self.sha256.as_bytes(), other.sha256.as_bytes()]),
            tokens: self.tokens + other.tokens,
        }
    }
}

/// The layer that a tensor's name names.
pub(crate) fn layer_of(name: &str) -> Option<u32> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(name: &str, sums: &[f32], counts: &[u64]) -> Matrix {
        let entry = Entry { sums: sums.to_vec(), counts: counts.to_vec() };
        let identity = Identity { name: name.into(), sha256: name.repeat(3), tokens: 512 };
        Matrix {
            entries: [("blk.3.ffn_up_exps.weight".to_owned(), entry)].into(),
            datasets: vec![name.to_owned()],
            chunks: 1,
            chunk_size: 512,
            calibration: Some(identity),
            expert_use: BTreeMap::new(),
        }
    }

    #[test]
    fn matrices_of_one_model_are_added_and_others_refused() {
        let mut sum = matrix("a", &[1.0, 2.0], &[3, 0]);
        sum.merge(matrix("b", &[10.0, 20.0], &[4, 5])).unwrap();
        let entry = &sum.entries["blk.3.ffn_up_exps.weight"];
        assert_eq!((&entry.sums[..], &entry.counts[..]), (&[11.0, 22.0][..], &[7, 5][..]));
        assert_eq!((sum.chunks, sum.datasets.len()), (2, 2));
        let identity = sum.calibration.clone().unwrap();
        assert_eq!((identity.name.as_str(), identity.tokens), ("a+b", 1024));
        assert_eq!(sum.experts_below(6), [(3, 1)]);
        // A single count stands for every expert.
        let mut old = matrix("a", &[1.0, 2.0], &[3]);
        old.merge(matrix("a", &[1.0, 1.0], &[1, 2])).unwrap();
        assert_eq!(old.entries["blk.3.ffn_up_exps.weight"].counts, [4, 5]);
        assert_eq!(old.calibration.as_ref().unwrap().name, "a");
        let error = old.merge(matrix("c", &[1.0; 4], &[1, 1])).unwrap_err();
        assert_eq!(error.code, "importance-mismatch");
    }

    #[test]
    fn means_of_what_was_never_reached_count_alike() {
        let entry = Entry { sums: vec![2.0, 4.0, 0.0, 0.0], counts: vec![2, 0] };
        assert_eq!(entry.means(), [1.0, 2.0, 1.0, 1.0]);
        assert_eq!(Entry { sums: vec![1.0; 3], counts: vec![1, 1] }.columns(), None);
        assert_eq!(Entry::default().columns(), None);
    }
}
