//! Choosing the next token.

use crate::{Context, Model, Token, sys};

/// A chain of samplers: filters and penalties in the order they are added, a choice at the end.
///
/// Stateful: it remembers the tokens it accepted, for penalties, and draws from its own random numbers.
#[derive(Debug)]
pub struct Sampler {
    chain: *mut sys::llama_sampler,
    /// Whether the chain ends in a choice; llama.cpp asserts that it does.
    chooses: bool,
}

// SAFETY: a chain has no ties to a thread; it is only used through `&mut self`.
unsafe impl Send for Sampler {}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// An empty chain. It must end with [`greedy`](Self::greedy) or [`random`](Self::random) before it is used.
    pub fn new() -> Self {
        // SAFETY: plain parameters.
        let chain = unsafe {
            let mut params = sys::llama_sampler_chain_default_params();
            params.no_perf = true;
            sys::llama_sampler_chain_init(params)
        };
        Self { chain, chooses: false }
    }

    /// Adds to the logits of single tokens; ids outside the vocabulary are ignored.
    #[must_use]
    pub fn logit_bias(self, model: &Model, biases: &[(Token, f32)]) -> Self {
        let size = model.vocab_size();
        let biases: Vec<sys::llama_logit_bias> = biases
            .iter()
            .filter(|(token, _)| (0..size).contains(token))
            .map(|&(token, bias)| sys::llama_logit_bias { token, bias })
            .collect();
        if biases.is_empty() {
            return self;
        }
        // SAFETY: llama.cpp copies the list, whose length is given.
        self.add(unsafe { sys::llama_sampler_init_logit_bias(size, biases.len() as i32, biases.as_ptr()) })
    }

    /// Penalties on tokens among the last `last_n`; `repeat` divides (1: none), the others are subtracted (0: none).
    #[must_use]
    pub fn penalties(self, model: &Model, last_n: u32, repeat: f32, frequency: f32, presence: f32) -> Self {
        if last_n == 0 || (repeat == 1.0 && frequency == 0.0 && presence == 0.0) {
            return self;
        }
        let last_n = i32::try_from(last_n).unwrap_or(i32::MAX);
        // SAFETY: plain values.
        self.add(unsafe {
            sys::llama_sampler_init_penalties(model.vocab_size(), last_n, repeat, frequency, presence)
        })
    }

    /// Keeps the `k` most likely tokens; 0 keeps all.
    #[must_use]
    pub fn top_k(self, k: u32) -> Self {
        if k == 0 {
            return self;
        }
        // SAFETY: plain values.
        self.add(unsafe { sys::llama_sampler_init_top_k(i32::try_from(k).unwrap_or(i32::MAX)) })
    }

    /// Keeps the smallest set whose probabilities sum to `p`; 1 keeps all.
    #[must_use]
    pub fn top_p(self, p: f32) -> Self {
        if p >= 1.0 {
            return self;
        }
        // SAFETY: plain values.
        self.add(unsafe { sys::llama_sampler_init_top_p(p, 1) })
    }

    /// Keeps tokens at least `p` times as likely as the most likely one; 0 keeps all.
    #[must_use]
    pub fn min_p(self, p: f32) -> Self {
        if p <= 0.0 {
            return self;
        }
        // SAFETY: plain values.
        self.add(unsafe { sys::llama_sampler_init_min_p(p, 1) })
    }

    /// Divides the logits.
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        // SAFETY: plain values.
        self.add(unsafe { sys::llama_sampler_init_temp(temperature) })
    }

    /// Ends the chain: draws by probability.
    #[must_use]
    pub fn random(mut self, seed: u32) -> Self {
        self.chooses = true;
        // llama.cpp takes the largest number for "draw a seed", which would not repeat.
        let seed = if seed == u32::MAX { 0 } else { seed };
        // SAFETY: plain values.
        self.add(unsafe { sys::llama_sampler_init_dist(seed) })
    }

    /// Ends the chain: takes the most likely.
    #[must_use]
    pub fn greedy(mut self) -> Self {
        self.chooses = true;
        // SAFETY: no parameters.
        self.add(unsafe { sys::llama_sampler_init_greedy() })
    }

    /// Remembers a token that was not sampled here, for penalties: those of the prompt.
    pub fn accept(&mut self, token: Token) {
        // SAFETY: the chain is valid; samplers accept any token of the vocabulary.
        unsafe { sys::llama_sampler_accept(self.chain, token) };
    }

    /// Samples and accepts a token from the logits at `index` of the context's last batch; `None` when there are no
    /// logits at that index, or the chain does not end in a choice.
    pub fn sample(&mut self, context: &mut Context, index: usize) -> Option<Token> {
        if !self.chooses {
            return None;
        }
        context.logits(index)?;
        // SAFETY: logits exist at this index, and the chain selects a token.
        Some(unsafe { sys::llama_sampler_sample(self.chain, context.handle(), index as i32) })
    }

    fn add(self, sampler: *mut sys::llama_sampler) -> Self {
        if !sampler.is_null() {
            // SAFETY: both are valid; the chain takes ownership.
            unsafe { sys::llama_sampler_chain_add(self.chain, sampler) };
        }
        self
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: created by this type and freed once, with the samplers it owns.
        unsafe { sys::llama_sampler_free(self.chain) };
    }
}
