//! Threads that stay alive between batches; without them ggml starts and joins threads for every token.

use std::ffi::{CStr, c_void};

use crate::library::cpu_registry;
use crate::sys;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
type Free = unsafe extern "C" fn(sys::ggml_threadpool_t);

/// What contexts compute on: a pool for batches of one token, and one for longer ones where these have more threads.
pub(crate) struct Threads {
    one: Option<ThreadPool>,
    batch: Option<ThreadPool>,
}

impl Threads {
    /// Pools of these sizes; where the CPU library offers none, ggml makes do without.
    pub fn new(threads: u32, threads_batch: u32) -> Self {
        let one = ThreadPool::new(threads);
        let batch = if threads == threads_batch { None } else { ThreadPool::new(threads_batch) };
        Self { one, batch }
    }

    /// For contexts that never compute.
    pub fn none() -> Self {
        Self { one: None, batch: None }
    }

    /// Gives the pools to a context, which must be freed before them and compute only while this is borrowed.
    pub fn attach(&mut self, context: *mut sys::llama_context) {
        let Some(one) = &self.one else { return };
        let batch = self.batch.as_ref().unwrap_or(one);
        // SAFETY: a new context, which has computed nothing yet; by contract it does not outlive the pools.
        unsafe { sys::llama_attach_threadpool(context, one.handle, batch.handle) };
    }
}

/// A pool of compute threads, freed on drop.
struct ThreadPool {
    handle: sys::ggml_threadpool_t,
    free: Free,
}

// SAFETY: the pool's threads synchronise by themselves; contexts compute on it by turns.
unsafe impl Send for ThreadPool {}

impl ThreadPool {
    /// A pool for computing with `threads` threads, the caller's among them; `None` when the CPU library offers no
    /// pools, and ggml then makes do without.
    fn new(threads: u32) -> Option<Self> {
        let new = symbol(c"ggml_threadpool_new")?;
        let free = symbol(c"ggml_threadpool_free")?;
        // SAFETY: by ggml's contract these names yield functions of these types.
        let (new, free) = unsafe {
            (std::mem::transmute::<*mut c_void, New>(new), std::mem::transmute::<*mut c_void, Free>(free))
        };
        // SAFETY: plain values in, a structure of plain values out.
        let mut params = unsafe { sys::ggml_threadpool_params_default(threads as i32) };
        // Started paused: the first batch wakes it, and a pool that is never used stays asleep.
        params.paused = true;
        // SAFETY: the parameters are valid for the call.
        let handle = unsafe { new(&mut params) };
        (!handle.is_null()).then_some(Self { handle, free })
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: the handle came from `ggml_threadpool_new`, and the context that used it is gone or detached.
        unsafe { (self.free)(self.handle) };
    }
}

/// A function of the loaded CPU library; it is opened at run time, so the linker cannot know it.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    let registry = cpu_registry();
    if registry.is_null() {
        return None;
    }
    // SAFETY: a valid registry and a zero-terminated name.
    let address = unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
