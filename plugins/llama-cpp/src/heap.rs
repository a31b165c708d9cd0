//! Giving memory back to the system.

/// Returns freed heap to the system where the C library would keep it for later: after a model is gone there may be
/// no later, and who watches the process would see memory that nobody holds.
///
/// Place one as the last field of whatever owns a model or a context: fields are dropped in order.
#[derive(Debug, Default)]
pub struct HeapTrim(());

impl Drop for HeapTrim {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: thread-safe by contract; it only touches free memory.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
