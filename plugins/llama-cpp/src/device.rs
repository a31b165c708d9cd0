//! The places where ggml computes.

use std::ffi::CStr;

use crate::sys;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A graphics processor, with memory of its own or shared.
    Gpu,
    /// Helps the processor (BLAS); never chosen on its own.
    Accelerator,
}

/// A device that one of the loaded libraries offers. Lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Device(pub(crate) sys::ggml_backend_dev_t);

// SAFETY: ggml's device records are created when a library is loaded, constant, and never freed.
unsafe impl Send for Device {}
// SAFETY: as above; the functions used here only read them.
unsafe impl Sync for Device {}

impl Device {
    /// `cpu`, or the library's name and the device's number in it: `cuda:0`, `metal:0`, `vulkan:1`.
    pub fn id(self) -> String {
        if self.kind() == DeviceKind::Cpu {
            return "cpu".into();
        }
        // SAFETY: the handle is valid for the life of the process, and so is its registry's.
        let (library, index) = unsafe {
            let registry = sys::ggml_backend_dev_backend_reg(self.0);
            let count = sys::ggml_backend_reg_dev_count(registry);
            let index =
                (0..count).find(|i| sys::ggml_backend_reg_dev_get(registry, *i) == self.0).unwrap_or(0);
            (text(sys::ggml_backend_reg_name(registry)).to_lowercase(), index)
        };
        let library = if library == "mtl" { "metal".into() } else { library };
        format!("{library}:{index}")
    }

    /// What a person calls it.
    pub fn description(self) -> String {
        // SAFETY: the handle is valid; the string is constant.
        unsafe { text(sys::ggml_backend_dev_description(self.0)) }.trim().to_owned()
    }

    /// What it is.
    pub fn kind(self) -> DeviceKind {
        // SAFETY: the handle is valid.
        match unsafe { sys::ggml_backend_dev_type(self.0) } {
            sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
            sys::GGML_BACKEND_DEVICE_TYPE_ACCEL => DeviceKind::Accelerator,
            _ => DeviceKind::Gpu,
        }
    }

    /// Whether it is a graphics processor whose memory is the processor's.
    pub fn shares_memory(self) -> bool {
        // SAFETY: the handle is valid.
        unsafe { sys::ggml_backend_dev_type(self.0) == sys::GGML_BACKEND_DEVICE_TYPE_IGPU }
    }

    /// Free and total memory in bytes. On a GPU this may create a context there, which takes memory itself.
    pub fn memory(self) -> (u64, u64) {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the handle is valid; both pointers are.
        unsafe { sys::ggml_backend_dev_memory(self.0, &mut free, &mut total) };
        (free as u64, total as u64)
    }

    /// Every device of the loaded libraries, in the order of loading.
    pub(crate) fn all() -> Vec<Device> {
        // SAFETY: indices below the count are valid, and devices are never unregistered here.
        unsafe { (0..sys::ggml_backend_dev_count()).map(|i| Device(sys::ggml_backend_dev_get(i))).collect() }
    }
}

/// Copies a C string.
///
/// # Safety
/// `pointer` is null or a zero-terminated string.
pub(crate) unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
