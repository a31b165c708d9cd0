//! The stable layer below the traits: the only code of pajamas that names `abi_stable`.
//!
//! `raw` holds what crosses, `plugin_side` turns an author's traits into it, `host_side` (feature `host`) turns
//! it back. Requests and descriptions cross as JSON text, so that they grow by adding keys; tensors, tokens and
//! the cancel flag cross as they are, so that the hot paths neither copy nor parse.
//!
//! Growth rules: `docs/src/abi-versioning.md`. `raw.rs` is append-only.

#[cfg(feature = "host")]
pub(crate) mod host_side;
pub mod plugin_side;
pub(crate) mod raw;
mod sinks;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{PluginError, Result, codes};

/// Runs `body`; a panic becomes an error with code `panicked`, because a panic must not cross the boundary.
pub(crate) fn guard<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whoever owns state that `body` may have left half-changed poisons it: see `SessionEntry`.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(PluginError::new(codes::PANICKED, format!("panic in `{what}`: {}", panic_text(&*panic)))
            .help("this is a bug in the code that panicked: report it to its vendor"))
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".into())
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| PluginError::new(codes::PROTOCOL, format!("cannot encode: {e}")))
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        PluginError::new(codes::PROTOCOL, format!("{what} does not parse: {e}"))
            .help("host and plugin disagree on the interface: report it to the plugin's vendor")
    })
}
