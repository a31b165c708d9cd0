//! What can go wrong below the plugins.

use std::path::PathBuf;

use crate::{Token, gguf};

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of llama.cpp, or a request that it would not have survived.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder with ggml's compute libraries.
    #[error("the folder of llama.cpp's libraries {} does not exist", path.display())]
    LibraryFolder {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The folder has no library that runs on this processor.
    #[error("no CPU library of llama.cpp in {} runs on this processor{}", path.display(), reason(log))]
    NoCpuLibrary {
        /// The folder that was searched.
        path: PathBuf,
        /// What ggml said.
        log: String,
    },
    /// The file is no usable GGUF file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: gguf::Error,
    },
    /// llama.cpp refused the model.
    #[error("{}: llama.cpp cannot load the model{}", path.display(), reason(log))]
    Load {
        /// The file.
        path: PathBuf,
        /// What llama.cpp said.
        log: String,
    },
    /// The caller stopped the load.
    #[error("loading was cancelled")]
    Cancelled,
    /// Memory for weights, cache or compute buffers could not be had.
    #[error("not enough memory{}", reason(log))]
    OutOfMemory {
        /// What llama.cpp said.
        log: String,
    },
    /// llama.cpp refused the context's parameters.
    #[error("llama.cpp cannot create a context{}", reason(log))]
    Context {
        /// What llama.cpp said.
        log: String,
    },
    /// The model was loaded without weights, and the operation needs them.
    #[error("the model was loaded for its vocabulary only")]
    VocabularyOnly,
    /// The model has no vocabulary.
    #[error("the model has no vocabulary")]
    NoVocabulary,
    /// A token that is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {size} tokens")]
    UnknownToken {
        /// The token.
        token: i64,
        /// Number of tokens in the vocabulary.
        size: Token,
    },
    /// A path with a zero byte or outside UTF-8, a text longer than 2 GiB, or characters without a token.
    #[error("the text cannot be expressed: it is too long, or has characters that the model does not know")]
    Text,
    /// The batch does not fit the context.
    #[error("{0}")]
    Batch(String),
    /// Quantizing was refused, or failed.
    #[error("cannot quantize: {what}")]
    Quantize {
        /// Why.
        what: String,
    },
    /// Computing failed.
    #[error("llama.cpp failed to compute a batch (status {status}){}", reason(log))]
    Compute {
        /// What `llama_decode` returned.
        status: i32,
        /// What llama.cpp said.
        log: String,
    },
}

fn reason(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}
