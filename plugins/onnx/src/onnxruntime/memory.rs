//! What a session of ONNX Runtime holds, by the account of its own arena.

use std::ffi::CStr;
use std::ptr;

use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use pajamas_plugin_api::Memory;

/// What the session holds now: the estimate's weights, and as scratch what the arena holds beyond them.
pub(super) fn usage(session: &Session, estimate: &Memory) -> Memory {
    let scratch = match arena_bytes(session) {
        Some(total) => total.saturating_sub(estimate.weights),
        None => estimate.scratch,
    };
    Memory { scratch, ..estimate.clone() }
}

/// Bytes that the session's arena in main memory has taken from the system; `None` when it has none or keeps no
/// account.
fn arena_bytes(session: &Session) -> Option<u64> {
    let place = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default).ok()?;
    let arena = Allocator::new(session, place).ok()?;
    let mut stats = ptr::null_mut();
    // SAFETY: the allocator is alive, and the out-pointer valid for the call.
    let status = unsafe { (ort::api().AllocatorGetStats)(arena.ptr(), &mut stats) };
    // SAFETY: the status comes straight from the runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }.ok()?;
    if stats.is_null() {
        return None;
    }
    // SAFETY: `stats` is a valid table until it is released below, and the key is zero-terminated.
    let value = unsafe { (ort::api().GetKeyValue)(stats, c"TotalAllocated".as_ptr()) };
    let total = match value.is_null() {
        true => None,
        // SAFETY: a value is a zero-terminated string that lives as long as its table.
        false => unsafe { CStr::from_ptr(value) }.to_str().ok().and_then(|text| text.parse().ok()),
    };
    // SAFETY: the table came from the call above and is released once.
    unsafe { (ort::api().ReleaseKeyValuePairs)(stats) };
    total
}
