//! What came out of the last batch.

use super::Context;
use crate::{Sequence, sys};

impl Context {
    /// Logits of the token at `index` of the last batch, one per token of the vocabulary; `None` unless it was an
    /// output.
    pub fn logits(&mut self, index: usize) -> Option<&[f32]> {
        if !self.outputs.get(index).copied().unwrap_or(false) {
            return None;
        }
        // SAFETY: valid handle, an index with an output; the row is as long as the vocabulary and lives until the
        // next batch, for which `&mut self` is needed.
        unsafe {
            let row = sys::llama_get_logits_ith(self.handle, index as i32);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.model.vocab_size() as usize))
        }
    }

    /// Logits of all outputs of the last batch, row after row in the order of its tokens; `None` when it had none.
    pub fn all_logits(&mut self) -> Option<&[f32]> {
        let rows = self.outputs.iter().filter(|output| **output).count();
        let row = self.model.vocab_size() as usize;
        // SAFETY: valid handle; llama.cpp holds one row as long as the vocabulary for each output of the last batch, puts
        // them into the order of its tokens before it hands them out, and keeps them until the next batch, for which
        // `&mut self` is needed.
        unsafe {
            let logits = sys::llama_get_logits(self.handle);
            (!logits.is_null() && rows > 0).then(|| std::slice::from_raw_parts(logits, rows * row))
        }
    }

    /// Those of one token to write to: what a sampler then sees. `None` as for [`logits`](Self::logits).
    pub fn logits_mut(&mut self, index: usize) -> Option<&mut [f32]> {
        let len = self.logits(index)?.len();
        // SAFETY: as for logits, whose row is the context's own memory; `&mut self` makes this the only view of it.
        unsafe {
            let row = sys::llama_get_logits_ith(self.handle, index as i32);
            (!row.is_null()).then(|| std::slice::from_raw_parts_mut(row, len))
        }
    }

    /// The score that the classification head gave a sequence in the last batch; `None` unless the context ranks and
    /// embeddings are on.
    pub fn score(&mut self, sequence: Sequence) -> Option<f32> {
        if !self.rank || !self.embeddings || self.outputs.is_empty() {
            return None;
        }
        // SAFETY: valid handle; an unknown sequence gives null, a known one at least one number.
        unsafe {
            let row = sys::llama_get_embeddings_seq(self.handle, sequence);
            (!row.is_null()).then(|| *row)
        }
    }

    /// Embedding of the token at `index` of the last batch; `None` unless it was an output and embeddings are on.
    pub fn embedding(&mut self, index: usize) -> Option<&[f32]> {
        if !self.embeddings || !self.outputs.get(index).copied().unwrap_or(false) {
            return None;
        }
        // SAFETY: as for logits; the row has the model's embedding size.
        unsafe {
            let row = sys::llama_get_embeddings_ith(self.handle, index as i32);
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, self.model.embedding_size() as usize))
        }
    }
}
