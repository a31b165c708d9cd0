//! The cache: what of each sequence is in it.

use super::Context;
use crate::{Sequence, sys};

impl Context {
    /// Removes the tokens of a sequence from position `from` on. `false` when the model's memory cannot give up a
    /// part; removing all (`from` 0) never fails.
    pub fn remove(&mut self, sequence: Sequence, from: u32) -> bool {
        let memory = self.memory_handle();
        let from = if from == 0 { -1 } else { i32::try_from(from).unwrap_or(i32::MAX) };
        // SAFETY: valid memory of this context.
        memory.is_null() || unsafe { sys::llama_memory_seq_rm(memory, sequence, from, -1) }
    }

    /// Gives sequence `to` the tokens of sequence `from` before position `end`, in place of its own. In a unified
    /// cache both share them; otherwise they are copied when the next batch is computed. `false` when the model's memory
    /// cannot be cut at `end`: `to` is then empty.
    pub fn copy(&mut self, from: Sequence, to: Sequence, end: u32) -> bool {
        let memory = self.memory_handle();
        let known = |s: Sequence| u32::try_from(s).is_ok_and(|s| s < self.sequences());
        if memory.is_null() || from == to || !known(from) || !known(to) {
            return false;
        }
        self.remove(to, 0);
        let last = if self.unified { i32::try_from(end).unwrap_or(i32::MAX) } else { -1 };
        // SAFETY: valid memory of this context and two of its sequences; parts have caches of their own, between which
        // llama.cpp copies only wholes.
        unsafe { sys::llama_memory_seq_cp(memory, from, to, -1, last) };
        let cut = self.remove(to, end.max(1));
        if !cut {
            self.remove(to, 0);
        }
        cut
    }

    /// Moves the tokens of a sequence from position `from` on by `delta`; `false` when the memory cannot.
    pub fn shift(&mut self, sequence: Sequence, from: u32, delta: i32) -> bool {
        let memory = self.memory_handle();
        // SAFETY: valid memory of this context.
        unsafe {
            if memory.is_null() || !sys::llama_memory_can_shift(memory) {
                return false;
            }
            sys::llama_memory_seq_add(memory, sequence, i32::try_from(from).unwrap_or(i32::MAX), -1, delta);
        }
        true
    }

    /// The first position of a sequence that is still in the cache: above 0 once a sliding window has moved on.
    pub fn first_position(&mut self, sequence: Sequence) -> Option<u32> {
        let memory = self.memory_handle();
        if memory.is_null() {
            return None;
        }
        // SAFETY: valid memory of this context.
        u32::try_from(unsafe { sys::llama_memory_seq_pos_min(memory, sequence) }).ok()
    }

    fn memory_handle(&mut self) -> sys::llama_memory_t {
        // SAFETY: valid handle.
        unsafe { sys::llama_get_memory(self.handle) }
    }
}
