//! The GGUF file format, in plain Rust: reading headers of files nobody has checked yet, and writing files.
//!
//! [`Header::open`] comes before llama.cpp ever sees a file. It allocates no more than the file is long and follows
//! no offset it has not checked, so that a damaged or hostile file is an error with a place, never a crash.

mod adapter;
mod asserted;
mod header;
mod parts;
mod read;
mod spans;
mod types;
mod value;
mod write;

pub use header::{Header, TensorInfo};
pub use spans::Spans;
pub use types::TensorType;
pub use value::{Array, Kind, Value};
pub use write::Writer;

/// The first four bytes of every file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version written here, and the newest one read.
pub const VERSION: u32 = 3;
/// Alignment of tensor data when the file does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// What is wrong with a file, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content breaks the format.
    #[error("{what} (at byte {at})")]
    Invalid {
        /// What is wrong.
        what: String,
        /// Where in the file it was noticed.
        at: u64,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
}
