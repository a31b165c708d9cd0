//! Models of other servers with OpenAI's API: a backend whose sessions ask over HTTP, and what is known of how well those
//! servers are.
//!
//! A session asks with one thread for each request, which reads what comes; whoever waits for it looks every few
//! milliseconds whether the request was cancelled, and then closes the connection.

mod answer;
mod body;
mod breaker;
mod client;
mod events;
mod fault;
mod health;
mod session;

use std::sync::Arc;

use pajamas_plugin_api::Backend;

pub use breaker::Phase;
pub use fault::{is_remote, says_it_fails};
pub use health::{Condition, Health, Permit};

use crate::config::Isolation;
use crate::models::Spec;
use crate::plugins::ActiveBackend;

/// The format of models that are not here.
const FORMAT: &str = Spec::REMOTE;
/// The device of models that are not here.
const DEVICE: &str = "remote";

/// The backend of models that are not here. It belongs to no plugin.
pub fn backend() -> ActiveBackend {
    let backend = session::RemoteBackend;
    ActiveBackend {
        plugin: "remote".to_owned(),
        info: backend.describe(),
        probe: backend.probe(),
        backend: Arc::new(backend),
        worker: None,
        isolation: Isolation::None,
    }
}
