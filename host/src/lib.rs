//! pajamas: one host that loads native backends as plugins, runs untrusted bytes in WASM stages, and serves
//! every model through the same way.

pub mod admission;
pub mod artifact;
pub mod chat;
pub mod cli;
pub mod codes;
pub mod config;
pub mod error;
pub mod hardware;
pub mod host;
pub mod hub;
pub mod jobs;
pub mod metrics;
pub mod models;
mod outbound;
pub mod pipeline;
pub mod plugins;
pub mod quantize;
pub mod remote;
pub mod router;
pub mod server;
pub mod stages;
pub mod validate;
pub mod value;

pub use error::{Class, Error, Result};
pub use host::Host;
