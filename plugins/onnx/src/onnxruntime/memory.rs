//! What a session of ONNX Runtime holds, by the account of its own arena.

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use pajamas_plugin_api::Memory;

/// What the arena in main memory says of itself, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arena {
    in_use: u64,
    most_in_use: u64,
}

impl Arena {
    /// Asks the session's arena; `None` when it has none or keeps no account.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let place =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default).ok()?;
        let arena = Allocator::new(session, place).ok()?;
        let mut stats = ptr::null_mut();
        // SAFETY: the allocator is alive, and the out-pointer valid for the call.
        let status = unsafe { (ort::api().AllocatorGetStats)(arena.ptr(), &mut stats) };
        // SAFETY: the status comes straight from the runtime and is used once.
        unsafe { ort::Error::result_from_status(status) }.ok()?;
        if stats.is_null() {
            return None;
        }
        let bytes = |key: &CStr| {
            // SAFETY: `stats` is a valid table until it is released below, and the key is zero-terminated.
            let value = unsafe { (ort::api().GetKeyValue)(stats, key.as_ptr()) };
            if value.is_null() {
                return None;
            }
            // SAFETY: a value is a zero-terminated string that lives as long as its table.
            unsafe { CStr::from_ptr(value) }.to_str().ok()?.parse().ok()
        };
        let (in_use, most_in_use) = (bytes(c"InUse"), bytes(c"MaxInUse"));
        // SAFETY: the table came from the call above and is released once.
        unsafe { (ort::api().ReleaseKeyValuePairs)(stats) };
        Some(Self { in_use: in_use?, most_in_use: most_in_use? })
    }

    /// What the session holds now. `loaded` is the account after loading, before any run: weights that the runtime
    /// has rearranged. What was used on top of it at the most stays with the arena for the next run.
    pub(super) fn usage(self, loaded: Self, estimate: &Memory) -> Memory {
        let weights = estimate.weights.max(loaded.in_use);
        let scratch = self.most_in_use.saturating_sub(loaded.in_use);
        Memory { weights, scratch, ..estimate.clone() }
    }
}
