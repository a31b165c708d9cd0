//! Speculation: a small model writes ahead, and the large one checks what it wrote in the batch that it computes anyway.
//!
//! All that is here are proposals. The small model has a cache of its own, brought into step whenever a request writes:
//! what agrees with the request's tokens stays, and what is missing is read. Where that fails, a request goes on without.

use pajamas_llama_cpp::{Batch, BufferMemory, Context, Decoded, Token};

use super::generate::Generation;
use super::slot::Slot;
use super::work::Work;
use crate::options::PromptCache;

/// How far the small model writes ahead.
#[derive(Debug, Clone)]
pub(crate) struct DraftSettings {
    /// The most tokens in a round. Requests that write share them: the more of them, the better a pass over the weights
    /// is used without.
    pub max: u32,
    /// The least probability of each.
    pub least: f32,
}

/// What a round may cost.
pub(super) struct Limits {
    /// Tokens in a batch.
    pub capacity: usize,
    /// Tokens read with which other requests write.
    pub prompt_chunk: usize,
}

/// The small model.
pub(crate) struct Drafter {
    context: Context,
    batch: Batch,
    /// What of each slot is in its cache. These never have a request.
    caches: Vec<Slot>,
    /// Tokens that both models know: vocabularies may differ by their padding.
    vocab: usize,
    /// Whether all must write equally far: llama.cpp cuts sequences with caches of their own into equal lengths, and
    /// each length is a pass over the large model's weights.
    level: bool,
    settings: DraftSettings,
}

/// What is written ahead for one slot.
struct Branch {
    slot: usize,
    /// Where the batch has the logits for the next token.
    output: usize,
    most: usize,
    tokens: Vec<Token>,
}

impl Branch {
    fn grows(&self) -> bool {
        self.tokens.len() < self.most
    }
}

impl Drafter {
    /// A drafter on a context with a sequence for each slot of another one, whose model has the same vocabulary.
    pub(super) fn new(context: Context, main: &Context, settings: &DraftSettings) -> Self {
        let caches = (0..context.sequences()).map(|s| Slot::new(s as i32)).collect();
        let vocab = context.model().vocab_size().min(main.model().vocab_size());
        let vocab = usize::try_from(vocab).unwrap_or_default();
        let level = !main.is_unified();
        Self { context, batch: Batch::new(), caches, vocab, level, settings: settings.clone() }
    }

    /// What the small model and its context hold.
    pub(super) fn memory(&self) -> Vec<BufferMemory> {
        self.context.memory()
    }

    /// Proposes to every request that writes how it may go on.
    pub(super) fn propose(&mut self, slots: &mut [Slot], limits: &Limits, abort: &(dyn Fn() -> bool + Sync)) {
        let writing = |slot: &Slot| generation(slot).is_some_and(|g| !g.reads());
        let writers: Vec<usize> = (0..slots.len()).filter(|index| writing(&slots[*index])).collect();
        // No more than half of a batch: prompts have to go on.
        let each = (self.settings.max as usize).min(limits.capacity / 2) / writers.len().max(1);
        if writers.is_empty() || each == 0 {
            return;
        }
        let branches = self.catch_up(slots, &writers, each, limits);
        let Some(branches) = self.write(branches, abort) else {
            // What of the batch is in the cache is unknown.
            for cache in &mut self.caches {
                cache.forget(&mut self.context);
            }
            return;
        };
        for Branch { slot, tokens, .. } in branches {
            if let Some(Work::Generate(generation)) = &mut slots[slot].work {
                generation.propose(tokens);
            }
        }
    }

    /// Fills the batch with what the cache lacks, and returns the slots for which it then lacks nothing.
    fn catch_up(&mut self, slots: &[Slot], writers: &[usize], each: usize, limits: &Limits) -> Vec<Branch> {
        let mut order = Vec::with_capacity(writers.len());
        for &slot in writers {
            let Some(generation) = generation(&slots[slot]) else { continue };
            let cache = &mut self.caches[slot];
            let keep = cache.reusable(generation.tokens(), PromptCache::Prefix, 1);
            if keep < cache.len() {
                cache.rewind(&mut self.context, keep);
            }
            let missing = &generation.tokens()[cache.len()..];
            if missing.iter().all(|token| (*token as usize) < self.vocab) {
                order.push((missing.len(), slot));
            }
        }
        // A request that has a prompt to read holds nobody up.
        order.sort_unstable();
        let mut room = match writers.len() {
            1 => limits.capacity,
            _ => limits.capacity.min(limits.prompt_chunk.max(2 * writers.len())),
        };
        let mut shares = vec![0; slots.len()];
        for (missing, slot) in order {
            shares[slot] = missing.min(room);
            room -= shares[slot];
        }
        self.batch.clear();
        let mut branches = Vec::new();
        for (slot, share) in shares.into_iter().enumerate().filter(|(_, share)| *share > 0) {
            let Some(generation) = generation(&slots[slot]) else { continue };
            let cache = &mut self.caches[slot];
            let missing = &generation.tokens()[cache.len()..];
            let (position, complete) = (cache.position(), share == missing.len());
            let mut output = 0;
            for (i, token) in missing[..share].iter().enumerate() {
                let last = complete && i + 1 == share;
                output = self.batch.add(*token, position + i as u32, cache.sequence, last);
            }
            cache.computed(&missing[..share], false, 1);
            // One token more comes from the large model itself.
            let most = if complete { each.min(generation.left().saturating_sub(1)) } else { 0 };
            branches.push(Branch { slot, output, most, tokens: Vec::new() });
        }
        branches
    }

    /// Computes the batch and writes ahead, all branches together, each until it is unsure; `None` when computing fails.
    fn write(&mut self, mut branches: Vec<Branch>, abort: &(dyn Fn() -> bool + Sync)) -> Option<Vec<Branch>> {
        while !self.batch.is_empty() {
            if !matches!(self.context.decode(&mut self.batch, abort), Ok(Decoded::Done)) {
                return None;
            }
            for branch in branches.iter_mut().filter(|b| b.grows()) {
                let logits = self.context.logits(branch.output);
                let token = logits.and_then(|l| likely(&l[..self.vocab], self.settings.least));
                branch.tokens.extend(token);
                if token.is_none_or(|token| self.context.model().is_end(token)) {
                    branch.most = branch.tokens.len();
                }
            }
            if self.level && !branches.iter().all(Branch::grows) {
                let shortest = branches.iter().map(|b| b.tokens.len()).min().unwrap_or(0);
                branches.iter_mut().for_each(|b| b.tokens.truncate(shortest));
                break;
            }
            self.batch.clear();
            for branch in branches.iter_mut().filter(|b| b.grows()) {
                let Some(token) = branch.tokens.last() else { continue };
                let cache = &mut self.caches[branch.slot];
                branch.output = self.batch.add(*token, cache.position(), cache.sequence, true);
                cache.computed(&[*token], false, 1);
            }
        }
        Some(branches)
    }
}

fn generation(slot: &Slot) -> Option<&Generation> {
    match &slot.work {
        Some(Work::Generate(generation)) => Some(generation),
        _ => None,
    }
}

/// The most likely token, if it is at least so likely.
fn likely(logits: &[f32], least: f32) -> Option<Token> {
    /// What is less likely than the best by this factor's exponential adds nothing that counts.
    const FAR: f32 = 20.0;
    let (best, most) = logits.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let enough = 1.0 / least;
    let mut sum = 0.0;
    for logit in logits.iter().filter(|l| **l > most - FAR) {
        sum += (logit - most).exp();
        if sum > enough {
            return None;
        }
    }
    Token::try_from(best).ok()
}

#[cfg(test)]
mod tests {
    use super::likely;

    #[test]
    fn only_what_is_likely_is_written() {
        // Probabilities 0.665, 0.245, 0.09.
        let logits = [1.0, 2.0, 0.0];
        assert_eq!(likely(&logits, 0.6), Some(1));
        assert_eq!(likely(&logits, 0.7), None);
        assert_eq!(likely(&logits, 0.0), Some(1));
        assert_eq!(likely(&[3.0], 1.0), Some(0));
        assert_eq!(likely(&[], 0.5), None);
    }
}
