//! llama.cpp explains failures only in its log: this catches the lines of one call, and forwards the rest.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::sys;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// A line of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub level: Level,
    pub text: String,
}

type Forward = Box<dyn Fn(Level, &str) + Send + Sync>;

static FORWARD: OnceLock<Forward> = OnceLock::new();

thread_local! {
    /// The lines of the call in progress on this thread; llama.cpp logs on the thread that called it.
    static CAPTURED: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
    /// Whether captured lines are kept from the log until [`pass_on`].
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Takes llama.cpp's log, once per process; later calls keep the first receiver.
pub(crate) fn install(forward: impl Fn(Level, &str) + Send + Sync + 'static) {
    let _ = FORWARD.set(Box::new(forward));
    claim();
}

/// Makes this the receiver, if it is not. llama.cpp has one for the process, and another plugin with a copy of this
/// code may have claimed it.
fn claim() {
    let (mut current, mut data): (sys::ggml_log_callback, *mut c_void) = (None, std::ptr::null_mut());
    // SAFETY: both pointers are valid; `receive` lives as long as the process and uses no user data.
    unsafe {
        sys::llama_log_get(&mut current, &mut data);
        if current.map(|f| f as usize) != Some(receive as *const () as usize) {
            sys::llama_log_set(Some(receive), std::ptr::null_mut());
        }
    }
}

/// Runs `f` and returns the lines logged meanwhile on this thread. Not for nesting.
pub(crate) fn capture<T>(f: impl FnOnce() -> T) -> (T, Vec<Line>) {
    claim();
    CAPTURED.with_borrow_mut(|c| *c = Some(Vec::new()));
    let result = f();
    (result, CAPTURED.take().unwrap_or_default())
}

/// As [`capture`] for what fails as a matter of course, such as a computation that is aborted: nothing is logged before
/// [`pass_on`].
pub(crate) fn hold<T>(f: impl FnOnce() -> T) -> (T, Vec<Line>) {
    HELD.set(true);
    let captured = capture(f);
    HELD.set(false);
    captured
}

/// Logs lines that were held.
pub(crate) fn pass_on(lines: &[Line]) {
    if let Some(forward) = FORWARD.get() {
        lines.iter().for_each(|line| forward(line.level, &line.text));
    }
}

/// The reasons among captured lines, without the name of the C++ function that logged each.
pub(crate) fn reasons(lines: &[Line]) -> String {
    let worst = lines.iter().map(|l| l.level).max().filter(|l| *l >= Level::Warn);
    let mut texts: Vec<&str> = lines
        .iter()
        .filter(|l| Some(l.level) == worst)
        .map(|l| l.text.split_once(": ").map_or(l.text.as_str(), |(_, rest)| rest).trim())
        .filter(|t| !t.is_empty() && *t != "failed to load model")
        .collect();
    texts.dedup();
    texts.truncate(4);
    texts.join("; ")
}

/// Whether captured lines tell of memory that could not be had.
pub(crate) fn out_of_memory(lines: &[Line]) -> bool {
    lines.iter().any(|l| {
        l.level >= Level::Warn
            && ["failed to allocate", "unable to allocate", "out of memory", "bad_alloc"]
                .iter()
                .any(|sign| l.text.contains(sign))
    })
}

unsafe extern "C" fn receive(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml hands over a zero-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let level = match level {
        sys::GGML_LOG_LEVEL_ERROR => Level::Error,
        sys::GGML_LOG_LEVEL_WARN => Level::Warn,
        sys::GGML_LOG_LEVEL_INFO => Level::Info,
        // Among them the dots of a progress bar, which llama.cpp prints as continued lines.
        _ => Level::Debug,
    };
    let line = text.trim_end();
    if line.is_empty() || line == "." {
        return;
    }
    // A panic must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        CAPTURED.with_borrow_mut(|captured| {
            if let Some(lines) = captured {
                lines.push(Line { level, text: line.to_owned() });
            }
        });
        if let Some(forward) = FORWARD.get().filter(|_| !HELD.get()) {
            forward(level, line);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, text: &str) -> Line {
        Line { level, text: text.into() }
    }

    #[test]
    fn reasons_are_the_gravest_lines_without_function_names() {
        let lines = [
            line(Level::Info, "load: reading"),
            line(Level::Error, "llama_model_load: error loading model: missing tensor 'token_embd.weight'"),
            line(Level::Error, "llama_model_load_from_file_impl: failed to load model"),
        ];
        assert_eq!(reasons(&lines), "error loading model: missing tensor 'token_embd.weight'");
        assert_eq!(reasons(&lines[..1]), "");
    }

    #[test]
    fn memory_trouble_is_recognised() {
        assert!(out_of_memory(&[line(Level::Error, "x: failed to allocate buffer of size 12")]));
        assert!(!out_of_memory(&[line(Level::Info, "x: out of memory is unlikely")]));
    }
}
