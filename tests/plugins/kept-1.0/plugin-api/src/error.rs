//! The one error type that crosses the plugin boundary.

use std::path::Path;
use std::{fmt, io};

/// What a plugin or a sink returns on failure.
///
/// `code` is stable and kebab-case: programs match on it, and it appears alike in the API, the logs and the
/// metrics. `message` says what happened and where; `help` says how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// Stable kebab-case identifier, for example `context-length-exceeded`.
    pub code: String,
    /// What happened, and to what.
    pub message: String,
    /// What the reader can do about it; empty when there is nothing to say.
    pub help: String,
}

/// The result of everything fallible in this crate.
pub type Result<T, E = PluginError> = std::result::Result<T, E>;

/// Codes with a meaning the host relies on. A plugin may use any other kebab-case code for its own errors.
pub mod codes {
    /// The request was cancelled through its [`Cancel`](crate::Cancel) flag.
    pub const CANCELLED: &str = "cancelled";
    /// The plugin panicked; its session is poisoned from then on.
    pub const PANICKED: &str = "panicked";
    /// The session panicked earlier and takes no more requests.
    pub const SESSION_POISONED: &str = "session-poisoned";
    /// The session or backend does not offer this operation.
    pub const UNSUPPORTED: &str = "unsupported";
    /// A request, an option or an input tensor is wrong.
    pub const INVALID_INPUT: &str = "invalid-input";
    /// A backend option is unknown or out of range.
    pub const INVALID_OPTION: &str = "invalid-option";
    /// The model file is missing or unreadable.
    pub const MODEL_NOT_FOUND: &str = "model-not-found";
    /// The model file is damaged, truncated or of another format.
    pub const MODEL_INVALID: &str = "model-invalid";
    /// The prompt and the answer asked for do not fit the context.
    pub const CONTEXT_LENGTH_EXCEEDED: &str = "context-length-exceeded";
    /// The device has not enough memory.
    pub const OUT_OF_MEMORY: &str = "out-of-memory";
    /// The plugin wrote more output than the host allows.
    pub const OUTPUT_TOO_LARGE: &str = "output-too-large";
    /// The session returned without writing an output it was asked for.
    pub const OUTPUT_MISSING: &str = "output-missing";
    /// The session wrote an output nobody asked for.
    pub const OUTPUT_UNEXPECTED: &str = "output-unexpected";
    /// The session wrote an output of another type or shape than its signature promises.
    pub const OUTPUT_MISMATCH: &str = "output-mismatch";
    /// The other side sent something that does not parse: a bug in one of the two.
    pub const PROTOCOL: &str = "plugin-protocol";
    /// Anything else.
    pub const INTERNAL: &str = "internal";
}

impl PluginError {
    /// An error with a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), help: String::new() }
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The request was cancelled.
    pub fn cancelled() -> Self {
        Self::new(codes::CANCELLED, "the request was cancelled")
    }

    /// The model file could not be read.
    pub fn model_unreadable(path: &Path, error: &io::Error) -> Self {
        Self::new(codes::MODEL_NOT_FOUND, format!("{}: {error}", path.display()))
    }

    /// The operation is not offered by `who`.
    pub fn unsupported(who: &str, operation: &str) -> Self {
        Self::new(codes::UNSUPPORTED, format!("{who} does not offer `{operation}`"))
    }

    /// A request, an option or an input is wrong.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(codes::INVALID_INPUT, message)
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)?;
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for PluginError {}
