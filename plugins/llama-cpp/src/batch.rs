//! Tokens to compute together.

use crate::{Sequence, Token, sys};

/// Tokens with their positions and sequences, in the order in which they are computed.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    outputs: Vec<i8>,
    // What llama.cpp wants beside: how many sequences each token has (one), and where their numbers are.
    counts: Vec<i32>,
    pointers: Vec<*mut sys::llama_seq_id>,
}

// SAFETY: the pointers are set anew for each use and point into the batch itself.
unsafe impl Send for Batch {}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token of a sequence at a position. `output` asks for its logits or embedding. Returns its index.
    pub fn add(&mut self, token: Token, position: u32, sequence: Sequence, output: bool) -> usize {
        self.tokens.push(token);
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.sequences.push(sequence);
        self.outputs.push(i8::from(output));
        self.tokens.len() - 1
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Removes all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    pub(crate) fn output_count(&self) -> usize {
        self.outputs.iter().filter(|o| **o != 0).count()
    }

    pub(crate) fn is_output(&self, index: usize) -> bool {
        self.outputs.get(index).is_some_and(|o| *o != 0)
    }

    /// The batch as llama.cpp takes it: valid until the batch is changed.
    pub(crate) fn raw(&mut self) -> sys::llama_batch {
        self.counts.resize(self.tokens.len(), 1);
        self.pointers.clear();
        self.pointers.extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
