//! What a matrix says of a model: the columns of `llama-imatrix --show-statistics` (`compute_statistics`,
//! `compute_cossim`, `show_statistics`), computed in 32-bit floats as there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Entry, Matrix, layer_of};

/// Mean squares below which a column counts as asleep.
const ASLEEP: f32 = 1e-5;

/// What is said of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorStatistics {
    /// Its layer; none for tensors outside of them.
    pub layer: Option<u32>,
    /// Its name inside of the layer.
    pub tensor: String,
    /// Σ(Act²): the sum of the mean squares of all columns.
    pub sum: f32,
    /// The smallest of them.
    pub min: f32,
    /// The largest.
    pub max: f32,
    /// μ: their mean.
    pub mean: f32,
    /// σ: their standard deviation.
    pub deviation: f32,
    /// The share of columns that are awake, in hundredths.
    pub active_percent: f32,
    /// N: how many columns there are, those of experts that were reached.
    pub columns: usize,
    /// How evenly the squares are spread, in bits.
    pub entropy: f32,
    /// The same, in hundredths of the most that so many columns can have.
    pub entropy_percent: f32,
    /// ZD: the share of columns more than one deviation above the mean, in hundredths.
    pub z_percent: f32,
    /// The cosine between the sums of this tensor and those of the same tensor one layer before; 0 without one.
    pub cosine: f32,
}

/// Means over a layer's tensors, each weighted with its columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerStatistics {
    /// The layer.
    pub layer: u32,
    /// μΣ(Act²).
    pub sum: f32,
    /// μZD, in hundredths.
    pub z_percent: f32,
    /// μCosSim.
    pub cosine: f32,
}

/// What is said of a matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// By name, the largest sum first.
    pub tensors: Vec<TensorStatistics>,
    /// In order.
    pub layers: Vec<LayerStatistics>,
}

impl Statistics {
    /// Of a matrix.
    pub fn of(matrix: &Matrix) -> Self {
        let mut tensors: Vec<TensorStatistics> =
            matrix.entries.iter().filter_map(|(name, entry)| of_tensor(matrix, name, entry)).collect();
        tensors.sort_by(|a, b| a.tensor.cmp(&b.tensor).then(b.sum.total_cmp(&a.sum)));
        let layers = of_layers(&tensors);
        Self { tensors, layers }
    }
}

fn of_tensor(matrix: &Matrix, name: &str, entry: &Entry) -> Option<TensorStatistics> {
    let columns = entry.columns()?;
    let reached = entry.sums.chunks(columns).zip(&entry.counts).filter(|(_, count)| **count > 0);
    let means: Vec<f32> =
        reached.flat_map(|(sums, count)| sums.iter().map(move |sum| sum / *count as f32)).collect();
    if means.is_empty() {
        return None;
    }
    let count = means.len() as f32;
    let sum = added(means.iter().copied());
    let mean = sum / count;
    let variance = added(means.iter().map(|m| m * m)) / count - mean * mean;
    let deviation = variance.max(0.0).sqrt();
    let asleep = means.iter().filter(|m| m.abs() <= ASLEEP).count() as f32;
    let shares = means.iter().map(|m| m / sum).filter(|p| *p > 0.0);
    let entropy = if sum > 0.0 { added(shares.map(|p| -p * p.log2())) } else { 0.0 };
    let above = means.iter().filter(|m| deviation > 0.0 && (**m - mean) / deviation > 1.0).count() as f32;
    let layer = layer_of(name);
    Some(TensorStatistics {
        layer,
        tensor: name_inside(name).to_owned(),
        sum,
        min: means.iter().copied().fold(f32::INFINITY, f32::min),
        max: means.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        mean,
        deviation,
        active_percent: 100.0 * (1.0 - asleep / count),
        columns: means.len(),
        entropy,
        // A single column has nothing to be spread over.
        entropy_percent: if means.len() > 1 { 100.0 * entropy / count.log2() } else { 0.0 },
        z_percent: 100.0 * above / count,
        cosine: layer.and_then(|layer| cosine(matrix, name, layer, entry)).unwrap_or(0.0),
    })
}

/// With the same tensor one layer before.
fn cosine(matrix: &Matrix, name: &str, layer: u32, entry: &Entry) -> Option<f32> {
    let before = name.replacen(&format!("blk.{layer}."), &format!("blk.{}.", layer.checked_sub(1)?), 1);
    let before = matrix.entries.get(&before).filter(|before| before.sums.len() == entry.sums.len())?;
    let product = |a: &Entry, b: &Entry| added(a.sums.iter().zip(&b.sums).map(|(a, b)| a * b));
    let lengths = product(entry, entry).sqrt() * product(before, before).sqrt();
    (lengths > 0.0).then(|| product(entry, before) / lengths)
}

fn of_layers(tensors: &[TensorStatistics]) -> Vec<LayerStatistics> {
    let mut layers: BTreeMap<u32, (LayerStatistics, f32)> = BTreeMap::new();
    for tensor in tensors {
        let Some(layer) = tensor.layer else { continue };
        let empty = LayerStatistics { layer, sum: 0.0, z_percent: 0.0, cosine: 0.0 };
        let (of_layer, all) = layers.entry(layer).or_insert((empty, 0.0));
        let columns = tensor.columns as f32;
        of_layer.sum += columns * tensor.sum;
        of_layer.z_percent += columns * tensor.z_percent;
        of_layer.cosine += columns * tensor.cosine;
        *all += columns;
    }
    let mean = |(sums, all): (LayerStatistics, f32)| LayerStatistics {
        layer: sums.layer,
        sum: sums.sum / all,
        z_percent: sums.z_percent / all,
        cosine: sums.cosine / all,
    };
    layers.into_values().map(mean).collect()
}

/// Added one after the other, as upstream does.
fn added(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |sum, value| sum + value)
}

/// `attn_k` of `blk.0.attn_k.weight` (`process_tensor_name`).
fn name_inside(name: &str) -> &str {
    let parts: Vec<&str> = name.split('.').collect();
    let at = parts.iter().position(|part| *part == "weight").filter(|at| *at > 0);
    at.map_or(name, |at| parts[at - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_compared_with_the_one_before() {
        let entry = |sums: &[f32], counts: &[u64]| Entry { sums: sums.to_vec(), counts: counts.to_vec() };
        let matrix = Matrix {
            entries: [
                ("blk.0.attn_k.weight".to_owned(), entry(&[2.0, 0.0, 2.0, 4.0], &[2])),
                ("blk.1.attn_k.weight".to_owned(), entry(&[2.0, 0.0, 2.0, 4.0], &[1])),
                ("blk.1.ffn_up_exps.weight".to_owned(), entry(&[1.0, 3.0, 9.0, 9.0], &[1, 0])),
            ]
            .into(),
            ..Matrix::default()
        };
        let statistics = Statistics::of(&matrix);
        let [one, zero, experts] = &statistics.tensors[..] else { panic!("{statistics:?}") };
        assert_eq!((one.layer, one.tensor.as_str(), one.sum), (Some(1), "attn_k", 8.0));
        assert!((one.cosine - 1.0).abs() < 1e-6);
        assert_eq!((zero.sum, zero.min, zero.max, zero.mean), (4.0, 0.0, 2.0, 1.0));
        assert_eq!((zero.active_percent, zero.entropy, zero.entropy_percent), (75.0, 1.5, 75.0));
        assert_eq!((zero.z_percent, zero.cosine), (25.0, 0.0));
        assert_eq!((experts.columns, experts.sum), (2, 4.0));
        assert_eq!(statistics.layers.len(), 2);
        assert!((statistics.layers[1].sum - (4.0 * 8.0 + 2.0 * 4.0) / 6.0).abs() < 1e-6);
    }
}
