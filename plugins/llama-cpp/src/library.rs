//! Loading ggml's compute libraries.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::device::text;
use crate::log::{self, Level, Line};
use crate::{Device, DeviceKind, Error, Result, sys};

/// llama.cpp, ready for use: the compute libraries are loaded.
///
/// One per process, never unloaded: ggml's libraries keep threads and driver state that cannot be taken back.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    variant: Option<String>,
}

static LOADED: Mutex<Option<&'static Library>> = Mutex::new(None);

impl Library {
    /// Loads the libraries of `folder`: of the CPU variants the best for this processor, and whatever GPU libraries
    /// lie beside them. Nothing is looked for elsewhere, while ggml left to itself also searches the current folder;
    /// only the environment variable `GGML_BACKEND_PATH` adds one library, which is the operator's business.
    ///
    /// The first success decides for the process; later calls with an existing folder return it. `log` receives
    /// llama.cpp's messages from then on, from any thread.
    ///
    /// # Errors
    /// [`Error::LibraryFolder`], [`Error::NoCpuLibrary`]; a later call may succeed.
    pub fn open(
        folder: &Path,
        log: impl Fn(Level, &str) + Send + Sync + 'static,
    ) -> Result<&'static Library> {
        if !folder.is_dir() {
            return Err(Error::LibraryFolder { path: folder.to_owned() });
        }
        let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(library) = *loaded {
            return Ok(library);
        }
        let c_folder = folder.to_str().and_then(|f| CString::new(f).ok()).ok_or(Error::Text)?;
        log::install(log);
        let mut lines = Vec::new();
        // Another plugin of this process may have loaded them: libraries of one name are shared.
        if cpu_registry().is_null() {
            // SAFETY: a valid path; ggml itself opens only files named like its own libraries in that folder.
            lines = log::capture(|| unsafe { sys::ggml_backend_load_all_from_path(c_folder.as_ptr()) }).1;
        }
        if cpu_registry().is_null() {
            return Err(Error::NoCpuLibrary { path: folder.to_owned(), log: log::reasons(&lines) });
        }
        // SAFETY: the compute libraries are loaded, which is all it asks for.
        unsafe { sys::llama_backend_init() };
        let library: &'static Library =
            Box::leak(Box::new(Library { folder: folder.to_owned(), variant: variant(&lines) }));
        *loaded = Some(library);
        Ok(library)
    }

    /// The folder the libraries came from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Version of llama.cpp.
    pub fn version(&self) -> String {
        // SAFETY: returns a constant string.
        unsafe { text(sys::llama_version()) }
    }

    /// The CPU variant that was chosen, for example `sapphirerapids`; `None` when another plugin chose it.
    pub fn cpu_variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// The processor features that the chosen variant uses, for example `AVX512`, `AMX_INT8`.
    pub fn cpu_features(&self) -> Vec<String> {
        // SAFETY: the CPU library is loaded; by ggml's contract this name yields a function of this type, whose
        // result is an array that ends with a null name.
        unsafe {
            let registry = cpu_registry();
            let address =
                sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_get_features".as_ptr());
            let Some(features) =
                std::mem::transmute::<*mut std::ffi::c_void, sys::ggml_backend_get_features_t>(address)
            else {
                return Vec::new();
            };
            let mut names = Vec::new();
            let mut feature = features(registry);
            while !feature.is_null() && !(*feature).name.is_null() {
                if text((*feature).value) == "1" {
                    names.push(text((*feature).name));
                }
                feature = feature.add(1);
            }
            names
        }
    }

    /// The devices on offer, graphics processors first. Listing them creates no context on any.
    pub fn devices(&self) -> Vec<Device> {
        let mut devices: Vec<Device> =
            Device::all().into_iter().filter(|d| d.kind() != DeviceKind::Accelerator).collect();
        devices.sort_by_key(|d| d.kind() == DeviceKind::Cpu);
        devices
    }

    /// The device of this id.
    pub fn device(&self, id: &str) -> Option<Device> {
        self.devices().into_iter().find(|d| d.id() == id)
    }
}

/// The registry entry of the loaded CPU library, or null.
pub(crate) fn cpu_registry() -> sys::ggml_backend_reg_t {
    // SAFETY: a constant name.
    unsafe { sys::ggml_backend_reg_by_name(c"CPU".as_ptr()) }
}

/// Reads the chosen variant out of `load_backend: loaded CPU backend from …/libggml-cpu-haswell.so`.
fn variant(lines: &[Line]) -> Option<String> {
    lines.iter().find_map(|line| {
        let (_, path) = line.text.split_once("loaded CPU backend from ")?;
        let stem = Path::new(path).file_stem()?.to_str()?;
        stem.rsplit_once("ggml-cpu-").map(|(_, variant)| variant.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_is_read_from_the_log() {
        let line = |text: &str| Line { level: Level::Info, text: text.into() };
        let lines = [line("x"), line("load_backend: loaded CPU backend from /a b/libggml-cpu-haswell.so")];
        assert_eq!(variant(&lines).as_deref(), Some("haswell"));
        assert_eq!(variant(&lines[..1]), None);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = Library::open(Path::new("/nowhere/llama"), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("/nowhere/llama"), "{error}");
    }
}
