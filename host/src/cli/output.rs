//! What every command prints in the same way: errors, JSON lines, the log.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use tracing::level_filters::LevelFilter;

use crate::error::{Class, Error, Result};

/// Prints an error on standard error and says with which status to exit.
pub fn report(error: &Error, as_json: bool) -> ExitCode {
    let mut stderr = io::stderr().lock();
    // Nothing is left to do when standard error is closed.
    let _ = if as_json {
        writeln!(stderr, "{}", error_json(error))
    } else {
        let (red, bold, plain) =
            if io::stderr().is_terminal() { ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let help = match error.how_to_fix() {
            "" => String::new(),
            help => format!("\n  {bold}help:{plain} {}", help.replace('\n', "\n        ")),
        };
        writeln!(stderr, "{red}error[{}]{plain}: {}{help}", error.code(), error.message())
    };
    ExitCode::from(exit_status(error.class()))
}

/// The exit status of an error's class.
pub const fn exit_status(class: Class) -> u8 {
    match class {
        Class::Internal | Class::Unmet => 1,
        Class::Invalid => 2,
        Class::NotFound => 3,
        Class::TooLarge => 4,
        Class::Unavailable | Class::Busy => 5,
        Class::Unauthenticated | Class::Forbidden => 6,
        Class::Cancelled => 130,
    }
}

/// An error as JSON: the same object in the CLI and over HTTP.
pub fn error_json(error: &Error) -> serde_json::Value {
    json!({ "error": { "code": error.code(), "message": error.message(), "help": error.how_to_fix() } })
}

/// Prints one JSON object on a line of its own.
pub fn json_line(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::new("internal", e.to_string()))?;
    line(&text)
}

/// The code of an error that is none: whoever read standard output (`| head`) has read enough. The command ends as if
/// it were done, but in order: what runs natively must not be torn down while it works.
pub const CLOSED: &str = "output-closed";

/// Writes a piece of what is beside the answer, dimmed, where somebody watches.
pub fn aside(text: &str) {
    if io::stderr().is_terminal() {
        // Nobody's result depends on it.
        let _ = write!(io::stderr().lock(), "\x1b[2m{text}\x1b[0m");
    }
}

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints text as it is and at once: tokens of a stream.
pub fn piece(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes bytes as they are and at once: sound.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            Err(Error::new(CLOSED, "nobody reads standard output any more"))
        }
        Err(e) => Err(Error::new("io", format!("standard output: {e}"))),
    }
}

/// Logs to standard error: warnings always, more with `-v`, everything with `-vv`; for machines one object a line, with
/// the time.
pub fn start_log(verbose: u8, json: bool) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).without_time().init();
    }
}
