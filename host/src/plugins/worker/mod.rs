//! Plugins in processes of their own: a backend whose models are loaded by a child of this program each, so that what
//! goes wrong in native code takes only that child along.
//!
//! The host's half ([`WorkerBackend`]) implements the traits of backends; nobody else knows the difference. The child's
//! half ([`serve`]) opens the same library and calls it. Between them a socket carries messages, and sealed shared
//! memory carries tensors.

mod call;
mod child;
mod client;
mod crew;
mod link;
mod outputs;
mod process;
mod protocol;
mod shared;
mod wire;

pub use child::serve;
pub use client::{Recipe, WorkerBackend};
