//! The words, and what goes wrong in more than one place.

use std::path::Path;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

/// Every word a model may hold, and a source.
const WORDS: &[&str] = &[
    "good",
    "load-panic",
    "load-hang",
    "load-deaf",
    "load-fail",
    "load-abort",
    "signature-panic",
    "leak",
    "drop-panic",
    "infer-panic",
    "infer-abort",
    "infer-deaf",
    "infer-wrong-shape",
    "infer-wrong-type",
    "infer-surplus",
    "infer-nothing",
    "infer-too-much",
    "infer-misuse",
    "generate-panic",
    "generate-abort",
    "generate-abort-late",
    "generate-hang",
    "generate-deaf",
    "generate-babble",
    "generate-flood",
    "generate-lie",
    // What embeds does not infer: otherwise the host would want a pipeline for it.
    "embed-good",
    "embed-panic",
    "embed-deaf",
    "embed-stubborn",
    "embed-wrong-shape",
    "embed-wrong-type",
    "embed-nothing",
    "extension-panic",
    "extension-any",
    "extension-obliging",
    "extension-broken",
    "slots-kept",
    "slots-miscounted",
    "plan-panic",
    "plan-fickle",
    "plan-nothing",
    "plan-elsewhere",
    "plan-writes",
    "plan-anything",
    "plan-leak",
    "run-panic",
    "run-other-size",
    "run-surplus",
    "run-backwards",
    "run-sums",
    "run-replaces",
    "run-deaf",
    "run-stubborn",
    "run-half",
    // Half of it is `cut-`, at which the quantizer panics.
    "cut-down",
];

/// The word at a path.
pub fn word(path: &Path) -> Result<&'static str> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let code = if missing { codes::MODEL_NOT_FOUND } else { codes::MODEL_INVALID };
        PluginError::new(code, format!("{}: {e}", path.display()))
    })?;
    WORDS.iter().copied().find(|w| *w == text.trim()).ok_or_else(|| {
        PluginError::new(codes::MODEL_INVALID, format!("{}: no word of trouble", path.display()))
    })
}

/// Spins until a file beside the model says to go on: deaf to the cancel flag, yet bounded.
pub fn deaf(model: &Path) {
    let go = model.with_extension("go");
    let end = Instant::now() + Duration::from_secs(20);
    while !go.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process, as an assertion in C++ does.
pub fn abort() -> ! {
    eprintln!("GGML_ASSERT(told to abort) failed");
    std::process::abort()
}

/// Waits for the cancel flag, as a long computation that tests it does.
pub fn hang(cancel: &Cancel) -> PluginError {
    while !cancel.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    PluginError::cancelled()
}
