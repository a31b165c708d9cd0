//! What a model and its context hold, per kind of buffer.

use crate::device::text;
use crate::{Device, sys};

/// Bytes in the buffers of one kind, on one device.
#[derive(Debug, Clone)]
pub struct BufferMemory {
    /// The device; `None` is the processor's memory.
    pub device: Option<Device>,
    /// ggml's name for the kind, for example `CPU`, `CPU_Mapped`, `CPU_REPACK`, `AMX`, `CUDA0`.
    pub buffer: String,
    /// Weights.
    pub weights: u64,
    /// Key-value cache, or the state of a recurrent model.
    pub cache: u64,
    /// Compute buffers.
    pub compute: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawEntry {
    buffer_type: sys::ggml_backend_buffer_type_t,
    weights: u64,
    memory: u64,
    compute: u64,
}

unsafe extern "C" {
    /// Defined in `shim.cpp`.
    fn pajamas_memory_breakdown(context: *const sys::llama_context, out: *mut RawEntry, capacity: i64)
    -> i64;
}

/// Buffers of a context and its model.
///
/// # Safety
/// `context` is valid and not in use by another thread.
pub(crate) unsafe fn breakdown(context: *const sys::llama_context) -> Vec<BufferMemory> {
    const CAPACITY: usize = 64;
    let empty = RawEntry { buffer_type: std::ptr::null_mut(), weights: 0, memory: 0, compute: 0 };
    let mut entries = [empty; CAPACITY];
    // SAFETY: the caller vouches for the context; the array has the capacity given.
    let count = unsafe { pajamas_memory_breakdown(context, entries.as_mut_ptr(), CAPACITY as i64) };
    let count = usize::try_from(count).unwrap_or(0).min(CAPACITY);
    entries[..count]
        .iter()
        .map(|entry| {
            // SAFETY: llama.cpp reported the buffer type, and those live as long as the process.
            let (device, buffer) = unsafe {
                (
                    sys::ggml_backend_buft_get_device(entry.buffer_type),
                    text(sys::ggml_backend_buft_name(entry.buffer_type)),
                )
            };
            BufferMemory {
                device: (!device.is_null()).then_some(Device(device)),
                buffer,
                weights: entry.weights,
                cache: entry.memory,
                compute: entry.compute,
            }
        })
        .collect()
}
