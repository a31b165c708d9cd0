//! Collecting while a model computes (`IMatrixCollector::collect_imatrix`).

use std::collections::BTreeSet;

use pajamas_llama_cpp::{Operand, Operation, OperationKind, Watch};
use pajamas_plugin_api::{PluginError, Result};

use super::{Entry, Expert, Matrix, layer_of};
use crate::error::codes as own;

/// Rows below which a product is left out, as upstream does: those of single tokens say little.
const FEWEST_ROWS: usize = 16;

/// The experts that more is to be learnt of, and nothing of anything else.
pub type Shortage = BTreeSet<Expert>;

/// Collects importance while batches are computed.
#[derive(Default)]
pub struct Collector {
    /// What was collected so far.
    pub matrix: Matrix,
    /// When set, only these experts are collected.
    pub only: Option<Shortage>,
    failure: Option<PluginError>,
    floats: Vec<f32>,
    integers: Vec<i32>,
}

impl Collector {
    /// Goes on from a matrix.
    pub fn new(matrix: Matrix) -> Self {
        Self { matrix, ..Self::default() }
    }

    /// What went wrong during the last batch, which then counts for nothing.
    ///
    /// # Errors
    /// `importance-not-finite`, `importance-mismatch`.
    pub fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn product(&mut self, name: &str, weights: &Operand<'_>, inputs: &Operand<'_>) -> Result<()> {
        if self.only.is_some() {
            return Ok(());
        }
        let ([_, _, w2, w3], [columns, rows, i2, i3]) = (weights.sizes(), inputs.sizes());
        let matrices = w2 * w3;
        let entry = self.matrix.entries.entry(name.to_owned()).or_default();
        // A single count for a tensor of a single use: files of old versions have one for each matrix.
        if entry.counts.len() > 1 && entry.counts.iter().all(|count| *count == entry.counts[0]) {
            entry.counts.truncate(1);
        }
        fit(entry, name, columns * matrices, 1)?;
        let Some(floats) = inputs.floats(&mut self.floats) else { return Err(unreadable(name)) };
        for outer in 0..i3 {
            for middle in 0..i2 {
                // Tensors may have three dimensions and more; inputs with more than the weights are one long list.
                let matrix = (outer % w3) * w2 + middle % w2;
                let sums = &mut entry.sums[matrix * columns..(matrix + 1) * columns];
                (0..rows).for_each(|row| add_squares(sums, floats.row([row, middle, outer])));
            }
        }
        entry.counts.iter_mut().for_each(|count| *count += (rows * i2 * i3 / matrices.max(1)) as u64);
        finite(name, &entry.sums)
    }

    fn experts(
        &mut self,
        name: &str,
        weights: &Operand<'_>,
        inputs: &Operand<'_>,
        chosen: &Operand<'_>,
    ) -> Result<()> {
        let (experts, [columns, slots, tokens, _]) = (weights.sizes()[2], inputs.sizes());
        let [used, chosen_for, ..] = chosen.sizes();
        let layer = layer_of(name).unwrap_or(u32::MAX);
        let wanted = |expert: usize| {
            self.only
                .as_ref()
                .is_none_or(|only| only.contains(&(layer, u32::try_from(expert).unwrap_or(u32::MAX))))
        };
        if chosen_for != tokens || slots == 0 {
            return Err(unreadable(name));
        }
        let entry = self.matrix.entries.entry(name.to_owned()).or_default();
        if entry.counts.len() == 1 && experts > 1 {
            entry.counts = vec![entry.counts[0]; experts];
        }
        fit(entry, name, columns * experts, experts)?;
        let (Some(floats), Some(chosen)) =
            (inputs.floats(&mut self.floats), chosen.integers(&mut self.integers))
        else {
            return Err(unreadable(name));
        };
        let mut touched = BTreeSet::new();
        for slot in 0..used {
            for token in 0..tokens {
                let expert = chosen.row([token, 0, 0]).get(slot).and_then(|e| usize::try_from(*e).ok());
                let Some(expert) = expert.filter(|e| *e < experts) else { return Err(unreadable(name)) };
                if !wanted(expert) {
                    continue;
                }
                entry.counts[expert] += 1;
                touched.insert(expert);
                let sums = &mut entry.sums[expert * columns..(expert + 1) * columns];
                add_squares(sums, floats.row([slot % slots, token, 0]));
            }
        }
        touched.iter().try_for_each(|e| finite(name, &entry.sums[e * columns..(e + 1) * columns]))
    }
}

impl Watch for Collector {
    fn wants(&mut self, operation: &Operation<'_>) -> bool {
        let (Some(weights), Some(inputs)) = (operation.operand(0), operation.operand(1)) else {
            return false;
        };
        match operation.kind() {
            OperationKind::ExpertProduct => true,
            OperationKind::Product => {
                inputs.is_f32() && inputs.sizes()[1] >= FEWEST_ROWS && weights.name().starts_with("blk.")
            }
            OperationKind::Other => false,
        }
    }

    fn see(&mut self, operation: &Operation<'_>) {
        let (Some(weights), Some(inputs)) = (operation.operand(0), operation.operand(1)) else { return };
        if self.failure.is_some() {
            return;
        }
        let name = weights.name();
        let seen = match (operation.kind(), operation.operand(2)) {
            (OperationKind::Product, _) => self.product(&name, &weights, &inputs),
            (OperationKind::ExpertProduct, Some(chosen)) => self.experts(&name, &weights, &inputs, &chosen),
            _ => Ok(()),
        };
        self.failure = seen.err();
    }
}

fn add_squares(sums: &mut [f32], row: &[f32]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
}

/// Makes room in an entry that is new; one that is not must be of the same model.
fn fit(entry: &mut Entry, name: &str, sums: usize, counts: usize) -> Result<()> {
    if entry.sums.is_empty() {
        *entry = Entry { sums: vec![0.0; sums], counts: vec![0; counts] };
    }
    // A tensor that is used both as one matrix and expert by expert has counts for each.
    if entry.sums.len() == sums && (entry.counts.len() == counts || counts == 1) {
        return Ok(());
    }
    let what =
        format!("the importance of `{name}` has {} columns, the model's tensor {sums}", entry.sums.len());
    Err(PluginError::new(own::IMPORTANCE_MISMATCH, what)
        .help("begin anew, without the matrix of another model"))
}

fn finite(name: &str, sums: &[f32]) -> Result<()> {
    match sums.iter().all(|sum| sum.is_finite()) {
        true => Ok(()),
        false => {
            let what = format!("what `{name}` is multiplied by is not finite: the model computes nothing");
            Err(PluginError::new(own::IMPORTANCE_NOT_FINITE, what)
                .help("take another copy of the model, or one in BF16 or F32"))
        }
    }
}

fn unreadable(name: &str) -> PluginError {
    let what = format!("what `{name}` is multiplied by has a shape that is not known");
    PluginError::new(pajamas_plugin_api::codes::INTERNAL, what)
}
