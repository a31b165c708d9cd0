//! The host's one error: a stable code, what happened, and what to do about it.

use std::fmt;
use std::time::Duration;

use pajamas_plugin_api::PluginError;

/// The result of everything fallible in the host.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal: `code` for programs, `message` (what and where) and `help` (how to fix it) for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: String,
    message: String,
    help: String,
    wait: Option<Duration>,
}

/// Who has to act on an error: decides the exit status and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request or the configuration is wrong: the caller changes it. Exit 2, HTTP 400.
    Invalid,
    /// What was asked for does not exist. Exit 3, HTTP 404.
    NotFound,
    /// More than a limit allows. Exit 4, HTTP 413.
    TooLarge,
    /// Not now: memory, load or time. Exit 5, HTTP 503.
    Unavailable,
    /// Too many at once: the caller tries again later. Exit 5, HTTP 429.
    Busy,
    /// Without a key that the server knows. Exit 6, HTTP 401.
    Unauthenticated,
    /// With a key, or from a place, that may not. Exit 6, HTTP 403.
    Forbidden,
    /// The caller stopped it. Exit 130, HTTP 499.
    Cancelled,
    /// What was examined falls short of what was asked of it. Exit 1, HTTP 422.
    Unmet,
    /// The host or a plugin is at fault. Exit 1, HTTP 500.
    Internal,
}

impl Error {
    /// An error with a code of [`CODES`](crate::codes::CODES) and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), help: String::new(), wait: None }
    }

    /// Adds after how long another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// After how long another try makes sense, where that is known.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Puts where it happened before the message: `context: message`.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The stable, kebab-case code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What happened, and where.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to fix it; empty when there is nothing to say.
    pub fn how_to_fix(&self) -> &str {
        &self.help
    }

    /// Who has to act.
    pub fn class(&self) -> Class {
        crate::codes::class(&self.code)
    }

    /// A file could not be read or written.
    pub fn io(path: impl AsRef<std::path::Path>, error: &std::io::Error) -> Self {
        let path = path.as_ref().display();
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Self::new("file-not-found", format!("{path}: no such file or folder"))
            }
            std::io::ErrorKind::IsADirectory => {
                Self::new("invalid-input", format!("{path}: this is a folder, and a file is needed"))
            }
            _ => Self::new("io", format!("{path}: {error}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl std::error::Error for Error {}

impl From<PluginError> for Error {
    fn from(error: PluginError) -> Self {
        Self { code: error.code, message: error.message, help: error.help, wait: None }
    }
}
