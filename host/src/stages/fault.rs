//! What went wrong in a stage, as an error with a code.

use wasmtime::{Store, Trap};

use super::Limits;
use super::bindings::exports::pajamas::stage::processing as wit;
use super::guest::{Guest, Stop};
use crate::Error;

/// The error of a call that did not return.
pub fn of_call(
    stage: &str,
    doing: &str,
    limits: &Limits,
    store: &Store<Guest>,
    error: &wasmtime::Error,
) -> Error {
    let guest = store.data();
    let at = format!("stage {stage}, {doing}");
    match guest.stopped() {
        Some(Stop::Cancelled) => return pajamas_plugin_api::PluginError::cancelled().into(),
        Some(Stop::Deadline) => {
            return Error::new("stage-deadline", format!("{at}: not done after {:?}", limits.deadline))
                .help("raise the stage's deadline, or send a smaller input");
        }
        None => {}
    }
    if let Some(bytes) = guest.refused_memory() {
        return Error::new(
            "stage-memory",
            format!("{at}: it asked for {bytes} bytes of memory and may have {}", limits.memory),
        )
        .help("raise the stage's memory limit, or send a smaller input");
    }
    let reason = error.root_cause().to_string();
    // The engine's type for this is private; the version is pinned and a test holds the words.
    if reason.contains("fuel allocated for hostcalls") {
        return too_large(stage, limits);
    }
    let reason = match error.downcast_ref::<Trap>() {
        Some(trap) => guest.last_error().map_or_else(|| trap.to_string(), str::to_owned),
        None => reason,
    };
    Error::new("stage-trapped", format!("{at}: {reason}"))
        .help("the host is unharmed; report this input to the author of the stage")
}

/// The error that a stage itself returned, with its name in front.
pub fn of_stage(stage: &str, error: wit::Error) -> Error {
    let kebab = !error.code.is_empty()
        && error.code.len() <= 64
        && error.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let code = if kebab { error.code } else { "stage-failed".into() };
    Error::new(code, error.message).help(error.help).within(format_args!("stage {stage}"))
}

/// A run left more than it may.
pub fn too_large(stage: &str, limits: &Limits) -> Error {
    Error::new(
        "stage-output-too-large",
        format!("stage {stage}: its values are larger than {} bytes", limits.output),
    )
    .help("raise the stage's output limit, or send a smaller input")
}

/// A run left values that it must not leave.
pub fn bad_output(stage: &str, what: impl std::fmt::Display) -> Error {
    Error::new("stage-output-invalid", format!("stage {stage}: {what}"))
        .help("report this to the author of the stage")
}
