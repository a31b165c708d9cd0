//! How a context is made.

use crate::gguf::TensorType;

/// Whether attention is computed without writing out all scores. It needs less memory, and a quantized cache of
/// values works only with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum FlashAttention {
    #[default]
    Auto,
    On,
    Off,
}

/// Element type of the key or value cache.
pub type KvType = TensorType;

/// How a context is made.
#[derive(Debug, Clone)]
pub struct ContextParams {
    /// Tokens in the cache, of all sequences together; llama.cpp rounds up to a multiple of 256.
    pub context_length: u32,
    /// The most tokens in one batch.
    pub batch_size: u32,
    /// Tokens computed at once.
    pub micro_batch_size: u32,
    /// The most sequences.
    pub sequences: u32,
    /// The most outputs of one batch.
    pub outputs: u32,
    /// Whether sequences share the whole cache, rather than having equal parts of it.
    pub unified: bool,
    /// Threads for batches of one token.
    pub threads: u32,
    /// Threads for longer batches.
    pub threads_batch: u32,
    /// Type of the key cache.
    pub key_type: KvType,
    /// Type of the value cache.
    pub value_type: KvType,
    /// Whether to use flash attention.
    pub flash_attention: FlashAttention,
    /// Whether embeddings are wanted from the start; see [`Context::set_embeddings`].
    pub embeddings: bool,
    /// Whether the model's classification head scores each sequence; see [`Context::score`]. Only for models that
    /// have one ([`Model::ranks`]).
    pub rank: bool,
    /// Whether operations can be watched; see [`Context::decode_watched`](super::Context::decode_watched).
    pub watched: bool,
}

impl Default for ContextParams {
    fn default() -> Self {
        Self {
            context_length: 4096,
            batch_size: 2048,
            micro_batch_size: 512,
            sequences: 1,
            outputs: 1,
            unified: false,
            threads: 1,
            threads_batch: 1,
            key_type: TensorType::F16,
            value_type: TensorType::F16,
            flash_attention: FlashAttention::Auto,
            embeddings: false,
            rank: false,
            watched: false,
        }
    }
}
