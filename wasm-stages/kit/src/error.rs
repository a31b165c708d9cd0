//! Refusals.

pub use crate::bindings::exports::pajamas::stage::processing::Error;

/// The result of everything fallible in a stage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a stable, kebab-case code and a message that says what and where.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), help: String::new() }
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// An input value is missing, of the wrong kind or malformed (`invalid-input`).
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new("invalid-input", message)
    }

    /// An option or a granted file is wrong (`invalid-option`).
    pub fn invalid_option(message: impl Into<String>) -> Self {
        Self::new("invalid-option", message)
    }
}
