//! How a tensor of the file is made of tensors of the source: a plan first, the bytes when their turn comes.

use std::ops::Range;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::quantize;
use pajamas_plugin_api::{PluginError, Result, codes as shared};

use super::encode;
use crate::error::codes;
use crate::source::{Dtype, Source, View};

/// Elements that are in memory at a time.
pub(super) const CHUNK: usize = 1 << 16;

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Recipe {
    /// Its name in the file.
    pub name: String,
    /// Its type in the file.
    pub to: TensorType,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// What it is made of.
    pub from: From,
}

#[derive(Debug)]
pub(super) enum From {
    /// Rows of tensors, one tensor after the other.
    Rows { names: Vec<String>, order: Order, plus_one: bool },
    /// Four-bit blocks and their scales.
    Mxfp4 { blocks: String, scales: String, order: Order },
    /// Numbers computed from the configuration.
    Values(Vec<f32>),
}

/// Which row of a source becomes which row of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each its own.
    Straight,
    /// Halves of each head interleaved: Hugging Face rotates element i with i + d/2, llama.cpp neighbours.
    Heads(u32),
    /// Every second one, from this one on: gate and up projections that the source interleaves.
    Every2nd(u64),
}

impl Order {
    /// The source's row for a row of the file.
    fn source(self, row: u64, rows: u64) -> u64 {
        match self {
            Self::Straight => row,
            Self::Every2nd(first) => row * 2 + first,
            Self::Heads(heads) => {
                let of_head = rows / u64::from(heads);
                let (head, inside) = (row / of_head, row % of_head);
                head * of_head + (inside % 2) * (of_head / 2) + inside / 2
            }
        }
    }
}

impl Recipe {
    /// Elements of the tensor.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Gives the tensor's bytes to `out`, some at a time.
    ///
    /// # Errors
    /// Those of `out`; `weight-not-finite` unless allowed.
    pub fn write(
        &self,
        source: &Source,
        allow_non_finite: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match &self.from {
            From::Values(values) => {
                let mut bytes = Vec::new();
                encode::encode(values, self.to, &mut bytes);
                out(&bytes)
            }
            From::Rows { names, order, plus_one } => {
                for name in names {
                    let view = find(source, name)?;
                    if !allow_non_finite && let Some(at) = encode::not_finite(view.info.dtype, view.bytes) {
                        return Err(not_finite(view, at));
                    }
                    self.rows(view, names.len() as u64, *order, *plus_one, out)?;
                }
                Ok(())
            }
            From::Mxfp4 { blocks, scales, order } => {
                super::mxfp4::write(find(source, blocks)?, find(source, scales)?, *order, out)
            }
        }
    }

    /// Appends rows of a matrix, or of several one after the other, as floats.
    ///
    /// # Errors
    /// `tensor-missing`; `model-invalid` for blocks that are not read back.
    pub fn floats(&self, source: &Source, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let width = self.shape.last().copied().unwrap_or(1).max(1);
        match &self.from {
            From::Values(values) => {
                let range = (rows.start * width) as usize..(rows.end * width) as usize;
                out.extend(values.get(range).unwrap_or(&[]));
                Ok(())
            }
            From::Mxfp4 { blocks, scales, order } => {
                let mut bytes = Vec::new();
                let rows = rows.start as usize..rows.end as usize;
                super::mxfp4::rows(find(source, blocks)?, find(source, scales)?, *order, rows, &mut bytes);
                quantize::dequantize(self.to, &bytes, out).map_err(|e| {
                    PluginError::new(shared::MODEL_INVALID, format!("tensor `{}`: {e}", self.name))
                })
            }
            From::Rows { names, order, plus_one } => {
                let of_part = (self.elements() / width / names.len() as u64).max(1);
                let mut row = rows.start;
                while row < rows.end {
                    let part = row / of_part;
                    let end = rows.end.min((part + 1) * of_part);
                    let Some(name) = names.get(part as usize) else { break };
                    let view = find(source, name)?;
                    let bytes = |first: u64, count: u64| {
                        let at = |row: u64| (row * width * view.info.dtype.bytes()) as usize;
                        view.bytes.get(at(first)..at(first + count)).unwrap_or(&[])
                    };
                    let within = row - part * of_part;
                    match order {
                        Order::Straight => decode(view.info.dtype, bytes(within, end - row), *plus_one, out),
                        _ => (0..end - row).for_each(|i| {
                            let from = bytes(order.source(within + i, of_part), 1);
                            decode(view.info.dtype, from, *plus_one, out);
                        }),
                    }
                    row = end;
                }
                Ok(())
            }
        }
    }

    fn rows(
        &self,
        view: View<'_>,
        parts: u64,
        order: Order,
        plus_one: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let dtype = view.info.dtype;
        // A vector is a column: its elements are what is put in order.
        let width = match self.shape.len() {
            0 | 1 if order != Order::Straight => 1,
            _ if matches!(order, Order::Every2nd(_)) && view.info.shape.len() == 2 => 1,
            _ => self.shape.last().copied().unwrap_or(1),
        };
        let rows = self.elements() / parts / width.max(1);
        let row_bytes = (width * dtype.bytes()) as usize;
        let same = !plus_one && same_bytes(dtype, self.to);
        let (mut values, mut bytes) = (Vec::with_capacity(CHUNK), Vec::new());
        if order == Order::Straight && same {
            return out(view.bytes.get(..rows as usize * row_bytes).unwrap_or(view.bytes));
        }
        // Rows are joined up to a chunk; longer rows are cut, where blocks end.
        let step = (CHUNK as u64 / width.max(1)).max(1);
        let mut row = 0;
        while row < rows {
            let end = (row + step).min(rows);
            for r in row..end {
                let at = order.source(r, rows) as usize * row_bytes;
                let from = view.bytes.get(at..at + row_bytes).unwrap_or(&[]);
                match same {
                    true => bytes.extend_from_slice(from),
                    false => decode(dtype, from, plus_one, &mut values),
                }
            }
            encode::encode(&values, self.to, &mut bytes);
            out(&bytes)?;
            values.clear();
            bytes.clear();
            row = end;
        }
        Ok(())
    }
}

/// Appends elements as floats, each one more where that is asked for.
fn decode(dtype: Dtype, bytes: &[u8], plus_one: bool, out: &mut Vec<f32>) {
    if plus_one && dtype == Dtype::F16 {
        return encode::add_one_f16(bytes, out);
    }
    let start = out.len();
    encode::decode(dtype, bytes, out);
    if plus_one {
        out[start..].iter_mut().for_each(|v| *v += 1.0);
    }
}

/// Whether elements are stored alike in both.
fn same_bytes(dtype: Dtype, to: TensorType) -> bool {
    matches!(
        (dtype, to),
        (Dtype::F32, TensorType::F32) | (Dtype::F16, TensorType::F16) | (Dtype::BF16, TensorType::BF16)
    )
}

/// The tensor of this name.
pub(super) fn find<'a>(source: &'a Source, name: &str) -> Result<View<'a>> {
    source.weights.get(name).ok_or_else(|| {
        PluginError::new(codes::TENSOR_MISSING, format!("the model has no tensor `{name}`"))
            .help("a file of the model is missing, or config.json belongs to another model")
    })
}

fn not_finite(view: View<'_>, at: usize) -> PluginError {
    let what = format!(
        "element {at} of tensor `{}` is not a finite number: such a model computes nothing",
        view.info.name
    );
    PluginError::new(codes::WEIGHT_NOT_FINITE, what)
        .help("take another copy of the model, or set `allow_nan`")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_of_a_head_are_interleaved() {
        let rows: Vec<u64> = (0..8).map(|r| Order::Heads(2).source(r, 8)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
        let up: Vec<u64> = (0..3).map(|r| Order::Every2nd(1).source(r, 3)).collect();
        assert_eq!(up, [1, 3, 5]);
    }

    proptest! {
        #[test]
        fn heads_are_put_in_an_order_that_loses_no_row(heads in 1u32..9, pairs in 1u64..40) {
            let rows = u64::from(heads) * pairs * 2;
            let mut seen: Vec<u64> = (0..rows).map(|r| Order::Heads(heads).source(r, rows)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
        }
    }
}
