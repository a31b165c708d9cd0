//! All that a pajamas plugin author sees.
//!
//! A plugin is a dynamic library that exports *backends* (which run models) and *quantizers* (which make
//! artifacts). Both are ordinary Rust traits over std types; [`export_plugin!`] does the rest:
//!
//! ```
//! use pajamas_plugin_api::{HostContext, Plugin, PluginInfo, Result, export_plugin};
//!
//! fn plugin(_host: HostContext) -> Result<Plugin> {
//!     Ok(Plugin::new(PluginInfo {
//!         name: "mine".into(),
//!         version: env!("CARGO_PKG_VERSION").into(),
//!         ..PluginInfo::default()
//!     }))
//! }
//!
//! export_plugin!(name: "mine", version: env!("CARGO_PKG_VERSION"), create: plugin);
//! ```
//!
//! What an author may rely on:
//! - A plugin built against 1.x of this crate loads in every 1.y host, older or newer.
//! - Panics are caught at the boundary and become errors; they never abort the host.
//! - Calls are synchronous, on threads of the host; no runtime, allocator or thread-local crosses.
//! - Tensors are borrowed in and written into memory of the host: nothing is copied to cross.
//! - A plugin is never unloaded; its sessions are.

mod abi;
mod backend;
mod check;
mod error;
mod export;
mod extension;
mod generate;
mod plugin;
mod probe_symbol;
mod quantizer;
mod sink;
mod sleep;
mod slots;
mod stats;
mod sums;
mod tensor;

#[cfg(feature = "host")]
pub mod conformance;
#[cfg(feature = "host")]
pub mod host;

pub use backend::*;
pub use error::*;
pub use export::__private;
pub use extension::Extension;
pub use generate::*;
pub use plugin::*;
pub use probe_symbol::{ABI_VERSION, ProbeReport};
pub use quantizer::*;
pub use sink::*;
pub use sleep::*;
pub use slots::*;
pub use stats::*;
pub use sums::*;
pub use tensor::*;
