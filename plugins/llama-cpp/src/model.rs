//! A model: weights, hyperparameters and vocabulary.

use std::any::Any;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use crate::device::text;
use crate::log;
use crate::{Device, DeviceKind, Error, Library, Result, sys};

/// How weights come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// The file is mapped: pages are shared with the system's cache and loaded on demand.
    #[default]
    Mapped,
    /// The file is read into memory.
    Read,
    /// None: only the vocabulary and metadata.
    VocabularyOnly,
    /// None, but buffers are laid out as if: for [`Context::memory`](crate::Context::memory).
    Simulated,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct ModelParams {
    /// The devices to use beside the processor; empty for the processor alone.
    pub devices: Vec<Device>,
    /// Layers on those devices; `None` for all.
    pub gpu_layers: Option<u32>,
    /// How weights come into memory.
    pub weights: Weights,
    /// Keeps the weights from being swapped out.
    pub lock: bool,
}

/// How a model's token embeddings become one embedding of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Pooling {
    Mean,
    Cls,
    Last,
}

/// A loaded model. Constant: it may be used from any number of threads at once.
#[derive(Debug)]
pub struct Model {
    handle: *mut sys::llama_model,
    pub(crate) vocab: *const sys::llama_vocab,
    weights: Weights,
    /// LoRA adapters; freed with the model.
    adapters: Vec<*mut sys::llama_adapter_lora>,
}

// SAFETY: after loading llama.cpp only reads the model; its tokenizer is documented as thread-safe.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    /// Loads a model from a file that [`gguf::Header`](crate::gguf::Header) has accepted.
    ///
    /// `progress` gets the fraction done, on the calling thread, and answers whether to go on.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Cancelled`], [`Error::OutOfMemory`].
    pub fn load(
        _library: &Library,
        path: &Path,
        params: &ModelParams,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Self> {
        let c_path = path.to_str().and_then(|p| CString::new(p).ok()).ok_or(Error::Text)?;
        let mut devices: Vec<sys::ggml_backend_dev_t> =
            params.devices.iter().filter(|d| d.kind() == DeviceKind::Gpu).map(|d| d.0).collect();
        let on_gpu = !devices.is_empty();
        devices.push(std::ptr::null_mut());

        // SAFETY: returns a structure of plain values.
        let mut raw = unsafe { sys::llama_model_default_params() };
        raw.devices = devices.as_mut_ptr();
        raw.n_gpu_layers = match (on_gpu, params.gpu_layers) {
            (false, _) => 0,
            (true, None) => -1,
            (true, Some(layers)) => i32::try_from(layers).unwrap_or(i32::MAX),
        };
        raw.load_mode = match (params.weights, params.lock) {
            (Weights::Mapped, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (Weights::Mapped, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            (Weights::Read, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            _ => sys::LLAMA_LOAD_MODE_NONE,
        };
        raw.vocab_only = params.weights == Weights::VocabularyOnly;
        raw.no_alloc = params.weights == Weights::Simulated;
        let mut watcher = Watcher { progress, cancelled: false, panic: None };
        raw.progress_callback = Some(report);
        raw.progress_callback_user_data = (&raw mut watcher).cast();

        // SAFETY: the path, the device list and the watcher outlive the call.
        let (handle, lines) =
            log::capture(|| unsafe { sys::llama_model_load_from_file(c_path.as_ptr(), raw) });
        if let Some(panic) = watcher.panic {
            if !handle.is_null() {
                // SAFETY: loaded just now and used by nobody.
                unsafe { sys::llama_model_free(handle) };
            }
            resume_unwind(panic);
        }
        if handle.is_null() {
            return Err(match () {
                () if watcher.cancelled => Error::Cancelled,
                () if log::out_of_memory(&lines) => Error::OutOfMemory { log: log::reasons(&lines) },
                () => Error::Load { path: path.to_owned(), log: log::reasons(&lines) },
            });
        }
        // SAFETY: the handle is valid, and the vocabulary lives as long as it.
        let vocab = unsafe { sys::llama_model_get_vocab(handle) };
        Ok(Self { handle, vocab, weights: params.weights, adapters: Vec::new() })
    }

    /// Loads a LoRA adapter, small matrices that a context can add to the model's own, from a file that
    /// [`Header::check_adapter`](crate::gguf::Header::check_adapter) has accepted. See
    /// [`Context::set_adapters`](crate::Context::set_adapters).
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::OutOfMemory`].
    pub fn add_adapter(&mut self, path: &Path) -> Result<()> {
        let c_path = path.to_str().and_then(|p| CString::new(p).ok()).ok_or(Error::Text)?;
        // SAFETY: the model is valid, and `&mut self` says that no context reads its list of adapters meanwhile; the
        // path outlives the call, which catches its exceptions.
        let (handle, lines) =
            log::capture(|| unsafe { sys::llama_adapter_lora_init(self.handle, c_path.as_ptr()) });
        if handle.is_null() {
            let log = log::reasons(&lines);
            return Err(match log::out_of_memory(&lines) {
                true => Error::OutOfMemory { log },
                false => Error::Load { path: path.to_owned(), log },
            });
        }
        self.adapters.push(handle);
        Ok(())
    }

    pub(crate) fn adapters(&self) -> &[*mut sys::llama_adapter_lora] {
        &self.adapters
    }

    pub(crate) fn handle(&self) -> *mut sys::llama_model {
        self.handle
    }

    /// How the weights were loaded.
    pub fn weights(&self) -> Weights {
        self.weights
    }

    /// A metadata entry as text; `None` when it does not exist or is an array.
    pub fn metadata_value(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        read_text(|buffer, size| {
            // SAFETY: valid handle, zero-terminated key, a buffer of `size` bytes.
            unsafe { sys::llama_model_meta_val_str(self.handle, key.as_ptr(), buffer, size) }
        })
    }

    /// All metadata entries that are no arrays.
    pub fn metadata(&self) -> Vec<(String, String)> {
        // SAFETY: valid handle.
        let count = unsafe { sys::llama_model_meta_count(self.handle) };
        (0..count)
            .filter_map(|i| {
                // SAFETY: valid handle, an index below the count, a buffer of `size` bytes.
                let key = read_text(|b, size| unsafe {
                    sys::llama_model_meta_key_by_index(self.handle, i, b, size)
                })?;
                // SAFETY: as above.
                let value = read_text(|b, size| unsafe {
                    sys::llama_model_meta_val_str_by_index(self.handle, i, b, size)
                })?;
                Some((key, value))
            })
            .collect()
    }

    /// The default chat template (Jinja).
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: valid handle; a null name asks for the default; the result lives as long as the model.
        let template = unsafe { sys::llama_model_chat_template(self.handle, std::ptr::null()) };
        // SAFETY: null or zero-terminated.
        (!template.is_null()).then(|| unsafe { text(template) })
    }

    /// The pooling the model was made for; `None` when it says nothing, or asks for a ranking.
    pub fn pooling(&self) -> Option<Pooling> {
        let architecture = self.metadata_value("general.architecture")?;
        let number: i32 = self.metadata_value(&format!("{architecture}.pooling_type"))?.parse().ok()?;
        match number {
            sys::LLAMA_POOLING_TYPE_MEAN => Some(Pooling::Mean),
            sys::LLAMA_POOLING_TYPE_CLS => Some(Pooling::Cls),
            sys::LLAMA_POOLING_TYPE_LAST => Some(Pooling::Last),
            _ => None,
        }
    }

    /// Whether the model was made to score pairs of texts: it has a classification head, and its pooling is `rank`.
    pub fn ranks(&self) -> bool {
        let pooling = || {
            let architecture = self.metadata_value("general.architecture")?;
            self.metadata_value(&format!("{architecture}.pooling_type"))?.parse::<i32>().ok()
        };
        pooling() == Some(sys::LLAMA_POOLING_TYPE_RANK)
    }

    /// A chat template by its name, for example `rerank`.
    pub fn template(&self, name: &str) -> Option<String> {
        let name = CString::new(name).ok()?;
        // SAFETY: valid handle, zero-terminated name; the result lives as long as the model.
        let template = unsafe { sys::llama_model_chat_template(self.handle, name.as_ptr()) };
        // SAFETY: null or zero-terminated.
        (!template.is_null()).then(|| unsafe { text(template) })
    }

    /// One line such as `llama 1B Q4_K - Medium`.
    pub fn description(&self) -> String {
        // SAFETY: valid handle, a buffer of `size` bytes.
        read_text(|b, size| unsafe { sys::llama_model_desc(self.handle, b, size) }).unwrap_or_default()
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        // SAFETY: valid handle.
        unsafe { sys::llama_model_n_params(self.handle) }
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        // SAFETY: valid handle.
        unsafe { sys::llama_model_size(self.handle) }
    }

    /// The context the model was trained with, in tokens.
    pub fn context_train(&self) -> u32 {
        // SAFETY: valid handle.
        count(unsafe { sys::llama_model_n_ctx_train(self.handle) })
    }

    /// Length of an embedding that the model gives out.
    pub fn embedding_size(&self) -> u32 {
        // SAFETY: valid handle.
        count(unsafe { sys::llama_model_n_embd_out(self.handle) })
    }

    /// Whether it keeps a state of what it read, in place of or beside a cache of it: a state cannot be rewound.
    pub fn is_recurrent(&self) -> bool {
        // SAFETY: valid handle.
        unsafe { sys::llama_model_is_recurrent(self.handle) || sys::llama_model_is_hybrid(self.handle) }
    }

    /// Width of the sliding window of attention; 0 when there is none.
    pub fn sliding_window(&self) -> u32 {
        // SAFETY: valid handle.
        count(unsafe { sys::llama_model_n_swa(self.handle) })
    }

    /// Whether an encoder has to run before the decoder.
    pub fn has_encoder(&self) -> bool {
        // SAFETY: valid handle.
        unsafe { sys::llama_model_has_encoder(self.handle) }
    }

    /// Whether the model predicts tokens at all.
    pub fn has_decoder(&self) -> bool {
        // SAFETY: valid handle.
        unsafe { sys::llama_model_has_decoder(self.handle) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts hold the model in an `Arc`, so none is left.
        unsafe { sys::llama_model_free(self.handle) };
    }
}

struct Watcher<'a> {
    progress: &'a mut dyn FnMut(f32) -> bool,
    cancelled: bool,
    panic: Option<Box<dyn Any + Send>>,
}

unsafe extern "C" fn report(fraction: f32, watcher: *mut c_void) -> bool {
    // SAFETY: the pointer is the `Watcher` of the load in progress, which runs on this thread.
    let watcher = unsafe { &mut *watcher.cast::<Watcher<'_>>() };
    // A panic must not unwind through C++: it is carried over to the end of the load.
    match catch_unwind(AssertUnwindSafe(|| (watcher.progress)(fraction))) {
        Ok(go_on) => watcher.cancelled |= !go_on,
        Err(panic) => watcher.panic = Some(panic),
    }
    !watcher.cancelled && watcher.panic.is_none()
}

fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

/// Reads a text through llama.cpp's convention: the length is returned, and a buffer too small is filled and cut.
fn read_text(mut call: impl FnMut(*mut std::ffi::c_char, usize) -> i32) -> Option<String> {
    let mut buffer = vec![0u8; 256];
    loop {
        let len = usize::try_from(call(buffer.as_mut_ptr().cast(), buffer.len())).ok()?;
        if len < buffer.len() {
            buffer.truncate(len);
            return Some(String::from_utf8_lossy(&buffer).into_owned());
        }
        buffer.resize(len + 1, 0);
    }
}
