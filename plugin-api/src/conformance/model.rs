//! Checks with a model: loading, refusing to load, what a session says of itself, and whether it gives back.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::backend::load;
use super::runner::{Finding, Runner, fault, is_fault, passed, refused, refused_somehow, skipped, within};
use super::scratch::{Scratch, copy_halved};
use super::sink::orderly;
use super::{extension, infer, sleep, slots, text};
use crate::host::LoadedBackend;
use crate::{
    Backend, BackendInfo, Cancel, InferRequest, LoadRequest, Memory, Prompt, Session, Signature, capability,
    codes,
};

/// A session with what checks need to know of it.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) session: Arc<dyn Session>,
    pub(super) signature: Arc<Signature>,
}

impl Subject {
    fn new(session: Box<dyn Session>) -> Self {
        let signature = Arc::new(session.signature());
        Self { session: Arc::from(session), signature }
    }

    pub(super) fn can(&self, capability: &str) -> bool {
        self.signature.capabilities.iter().any(|c| c == capability)
    }
}

/// The format under which a backend takes a model file: its extension.
pub(super) fn format_for(info: &BackendInfo, model: &Path) -> Option<String> {
    let extension = model.extension()?.to_string_lossy().to_lowercase();
    info.formats.iter().find(|f| **f == extension).cloned()
}

/// All checks of one backend with one model.
pub(super) fn check(runner: &mut Runner, loaded: &LoadedBackend, path: &Path, format: &str) {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    runner.subject(format!("backend {}, model {file}", loaded.info.id));
    let request = LoadRequest {
        path: path.to_path_buf(),
        format: format.into(),
        device: String::new(),
        options: serde_json::Value::Null,
    };
    refusals(runner, &loaded.backend, &request);

    let (backend, wanted, patience) = (Arc::clone(&loaded.backend), request.clone(), runner.options.deadline);
    let opened = within(patience, move || load(&*backend, &wanted, &Cancel::new()));
    let subject = match opened {
        Some(Ok(session)) => Some(Subject::new(session)),
        Some(Err(error)) => {
            runner.run("loads", move || Err(error.to_string()));
            None
        }
        None => {
            runner.run("loads", || Err("loading has not returned in time".into()));
            None
        }
    };
    let Some(subject) = subject else { return };
    let (backend, wanted) = (Arc::clone(&loaded.backend), request.clone());
    runner.run("loads and reports progress", move || progress(&*backend, &wanted));
    let (a, info) = (subject.clone(), loaded.info.clone());
    runner.run("has a sound signature", move || signature(&a.signature, &info));
    let (backend, wanted, first) = (Arc::clone(&loaded.backend), request.clone(), subject.clone());
    runner.run("loads twice alike, at the same time", move || {
        let second = load(&*backend, &wanted, &Cancel::new()).map_err(fault("the second load"))?;
        match second.signature() == *first.signature && first.session.signature() == *first.signature {
            true => passed(""),
            false => Err("the signature differs from load to load, or from call to call".into()),
        }
    });
    let (backend, wanted, a) = (Arc::clone(&loaded.backend), request.clone(), subject.clone());
    runner.run("uses the memory it estimated", move || memory(&*backend, &wanted, &a));
    let a = subject.clone();
    runner.run("refuses what it does not offer", move || unsupported(&a));
    let a = subject.clone();
    extension::check(runner, extension::OF_SESSIONS, move |name| a.session.extension(name));
    infer::check(runner, &subject);
    text::check(runner, &subject);
    sleep::check(runner, &subject);
    slots::check(runner, &subject);
    runner.run("unloads", move || {
        drop(subject);
        passed("")
    });

    let (backend, cycles) = (Arc::clone(&loaded.backend), runner.options.cycles);
    runner.run("gives its memory back", move || leaks(&*backend, &request, cycles));
}

/// Loads that must not succeed.
fn refusals(runner: &mut Runner, backend: &Arc<dyn Backend>, request: &LoadRequest) {
    let variant = |change: fn(&mut LoadRequest)| {
        let mut request = request.clone();
        change(&mut request);
        (Arc::clone(backend), request)
    };
    let (b, unknown) = variant(|r| r.options = json!({"no-such-option": 1}));
    runner.run("refuses an unknown option", move || {
        refused(b.estimate(&unknown), &[codes::INVALID_OPTION]).map_err(|e| format!("estimate: {e}"))?;
        refused(load(&*b, &unknown, &Cancel::new()), &[codes::INVALID_OPTION])
    });
    let (b, elsewhere) = variant(|r| r.device = "no-such-device:7".into());
    runner.run("refuses an unknown device", move || refused_somehow(load(&*b, &elsewhere, &Cancel::new())));
    let (b, same) = variant(|_| ());
    runner.run("does not load once cancelled", move || {
        let cancel = Cancel::new();
        cancel.cancel();
        refused(load(&*b, &same, &cancel), &[codes::CANCELLED])
    });
    let (b, same) = variant(|_| ());
    runner.run("stops loading when progress says so", move || {
        let mut reports = 0;
        let mut stop = |_: f32, _: &str| {
            reports += 1;
            ControlFlow::Break(())
        };
        let result = b.load(&same, &mut stop, &Cancel::new());
        match reports {
            0 => skipped("loading this model reports no progress"),
            _ => refused(result, &[codes::CANCELLED]),
        }
    });
    let (b, whole) = variant(|_| ());
    runner.run("survives a model cut in half", move || truncated(&*b, &whole));
}

/// Half a file may still be a model (of text, say), but must not end in a panic.
fn truncated(backend: &dyn Backend, whole: &LoadRequest) -> Finding {
    const MOST: u64 = 256 << 20;
    let problem = |e: std::io::Error| format!("{}: {e}", whole.path.display());
    let size = std::fs::metadata(&whole.path).map_err(problem)?.len();
    if size > 2 * MOST {
        return skipped(format!("the model is too large to copy half of it ({size} bytes)"));
    }
    let folder = Scratch::new()?;
    let path = folder.0.join(format!("half.{}", whole.format));
    copy_halved(&whole.path, &path).map_err(problem)?;
    match load(backend, &LoadRequest { path, ..whole.clone() }, &Cancel::new()) {
        Ok(_) => passed("half of it is a model too"),
        Err(error) if is_fault(&error) => Err(error.to_string()),
        Err(error) => passed(error.to_string()),
    }
}

fn progress(backend: &dyn Backend, request: &LoadRequest) -> Finding {
    let mut reports: Vec<f32> = Vec::new();
    let mut listen = |fraction: f32, _: &str| {
        reports.push(fraction);
        ControlFlow::Continue(())
    };
    backend.load(request, &mut listen, &Cancel::new()).map_err(fault("load"))?;
    orderly(&reports)?;
    passed(format!("{} report(s)", reports.len()))
}

fn signature(signature: &Signature, info: &BackendInfo) -> Finding {
    if signature.capabilities.is_empty() {
        return Err("the session can do nothing".into());
    }
    if let Some(surprise) = signature.capabilities.iter().find(|c| !info.capabilities.contains(c)) {
        return Err(format!("the session offers `{surprise}`, which the backend does not name"));
    }
    let can = |capability: &str| signature.capabilities.iter().any(|c| c == capability);
    if can(capability::INFER) && signature.outputs.is_empty() {
        return Err("it infers, but has no outputs".into());
    }
    for ports in [&signature.inputs, &signature.outputs] {
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].iter().any(|earlier| earlier.name == port.name) {
                return Err(format!("`{}` appears twice", port.name));
            }
        }
    }
    match &signature.text {
        None if can(capability::GENERATE) => return Err("it generates, but has no `text`".into()),
        Some(text) if text.vocab_size == 0 || text.context_length == 0 => {
            return Err("`vocab_size` or `context_length` is 0".into());
        }
        _ => {}
    }
    passed(signature.capabilities.join(", "))
}

/// Bytes on all devices together.
pub(super) fn total(memory: &[Memory]) -> u64 {
    memory.iter().map(Memory::total).sum()
}

/// Whether one number of bytes is off the other by more than 10 %, and a little that nobody counts.
pub(super) fn is_off(one: u64, other: u64) -> bool {
    const NOISE: u64 = 1 << 20;
    one.abs_diff(other) > other / 10 + NOISE
}

fn memory(backend: &dyn Backend, request: &LoadRequest, subject: &Subject) -> Finding {
    let estimated = total(&backend.estimate(request).map_err(fault("estimate"))?);
    let used = total(&subject.session.usage());
    if is_off(estimated, used) {
        return Err(format!("{estimated} bytes estimated, {used} used: more than 10 % apart"));
    }
    passed(format!("{estimated} bytes estimated, {used} used"))
}

fn unsupported(subject: &Subject) -> Finding {
    let (session, cancel) = (&subject.session, Cancel::new());
    let mut tensors = super::sink::Tensors::new(0);
    let refuses = |capability: &str, result: crate::Result<()>| {
        refused(result, &[codes::UNSUPPORTED]).map_err(|e| format!("{capability}: {e}"))
    };
    if !subject.can(capability::INFER) {
        let result = session.infer(&InferRequest::default(), &[], &mut tensors, &cancel);
        refuses(capability::INFER, result)?;
    }
    if !subject.can(capability::GENERATE) {
        let result = session.generate(&text::request(Prompt::text("a")), &mut text::sink(), &cancel);
        refuses(capability::GENERATE, result.map(drop))?;
    }
    if !subject.can(capability::EMBED) {
        let request = crate::EmbedRequest { inputs: Vec::new(), pooling: None, normalize: false };
        refuses(capability::EMBED, session.embed(&request, &mut tensors, &cancel).map(drop))?;
    }
    if !subject.can(capability::TOKENIZE) {
        refuses(capability::TOKENIZE, session.tokenize(&Prompt::text("a")).map(drop))?;
        refuses(capability::TOKENIZE, session.detokenize(&[0]).map(drop))?;
    }
    passed("")
}

/// Loads and unloads; the process must not grow by more than a little.
fn leaks(backend: &dyn Backend, request: &LoadRequest, cycles: u32) -> Finding {
    growth("loads", cycles, || {
        let session = load(backend, request, &Cancel::new()).map_err(fault("load"))?;
        Ok(total(&session.usage()))
    })
}

/// Repeats what says how many bytes it needs; the process must not grow by more than a little.
pub(super) fn growth(
    what: &str,
    cycles: u32,
    cycle: impl Fn() -> std::result::Result<u64, String>,
) -> Finding {
    const NOISE: u64 = 16 << 20;
    // Allocators and runtimes keep what the first rounds needed.
    cycle()?;
    let used = cycle()?;
    let before = resident();
    for _ in 0..cycles {
        cycle()?;
    }
    let (Some(before), Some(after)) = (before, resident()) else {
        return skipped(format!("{cycles} {what}; resident memory is only measured on Linux"));
    };
    let grown = after.saturating_sub(before);
    if grown > NOISE + used / 10 {
        return Err(format!("the process grew by {grown} bytes over {cycles} {what} of {used} bytes"));
    }
    passed(format!("the process grew by {grown} bytes over {cycles} {what}"))
}

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // The page size is 4 KiB on every Linux that shows this file, except for some ARM and POWER systems, where it
    // is larger: there, this reads too low and the check is merely lenient.
    Some(pages * 4096)
}
