//! What a session that serves several requests at once is doing: the extension `pajamas.engine-stats/1`.

use serde::{Deserialize, Serialize};

use crate::extension::{Extension, ask, to_json};
use crate::sink::{Cancel, EventSink, TensorSink};
use crate::tensor::NamedTensor;
use crate::{Result, Session};

/// The name of the extension of a [`Session`] that gives [`EngineStats`]. Its call ignores its input and answers at
/// once, also while requests run.
pub const ENGINE_STATS: &str = "pajamas.engine-stats/1";

/// A moment of an engine. Counters count from the load of the session and only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStats {
    /// Requests that can run at the same time.
    pub slots: u32,
    /// Requests that run now.
    pub busy: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// Tokens the cache has room for, over all slots.
    pub cache_tokens_total: u64,
    /// Tokens in the cache, of running and of finished requests.
    pub cache_tokens_used: u64,
    /// Prompt tokens of all requests so far.
    pub prompt_tokens: u64,
    /// Those of them that were still in the cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Batches computed.
    pub batches: u64,
    /// Requests that had to give their place in the cache to others, and began again later.
    pub preempted: u64,
    /// Requests that ended because they were cancelled.
    pub cancelled: u64,
    /// Tokens that a draft model proposed.
    pub drafted: u64,
    /// Those of them that the model would have chosen itself.
    pub accepted: u64,
}

impl EngineStats {
    /// Those of a session; `None` when it keeps none.
    ///
    /// # Errors
    /// Those of the extension's call; `plugin-protocol` when it answers with something else.
    pub fn of(session: &dyn Session) -> Result<Option<Self>> {
        session.extension(ENGINE_STATS).map(|stats| ask(&*stats, ENGINE_STATS, &[])).transpose()
    }
}

/// The plugin's side: an extension that answers with what a function says.
pub struct EngineStatsExtension<F>(pub F);

impl<F: Fn() -> EngineStats + Send + Sync> Extension for EngineStatsExtension<F> {
    fn call(
        &self,
        _input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        to_json(&(self.0)())
    }
}
