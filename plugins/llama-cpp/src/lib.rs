//! A thin safe layer over llama.cpp: what the gguf backend and the quantizer share.
//!
//! It covers what those two need and nothing else, and knows nothing of plugins. The parts, from the ground up:
//! [`gguf`] reads and writes the file format in plain Rust; [`Library`] loads ggml's compute libraries from a folder
//! of our choosing; [`Model`] holds weights and vocabulary; [`Context`] computes batches with a key-value cache;
//! [`Sampler`] picks tokens; [`Windows`] is for measuring.
//!
//! llama.cpp ends the process when one of its assertions fails. Everything that can reach an assertion is therefore
//! checked on this side first: file structure ([`gguf::Header`]), token ids, batch sizes, output indices.

mod batch;
mod context;
mod device;
mod error;
mod evaluate;
pub mod gguf;
mod heap;
mod library;
mod log;
mod memory;
mod model;
mod peer;
pub mod quantize;
mod sampler;
mod threadpool;
mod vocab;

pub use batch::Batch;
pub use context::{
    Context, ContextParams, Decoded, FlashAttention, KvType, Operand, Operation, OperationKind, Rows, Watch,
};
pub use device::{Device, DeviceKind};
pub use error::{Error, Result};
pub use evaluate::Windows;
pub use heap::HeapTrim;
pub use library::Library;
pub use log::Level;
pub use memory::BufferMemory;
pub use model::{Model, ModelParams, Pooling, Weights};
pub use peer::{FileQuantization, quantize_file};
pub use sampler::Sampler;

/// The raw bindings, for what this layer does not cover.
pub use llama_cpp_sys_2 as sys;

/// A token's number in its vocabulary.
pub type Token = i32;
/// A sequence's number within a context.
pub type Sequence = i32;
