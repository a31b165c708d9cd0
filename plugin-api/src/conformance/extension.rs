//! Checks of extensions: none goes by a name that nobody has, and those that are there refuse nonsense.
//!
//! A plugin does not list its extensions: every documented name is asked for, and names of a third party's own are not
//! known here.

use super::runner::{Finding, Runner, passed};
use crate::extension::{NoEvents, NoTensors};
use crate::{
    Cancel, DType, ENGINE_STATS, Extension, NamedTensor, Result, SLEEP, SLOTS, SUMS, TensorView, as_bytes,
    codes,
};

/// A name that no extension has.
const NOBODYS: &str = "pajamas.no-such-extension/1";

/// What backends may offer.
pub(super) const OF_BACKENDS: &[&str] = &["pajamas.fitness/1"];
/// What sessions may offer.
pub(super) const OF_SESSIONS: &[&str] =
    &[SLEEP, SLOTS, ENGINE_STATS, "pajamas.transcribe/1", "pajamas.chat/1"];
/// What quantizers may offer.
pub(super) const OF_QUANTIZERS: &[&str] =
    &[SUMS, "pajamas.describe/1", "pajamas.calibrate/1", "pajamas.evaluate/1"];

/// What is no call of any extension.
const NONSENSE: [&[u8]; 9] = [
    b"",
    b"\xff\xfe\x00 no text",
    b"{",
    b"{}",
    b"[]",
    b"null",
    b"-1e999",
    b"\"text\"",
    br#"{"do": "no-such-thing", "source": 7, "path": [], "prompt": "text", "messages": {}}"#,
];

/// Asks for each name. Whoever offers extensions is asked through `find`.
pub(super) fn check(
    runner: &mut Runner,
    names: &'static [&'static str],
    find: impl Fn(&str) -> Option<Box<dyn Extension>> + Clone + Send + 'static,
) {
    let nobodys = find.clone();
    runner.run("knows no extension of a nonsense name", move || match nobodys(NOBODYS) {
        None => passed(""),
        Some(_) => Err("it offers an extension that does not exist".into()),
    });
    let mut offered = Vec::new();
    for name in names {
        // Asking may take as long as any call.
        if let Some(Some(extension)) = super::runner::within(runner.options.deadline, {
            let find = find.clone();
            move || find(name)
        }) {
            offered.push((*name, extension));
        }
    }
    if offered.is_empty() {
        runner.skip("its extensions refuse nonsense", &format!("it offers none of {}", names.join(", ")));
    }
    for (name, extension) in offered {
        runner.run(&format!("{name} refuses nonsense"), move || refuses(name, &*extension));
    }
}

fn refuses(name: &str, extension: &dyn Extension) -> Finding {
    let mut last = String::new();
    for input in NONSENSE {
        let words = String::from_utf8_lossy(input);
        for tensors in [false, true] {
            match call(extension, input, tensors) {
                // Its input has no meaning, so that none is wrong.
                Ok(_) if name == ENGINE_STATS => {}
                Ok(_) => return Err(format!("{words:?} succeeded; an error was expected")),
                Err(error) if [codes::PANICKED, codes::SESSION_POISONED].contains(&error.code.as_str()) => {
                    return Err(format!("{words:?}: {error}"));
                }
                Err(error) => last = error.to_string(),
            }
        }
    }
    passed(last)
}

fn call(extension: &dyn Extension, input: &[u8], with_tensor: bool) -> Result<Vec<u8>> {
    let numbers = [0.0f32; 2];
    let tensor =
        NamedTensor { name: "mel", tensor: TensorView::new(DType::F32, &[2, 1], as_bytes(&numbers))? };
    let tensors = if with_tensor { &[tensor][..] } else { &[] };
    extension.call(input, tensors, &mut NoEvents, &mut NoTensors, &Cancel::new())
}
