//! Which models run in processes of their own, and how long those may take for what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Period;

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the host's process, unless its plugin is isolated.
    #[default]
    None,
    /// In a process of its own: a crash, a hang or a leak takes only that along.
    Process,
}

/// How long a worker may take before it counts as one that hangs, and is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Patience {
    /// Answering whether it is there, while it has requests.
    pub heartbeat: Period,
    /// Ending a request that was cancelled.
    pub cancel: Period,
    /// Showing any progress of a request: a token, an event, a part of loading, its end.
    pub silence: Period,
}

impl Default for Patience {
    fn default() -> Self {
        Self { heartbeat: Period::seconds(10), cancel: Period::seconds(10), silence: Period::seconds(300) }
    }
}
