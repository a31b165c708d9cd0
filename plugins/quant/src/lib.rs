//! From a Hugging Face folder to files that run: reads the source, tells what it is, and converts it.
//!
//! Everything here is Rust: no Python takes part in a conversion. What llama.cpp's own converter writes is the
//! measure: tensors and metadata are equal to its, and tests compare them.

pub mod architecture;
mod convert;
pub mod error;
mod general;
pub mod mlx;
pub mod source;
pub mod tokenizer;

pub use convert::{Conversion, OutType};
