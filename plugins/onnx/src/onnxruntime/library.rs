//! The one ONNX Runtime of the process: found, opened, started.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;
use ort::environment::Environment;
use ort::logging::LogLevel;
use pajamas_plugin_api::{HostContext, Level};

use super::search::Surroundings;

/// The oldest minor version of ONNX Runtime 1 that has all we call: the `api-24` feature of `ort`.
const OLDEST_MINOR: u32 = 24;

/// A started ONNX Runtime. There is at most one per process, and it lives as long: its threads and the state of its
/// providers do not survive being unloaded.
pub(super) struct Runtime {
    pub(super) environment: Environment,
    /// The file, or the name under which the loader found it.
    pub(super) path: PathBuf,
    pub(super) version: String,
    /// The execution providers compiled into it, by ONNX Runtime's names.
    pub(super) providers: Vec<String>,
}

/// Why there is none: every place that was tried, with what was wrong there.
#[derive(Debug, Clone)]
pub(super) struct Tried(Vec<(String, Vec<String>)>);

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (place, faults)) in self.0.iter().enumerate() {
            let what = if faults.is_empty() { "nothing there".to_owned() } else { faults.join("; ") };
            write!(f, "{}{place}: {what}", if index == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The process's ONNX Runtime. The first call that finds a library decides; until then each call searches again, so
/// that a library installed meanwhile is found.
pub(super) fn runtime(host: &HostContext, surroundings: &Surroundings) -> Result<&'static Runtime, Tried> {
    static SEARCHING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = SEARCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut tried = Vec::new();
    for place in surroundings.places() {
        let mut faults = Vec::new();
        for path in &place.libraries {
            match start(path, host) {
                Ok(runtime) => return Ok(RUNTIME.get_or_init(|| runtime)),
                Err(fault) => faults.push(fault),
            }
        }
        tried.push((place.what, faults));
    }
    Err(Tried(tried))
}

/// Opens and starts the library at `path`.
fn start(path: &Path, host: &HostContext) -> Result<Runtime, String> {
    let version = version(path)?;
    let builder = ort::init_from(path).map_err(|e| chain(&e))?;
    let host = host.clone();
    let environment = builder
        .with_name("pajamas")
        .with_telemetry(false)
        .with_logger(Arc::new(move |level, _category, _id, place, message| {
            host.log(severity(level), format!("onnxruntime: {message} ({place})"));
        }))
        .build()
        .map_err(|e| format!("{} does not start: {e}", path.display()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(Runtime { environment, path: path.to_path_buf(), version, providers: providers() })
}

fn severity(level: LogLevel) -> Level {
    match level {
        LogLevel::Verbose | LogLevel::Info => Level::Debug,
        LogLevel::Warning => Level::Warn,
        LogLevel::Error | LogLevel::Fatal => Level::Error,
    }
}

/// The version of the library at `path`, once it is open and known to be new enough.
///
/// The library stays open whatever the answer: closing a runtime with live threads is not safe.
fn version(path: &Path) -> Result<String, String> {
    static OPENED: Mutex<BTreeMap<PathBuf, Result<String, String>>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Ok(version)) = opened.get(path) {
        return Ok(version.clone());
    }
    // SAFETY: opening a library runs its constructors. This one was named by the operator, or lies where only the
    // operator installs software: it is trusted like the plugin itself.
    let library = unsafe { Library::new(path) }.map_err(|e| chain(&e))?;
    let version = ask_version(&library).ok_or_else(|| format!("{} is no ONNX Runtime", path.display()));
    std::mem::forget(library);
    opened.insert(path.to_path_buf(), version.clone());
    let version = version?;
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(1), Some(minor)) if minor >= OLDEST_MINOR => Ok(version),
        _ => Err(format!("{} is version {version}; 1.{OLDEST_MINOR} or newer is needed", path.display())),
    }
}

fn ask_version(library: &Library) -> Option<String> {
    // SAFETY: every ONNX Runtime exports this function with this signature, and has since 1.0.
    let base = unsafe {
        library.get::<unsafe extern "system" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")
    };
    // SAFETY: the function takes nothing and returns a pointer to a static, or null.
    let base = unsafe { base.ok()?().as_ref() }?;
    // SAFETY: the table's function returns a static, zero-terminated string.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) };
    version.to_str().ok().map(str::to_owned)
}

/// The providers compiled into the runtime that has been started.
fn providers() -> Vec<String> {
    let api = ort::api();
    let (mut names, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: both out-pointers are valid for the call.
    let status = unsafe { (api.GetAvailableProviders)(&mut names, &mut count) };
    // SAFETY: the status comes straight from the runtime and is used once.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || names.is_null() {
        return Vec::new();
    }
    let length = usize::try_from(count).unwrap_or(0);
    // SAFETY: on success `names` points to `count` zero-terminated strings, valid until they are released below.
    let list = unsafe { std::slice::from_raw_parts(names, length) }
        .iter()
        .map(|name| {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(*name) }.to_string_lossy().into_owned()
        })
        .collect();
    // SAFETY: the array came from `GetAvailableProviders` with this count, and is released once.
    let released = unsafe { (api.ReleaseAvailableProviders)(names, count) };
    // SAFETY: the status comes straight from the runtime and is used once; a failed release has no consequence.
    let _ = unsafe { ort::Error::result_from_status(released) };
    list
}

/// An error with its causes: the loader's own words are the innermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_library_is_reported_with_the_loaders_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so.1.31.1");
        std::fs::write(&path, "not a library").unwrap();
        let host = HostContext::for_tests(dir.path());
        // Other tests of this process may have started a runtime already: then there is nothing left to refuse.
        let surroundings = Surroundings { configured: Some(path.clone()), ..Surroundings::default() };
        if let Err(tried) = runtime(&host, &surroundings) {
            let text = tried.to_string();
            assert!(text.contains("the plugin's setting `onnxruntime`"), "{text}");
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        }
        assert!(version(&path).unwrap_err().contains("libonnxruntime.so.1.31.1"));
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("file too short");
        let outer = ort_like(inner);
        assert_eq!(chain(&outer), "dlopen failed: file too short");
    }

    fn ort_like(source: std::io::Error) -> impl std::error::Error {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("dlopen failed")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        Outer(source)
    }
}
