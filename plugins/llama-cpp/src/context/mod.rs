//! Computing: a key-value cache, compute buffers, and what came out of the last batch.

mod eval_callback;
mod memory;
mod outputs;
mod params;

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use eval_callback::{Operand, Operation, OperationKind, Rows, Watch};
pub use params::{ContextParams, FlashAttention, KvType};

use crate::memory::{self as buffers, BufferMemory};
use crate::threadpool::Threads;
use crate::{Batch, DeviceKind, Error, Model, Result, Weights, log, sys};

/// How computing a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// All of it was computed.
    Done,
    /// It was stopped by the caller; some of its tokens may be in the cache.
    Aborted,
    /// The cache has no room for it; the cache is unchanged.
    Full,
}

/// A context over a model. Used by one thread at a time.
pub struct Context {
    // Freed by hand before the threads that it computes on.
    handle: *mut sys::llama_context,
    model: Arc<Model>,
    /// Locked while it computes: contexts may share them.
    threads: Arc<Mutex<Threads>>,
    /// Which tokens of the last batch have outputs.
    outputs: Vec<bool>,
    embeddings: bool,
    outputs_max: usize,
    unified: bool,
    rank: bool,
    /// Where who watches is found, when the context was made for that.
    seat: Option<eval_callback::Seat>,
}

// SAFETY: a context has no ties to a thread; `&mut self` keeps use to one at a time.
unsafe impl Send for Context {}

impl Context {
    /// Makes a context. On a simulated model nothing is allocated.
    ///
    /// # Errors
    /// [`Error::VocabularyOnly`], [`Error::OutOfMemory`], [`Error::Context`].
    pub fn new(model: Arc<Model>, params: &ContextParams) -> Result<Self> {
        let pools = match model.weights() {
            Weights::Simulated => Threads::none(),
            _ => Threads::new(params.threads.max(1), params.threads_batch.max(1)),
        };
        Self::on(model, params, Arc::new(Mutex::new(pools)))
    }

    /// Makes a context that computes on the threads of another, by turns: threads that have just computed wait busily
    /// for more, and would stand in the way of others.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn beside(other: &Self, model: Arc<Model>, params: &ContextParams) -> Result<Self> {
        Self::on(model, params, Arc::clone(&other.threads))
    }

    fn on(model: Arc<Model>, params: &ContextParams, threads: Arc<Mutex<Threads>>) -> Result<Self> {
        if model.weights() == Weights::VocabularyOnly {
            return Err(Error::VocabularyOnly);
        }
        // SAFETY: returns a structure of plain values.
        let mut raw = unsafe { sys::llama_context_default_params() };
        raw.n_ctx = params.context_length.max(1);
        raw.n_batch = params.batch_size.max(1);
        raw.n_ubatch = params.micro_batch_size.max(1);
        raw.n_seq_max = params.sequences.max(1);
        raw.n_outputs_max = params.outputs.max(params.sequences).max(1);
        raw.n_threads = params.threads.max(1) as i32;
        raw.n_threads_batch = params.threads_batch.max(1) as i32;
        // Pooling is left to the caller, so that one context serves every kind of it.
        raw.pooling_type = match params.rank {
            true => sys::LLAMA_POOLING_TYPE_RANK,
            false => sys::LLAMA_POOLING_TYPE_NONE,
        };
        raw.flash_attn_type = match params.flash_attention {
            FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        raw.type_k = params.key_type.number();
        raw.type_v = params.value_type.number();
        raw.embeddings = params.embeddings;
        raw.kv_unified = params.unified;
        raw.no_perf = true;
        let seat = params.watched.then(|| {
            let seat;
            (seat, raw.cb_eval, raw.cb_eval_user_data) = eval_callback::seat();
            seat
        });

        // SAFETY: the model is valid, and outlives the context because this type holds it.
        let (handle, lines) = log::capture(|| unsafe { sys::llama_init_from_model(model.handle(), raw) });
        if handle.is_null() {
            let reasons = log::reasons(&lines);
            return Err(if log::out_of_memory(&lines) {
                Error::OutOfMemory { log: reasons }
            } else {
                Error::Context { log: reasons }
            });
        }
        lock(&threads).attach(handle);
        Ok(Self {
            handle,
            threads,
            outputs: Vec::new(),
            embeddings: params.embeddings,
            // llama.cpp replaces the limit for models with an encoder.
            outputs_max: if model.has_encoder() { params.batch_size } else { raw.n_outputs_max } as usize,
            unified: params.unified,
            rank: params.rank,
            seat,
            model,
        })
    }

    /// Computes with the model's adapters, each as strong as its scale; those without one are left out.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn set_adapters(&mut self, scales: &[f32]) -> Result<()> {
        let (mut handles, mut scales): (Vec<_>, Vec<_>) =
            self.model.adapters().iter().copied().zip(scales.iter().copied()).unzip();
        // SAFETY: adapters of this context's model, and lists of the length given, which are copied.
        let status = unsafe {
            pajamas_set_adapters(self.handle, handles.as_mut_ptr(), handles.len(), scales.as_mut_ptr())
        };
        if status == 0 { Ok(()) } else { Err(Error::OutOfMemory { log: String::new() }) }
    }

    pub(crate) fn handle(&mut self) -> *mut sys::llama_context {
        self.handle
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that fit one sequence.
    pub fn sequence_length(&self) -> u32 {
        // SAFETY: valid handle.
        unsafe { sys::llama_n_ctx_seq(self.handle) }
    }

    /// Tokens that fit all sequences together.
    pub fn cache_length(&self) -> u32 {
        // SAFETY: valid handle.
        unsafe { sys::llama_n_ctx(self.handle) }
    }

    /// The most sequences.
    pub fn sequences(&self) -> u32 {
        // SAFETY: valid handle.
        unsafe { sys::llama_n_seq_max(self.handle) }
    }

    /// Whether sequences share the whole cache, rather than having equal parts of it.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// The most tokens in one batch.
    pub fn batch_size(&self) -> u32 {
        // SAFETY: valid handle.
        unsafe { sys::llama_n_batch(self.handle) }
    }

    /// Tokens computed at once.
    pub fn micro_batch_size(&self) -> u32 {
        // SAFETY: valid handle.
        unsafe { sys::llama_n_ubatch(self.handle) }
    }

    /// The most outputs of one batch.
    pub fn outputs_max(&self) -> usize {
        self.outputs_max
    }

    /// Whether each token sees only those before it. Otherwise a text must be computed in one batch.
    pub fn is_causal(&self) -> bool {
        // SAFETY: valid handle.
        unsafe { sys::llama_get_causal_attn(self.handle) }
    }

    /// Whether there is a cache to go on from. Encoders have none.
    pub fn has_cache(&self) -> bool {
        // SAFETY: valid handle.
        !unsafe { sys::llama_get_memory(self.handle) }.is_null()
    }

    /// Whether batches give embeddings; every token of a batch must then be an output.
    pub fn set_embeddings(&mut self, embeddings: bool) {
        if self.embeddings != embeddings {
            // SAFETY: valid handle.
            unsafe { sys::llama_set_embeddings(self.handle, embeddings) };
            self.embeddings = embeddings;
        }
    }

    /// Computes a batch. `abort` is asked between operations, from a compute thread, whether to stop; GPUs finish
    /// the batch they are at.
    ///
    /// # Errors
    /// [`Error::Batch`] when the batch cannot be computed in this context, [`Error::Compute`].
    pub fn decode(&mut self, batch: &mut Batch, abort: &(dyn Fn() -> bool + Sync)) -> Result<Decoded> {
        self.check(batch)?;
        self.outputs.clear();
        self.outputs.extend((0..batch.len()).map(|i| batch.is_output(i)));
        let mut abort = abort;
        let data: *mut c_void = (&raw mut abort).cast();
        let threads = lock(&self.threads);
        // SAFETY: valid handle; the callback is removed again before `abort` goes out of scope.
        let (status, lines) = log::hold(|| unsafe {
            sys::llama_set_abort_callback(self.handle, Some(ask_abort), data);
            let status = pajamas_decode(self.handle, batch.raw());
            // Results are copied out asynchronously: when this returns they can be read.
            sys::llama_synchronize(self.handle);
            sys::llama_set_abort_callback(self.handle, None, std::ptr::null_mut());
            status
        });
        drop(threads);
        if status != 0 {
            self.outputs.clear();
        }
        // That a cache is full or a caller has gone is no trouble worth a warning: the result says it.
        if !matches!(status, 1 | 2) {
            log::pass_on(&lines);
        }
        match status {
            0 => Ok(Decoded::Done),
            1 => Ok(Decoded::Full),
            2 => Ok(Decoded::Aborted),
            -2 if log::out_of_memory(&lines) => Err(Error::OutOfMemory { log: log::reasons(&lines) }),
            status => Err(Error::Compute { status, log: log::reasons(&lines) }),
        }
    }

    /// llama.cpp asserts these.
    fn check(&self, batch: &Batch) -> Result<()> {
        let fail = |what: String| Err(Error::Batch(what));
        if self.model.weights() == Weights::Simulated {
            return fail("a simulated model cannot compute".into());
        }
        let most =
            if self.is_causal() && self.has_cache() { self.batch_size() } else { self.micro_batch_size() };
        if batch.is_empty() || batch.len() > most as usize {
            return fail(format!("a batch of {} tokens: 1 to {most} can be computed", batch.len()));
        }
        if batch.output_count() > self.outputs_max {
            return fail(format!(
                "{} outputs in one batch: at most {}",
                batch.output_count(),
                self.outputs_max
            ));
        }
        if self.embeddings && batch.output_count() != batch.len() {
            return fail("for embeddings every token of a batch must be an output".into());
        }
        let vocab = self.model.vocab_size();
        if let Some(token) = batch.tokens().iter().find(|t| !(0..vocab).contains(*t)) {
            return Err(Error::UnknownToken { token: i64::from(*token), size: vocab });
        }
        let sequences = self.sequences();
        if let Some(sequence) = batch.sequences().iter().find(|s| **s < 0 || **s as u32 >= sequences) {
            return fail(format!("sequence {sequence}: the context has {sequences}"));
        }
        Ok(())
    }

    /// What the context and its model hold; on a simulated model, what they would.
    pub fn memory(&self) -> Vec<BufferMemory> {
        // SAFETY: valid handle, borrowed from the one thread that has the context.
        unsafe { buffers::breakdown(self.handle) }
    }

    /// Whether any of the context's buffers is on a GPU.
    pub fn uses_gpu(&self) -> bool {
        self.memory().iter().any(|m| m.device.is_some_and(|d| d.kind() == DeviceKind::Gpu))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: created by `new` and freed once; the pools and the model are dropped after this.
        unsafe { sys::llama_free(self.handle) };
    }
}

/// Threads are what they are, also after a panic.
fn lock(threads: &Mutex<Threads>) -> MutexGuard<'_, Threads> {
    threads.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" {
    /// `llama_decode` without exceptions: defined in `shim.cpp`.
    fn pajamas_decode(context: *mut sys::llama_context, batch: sys::llama_batch) -> i32;
    /// The same of `llama_set_adapters_lora`.
    fn pajamas_set_adapters(
        context: *mut sys::llama_context,
        adapters: *mut *mut sys::llama_adapter_lora,
        count: usize,
        scales: *mut f32,
    ) -> i32;
}

unsafe extern "C" fn ask_abort(data: *mut c_void) -> bool {
    // SAFETY: `decode` passes a pointer to a reference that lives for the call.
    let abort = unsafe { *data.cast::<&(dyn Fn() -> bool + Sync)>() };
    // A panic must not unwind through C: it stops the batch.
    catch_unwind(AssertUnwindSafe(abort)).unwrap_or(true)
}
