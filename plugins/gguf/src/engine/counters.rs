//! What the engine counts, readable from any thread at any time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use pajamas_plugin_api::EngineStats;

/// Written by the worker and by callers that join the queue; each number is right by itself.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub slots: AtomicU32,
    pub busy: AtomicU32,
    pub waiting: AtomicU32,
    pub cache_total: AtomicU64,
    pub cache_used: AtomicU64,
    pub prompt: AtomicU64,
    pub cached: AtomicU64,
    pub generated: AtomicU64,
    pub batches: AtomicU64,
    pub preempted: AtomicU64,
    pub cancelled: AtomicU64,
    pub drafted: AtomicU64,
    pub accepted: AtomicU64,
}

impl Counters {
    /// Adds to a number that only grows.
    pub fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Relaxed);
    }

    /// The numbers of this moment.
    pub fn snapshot(&self) -> EngineStats {
        EngineStats {
            slots: self.slots.load(Relaxed),
            busy: self.busy.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            cache_tokens_total: self.cache_total.load(Relaxed),
            cache_tokens_used: self.cache_used.load(Relaxed),
            prompt_tokens: self.prompt.load(Relaxed),
            cached_tokens: self.cached.load(Relaxed),
            generated_tokens: self.generated.load(Relaxed),
            batches: self.batches.load(Relaxed),
            preempted: self.preempted.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            drafted: self.drafted.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
        }
    }
}
