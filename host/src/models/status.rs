//! What a model is doing, for whoever asks.

use pajamas_plugin_api::Memory;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where a model is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not in memory; the next request loads it.
    #[default]
    Unloaded,
    /// Being loaded.
    Loading,
    /// In memory, and no request uses it.
    Ready,
    /// In memory, and requests use it.
    Busy,
    /// Its weights are in memory, and what a request needs beside them is not: others needed the room. The next request
    /// wakes it, which takes a moment.
    Sleeping,
    /// Being freed, or kept only for the requests that have it; the next request loads it anew.
    Unloading,
    /// Its latest load or request failed, and it is not in memory; a request tries again, after several failures in a row
    /// only after a while.
    Failed,
    /// It panicked or crashed again and again; no request loads it.
    Quarantined,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unloaded,
        Self::Loading,
        Self::Ready,
        Self::Busy,
        Self::Sleeping,
        Self::Unloading,
        Self::Failed,
        Self::Quarantined,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Sleeping => "sleeping",
            Self::Unloading => "unloading",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether a request can run without loading; one that sleeps is woken for it.
    pub const fn is_in_memory(self) -> bool {
        matches!(self, Self::Ready | Self::Busy | Self::Sleeping)
    }
}

impl Status {
    /// Whether it is in memory, or was and was let go.
    pub fn is_at_hand(&self) -> bool {
        let went = matches!(self.state, State::Unloaded | State::Unloading) && self.loads > 0;
        self.state.is_in_memory() || went
    }
}

/// A model whose state changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The model's id.
    pub id: String,
    /// The state it is in now.
    pub state: State,
}

/// Why a model failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The error's code.
    pub code: String,
    /// The error's words.
    pub message: String,
    /// Panics and crashes in a row.
    #[serde(skip)]
    pub breaks: u32,
}

impl Failure {
    pub(super) fn of(error: &Error, breaks: u32) -> Self {
        let [code, message] = [error.code(), error.message()].map(str::to_owned);
        Self { code, message, breaks }
    }
}

/// A model at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The model's id.
    pub id: String,
    /// Where it is in its life.
    pub state: State,
    /// Whether it stays in memory when others need room.
    pub pinned: bool,
    /// Requests that use it now.
    pub in_flight: usize,
    /// Requests that wait for it to be loaded or woken.
    pub waiting: usize,
    /// The backend that runs it, when it is in memory.
    pub backend: Option<String>,
    /// The device it runs on, when it is in memory.
    pub device: Option<String>,
    /// Bytes held.
    pub memory: Vec<Memory>,
    /// How long loading took, in milliseconds.
    pub load_ms: Option<f64>,
    /// How often it was loaded since the start.
    pub loads: u64,
    /// How often it was woken.
    pub wakes: u64,
    /// How long waking it took the latest time, in milliseconds.
    pub wake_ms: Option<f64>,
    /// How often much less memory came back than it had taken, twice in a row.
    pub leaks: u64,
    /// Milliseconds until it goes for want of requests; missing while it does not.
    pub expires_ms: Option<u64>,
    /// Why it failed, until it is loaded again or a request goes well.
    pub failure: Option<Failure>,
}
