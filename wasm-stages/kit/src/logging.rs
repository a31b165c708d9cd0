//! Lines for the host's log. The host bounds their length and number.

/// Something failed.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Something looks wrong, and the stage goes on.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something an operator may want to know.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something the author of the stage may want to know.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

use crate::bindings::pajamas::stage::logging::Level;

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    crate::bindings::pajamas::stage::logging::log(level, message);
}

/// Natively, in tests, there is no host: the line goes to stderr.
#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
