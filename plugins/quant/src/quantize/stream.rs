//! A tensor's rows through several threads, and out again in their order.

use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::quantize;
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

use super::CHUNK;
use super::original::{Original, Tensor};
use crate::error::codes as own;
use crate::scan;

/// Chunks that a thread may be ahead of what is written.
pub(super) const AHEAD: usize = 4;

/// A tensor to be made of another.
pub(super) struct Job<'a> {
    pub original: &'a dyn Original,
    /// Its number among the original's tensors.
    pub index: usize,
    pub to: TensorType,
    /// One number for each column, matrix after matrix.
    pub importance: Option<&'a [f32]>,
    pub allow_non_finite: bool,
}

impl Job<'_> {
    /// Makes the tensor, and gives its bytes to `out` in their order.
    ///
    /// # Errors
    /// `weight-not-finite`, `quantize-failed`, `cancelled`; those of `out`.
    pub fn run(
        &self,
        threads: usize,
        cancel: &Cancel,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let chunks = self.chunks();
        let threads = threads.clamp(1, chunks.len().max(1));
        let make = |at: usize, floats: &mut Vec<f32>| {
            cancel.check()?;
            self.chunk(chunks[at].clone(), floats)
        };
        if threads == 1 {
            let mut floats = Vec::new();
            return (0..chunks.len()).try_for_each(|at| out(&make(at, &mut floats)?));
        }
        let (make, count) = (&make, chunks.len());
        thread::scope(|scope| {
            // Each thread takes every n-th chunk, so that what comes out is in order without being sorted, and nobody
            // runs further ahead than memory was counted for.
            let lanes: Vec<_> = (0..threads)
                .map(|lane| {
                    let (sender, receiver) = sync_channel(AHEAD);
                    scope.spawn(move || {
                        let mut floats = Vec::new();
                        for at in (lane..count).step_by(threads) {
                            let made = make(at, &mut floats);
                            let failed = made.is_err();
                            // Nobody listens once something failed elsewhere.
                            if sender.send(made).is_err() || failed {
                                return;
                            }
                        }
                    });
                    receiver
                })
                .collect();
            for at in 0..count {
                let made = lanes[at % threads].recv();
                out(&made
                    .map_err(|_| PluginError::new(codes::INTERNAL, "a thread that quantized is gone"))??)?;
            }
            Ok(())
        })
    }

    /// Rows that are made at a time: about so many elements, and all of one matrix.
    fn chunks(&self) -> Vec<Range<u64>> {
        let tensor = self.tensor();
        let step = (CHUNK as u64 / tensor.columns().max(1)).max(1);
        let of_matrix = tensor.rows_of_matrix().max(1);
        let mut chunks = Vec::new();
        for matrix in 0..tensor.rows() / of_matrix {
            let (mut row, end) = (matrix * of_matrix, (matrix + 1) * of_matrix);
            while row < end {
                let next = (row + step).min(end);
                chunks.push(row..next);
                row = next;
            }
        }
        chunks
    }

    fn chunk(&self, rows: Range<u64>, floats: &mut Vec<f32>) -> Result<Vec<u8>> {
        let tensor = self.tensor();
        let columns = tensor.columns() as usize;
        floats.clear();
        self.original.floats(self.index, rows.clone(), floats)?;
        let bad = |floats: &[f32]| {
            let at = scan::not_finite(floats).filter(|_| !self.allow_non_finite)?;
            Some(not_finite(&tensor.name, rows.start * columns as u64 + at as u64))
        };
        // What blocks are made of is looked through on the way.
        if !self.to.is_quantized()
            && let Some(error) = bad(floats)
        {
            return Err(error);
        }
        let matrix = (rows.start / tensor.rows_of_matrix().max(1)) as usize;
        let importance = self.importance.and_then(|i| i.get(matrix * columns..(matrix + 1) * columns));
        let mut blocks = Vec::new();
        quantize::quantize_rows(self.to, floats, columns, importance, &mut blocks).map_err(|e| {
            if let Some(error) = bad(floats) {
                return error;
            }
            let what = format!("tensor `{}`, rows {} to {}: {e}", tensor.name, rows.start, rows.end);
            PluginError::new(own::QUANTIZE_FAILED, what)
                .help("choose another type for it with `overrides`, such as f16")
        })?;
        Ok(blocks)
    }

    fn tensor(&self) -> &Tensor {
        &self.original.tensors()[self.index]
    }
}

fn not_finite(name: &str, at: u64) -> PluginError {
    let what =
        format!("element {at} of tensor `{name}` is not a finite number: such a model computes nothing");
    PluginError::new(own::WEIGHT_NOT_FINITE, what)
        .help("take another copy of the model, or set `allow_nan` with a precision of plain numbers")
}
