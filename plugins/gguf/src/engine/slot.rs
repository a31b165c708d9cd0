//! A place for one request in the context: its sequence, and what of it is in the cache.

use pajamas_llama_cpp::{Context, Sequence, Token};

use super::work::Work;
use crate::options::PromptCache;

/// A sequence of the context, with or without a request.
pub(super) struct Slot {
    pub sequence: Sequence,
    pub work: Option<Work>,
    /// When it last had a request, in the worker's rounds.
    pub used: u64,
    /// The tokens in the cache, by position.
    cached: Vec<Token>,
    /// How many of them, from the first on, were computed as whole micro-batches of a prompt.
    exact: usize,
    /// How many of them, from the first on, another slot had first: in a unified cache they take no room.
    shared: usize,
}

impl Slot {
    pub fn new(sequence: Sequence) -> Self {
        Self { sequence, work: None, used: 0, cached: Vec::new(), exact: 0, shared: 0 }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.cached.len()
    }

    /// Tokens in the cache that it has for itself.
    pub fn own(&self) -> usize {
        self.cached.len() - self.shared
    }

    /// The next free position.
    pub fn position(&self) -> u32 {
        u32::try_from(self.cached.len()).unwrap_or(u32::MAX)
    }

    /// How many tokens of the cache a request could build on. One token is always computed, for its logits.
    pub fn reusable(&self, tokens: &[Token], mode: PromptCache, micro_batch: usize) -> usize {
        let common = self.cached.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let common = common.min(tokens.len().saturating_sub(1));
        match mode {
            PromptCache::Off => 0,
            PromptCache::Prefix => common,
            PromptCache::Exact => {
                let common = common.min(self.exact);
                common - common % micro_batch.max(1)
            }
        }
    }

    /// Keeps the first `keep` tokens of the cache, or none if the model cannot forget a part; returns how many.
    pub fn rewind(&mut self, context: &mut Context, keep: usize) -> usize {
        let position = u32::try_from(keep).unwrap_or(u32::MAX);
        if keep == 0 || !self.window_holds(context, position) || !context.remove(self.sequence, position) {
            self.forget(context);
        } else {
            self.cut(keep);
        }
        self.cached.len()
    }

    /// Takes the first `keep` tokens of another slot's cache instead of its own; returns how many it got.
    pub fn share(&mut self, context: &mut Context, other: &Head, keep: usize) -> usize {
        self.forget(context);
        let position = u32::try_from(keep).unwrap_or(u32::MAX);
        if keep == 0 || !context.copy(other.sequence, self.sequence, position) {
            return 0;
        }
        if !self.window_holds(context, position) {
            self.forget(context);
            return 0;
        }
        self.cached.extend_from_slice(&other.tokens[..keep]);
        self.exact = other.exact.min(keep);
        self.shared = if context.is_unified() { keep } else { 0 };
        keep
    }

    /// What another slot may share.
    pub fn head(&self, len: usize) -> Head {
        Head { sequence: self.sequence, tokens: self.cached[..len].to_vec(), exact: self.exact }
    }

    /// A sliding window forgets from the front: whether what it still needs at a position is there.
    fn window_holds(&self, context: &mut Context, position: u32) -> bool {
        let window = context.model().sliding_window();
        window == 0
            || context.first_position(self.sequence).is_some_and(|p| p <= position.saturating_sub(window))
    }

    /// Empties the cache.
    pub fn forget(&mut self, context: &mut Context) {
        context.remove(self.sequence, 0);
        self.cut(0);
    }

    /// Removes what the cache has beyond the slot's tokens. Where the model cannot forget a part, it forgets all, and a
    /// generation begins again.
    pub fn trim(&mut self, context: &mut Context) {
        if !context.remove(self.sequence, self.position()) {
            self.forget(context);
            if let Some(Work::Generate(generation)) = &mut self.work {
                generation.preempt();
            }
        }
    }

    fn cut(&mut self, keep: usize) {
        self.cached.truncate(keep);
        self.exact = self.exact.min(keep);
        self.shared = self.shared.min(keep);
    }

    /// Notes tokens that were computed. `alone` says that they were prompt and nothing else was in the batch.
    pub fn computed(&mut self, tokens: &[Token], alone: bool, micro_batch: usize) {
        let start = self.cached.len();
        self.cached.extend_from_slice(tokens);
        if alone && self.exact == start {
            let end = self.cached.len();
            self.exact = end - end % micro_batch.max(1);
        }
    }
}

/// The beginning of a slot's cache.
pub(super) struct Head {
    sequence: Sequence,
    tokens: Vec<Token>,
    exact: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(prompt: usize, micro_batch: usize, answer: usize) -> Slot {
        let mut slot = Slot::new(0);
        slot.computed(&(0..prompt as Token).collect::<Vec<_>>(), true, micro_batch);
        for i in 0..answer {
            slot.computed(&[(prompt + i) as Token], false, micro_batch);
        }
        slot
    }

    #[test]
    fn exact_reuse_is_whole_micro_batches_of_prompt() {
        let slot = slot(20, 8, 10);
        let longer: Vec<Token> = (0..40).collect();
        assert_eq!(slot.reusable(&longer, PromptCache::Exact, 8), 16);
        assert_eq!(slot.reusable(&longer, PromptCache::Prefix, 8), 30);
        assert_eq!(slot.reusable(&longer, PromptCache::Off, 8), 0);
        // Differs at token 10.
        let mut other = longer.clone();
        other[10] = 99;
        assert_eq!(slot.reusable(&other, PromptCache::Exact, 8), 8);
        assert_eq!(slot.reusable(&other, PromptCache::Prefix, 8), 10);
    }

    #[test]
    fn one_token_is_left_to_compute() {
        let slot = slot(16, 8, 0);
        let same: Vec<Token> = (0..16).collect();
        assert_eq!(slot.reusable(&same, PromptCache::Exact, 8), 8);
        assert_eq!(slot.reusable(&same, PromptCache::Prefix, 8), 15);
        assert_eq!(slot.reusable(&[], PromptCache::Prefix, 8), 0);
    }

    #[test]
    fn tokens_computed_among_others_are_not_exact() {
        let mut slot = Slot::new(0);
        slot.computed(&[1; 8], false, 8);
        slot.computed(&[1; 8], true, 8);
        assert_eq!(slot.reusable(&[1; 20], PromptCache::Exact, 8), 0);
    }
}
