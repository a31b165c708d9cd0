//! NVIDIA GPUs, through the driver's management library (NVML), opened at run time.
//!
//! NVML needs no CUDA context, so that looking takes no memory of the GPU.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;

use libloading::Library;

use super::{Gpu, Gpus, zones};

#[cfg(test)]
pub(super) mod tests;

/// The library's name, as the driver installs it.
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";

/// More GPUs than one machine has.
const MOST_DEVICES: c_uint = 64;

/// NVML's own sizes for names and versions are at most 96 bytes.
const TEXT: usize = 96;

/// `nvmlReturn_t`: 0 is success.
type Status = c_int;
/// `nvmlDevice_t`: opaque, owned by the library.
type Device = *mut c_void;

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Default)]
struct MemoryInfo {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`, in percent.
#[repr(C)]
#[derive(Default)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `NVML_TEMPERATURE_GPU`: the sensor of the chip itself.
const CHIP: c_int = 0;
/// More than any GPU draws, in milliwatts: a number beyond it is none.
const MOST_POWER: c_uint = 5_000_000;

/// `nvmlClocksThrottleReason…`: those that make a GPU slower than it could be.
const THROTTLES: [(u64, &str); 6] = [
    (0x04, "power cap"),
    (0x08, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "thermal (software)"),
    (0x40, "thermal (hardware)"),
    (0x80, "power brake"),
];

/// Those of them that are heat: the chip's or its memory's, by the driver or by the chip itself.
const BY_HEAT: u64 = 0x20 | 0x40;
/// No driver has so many reasons: a number with bits beyond is none.
const MOST_REASONS: u64 = 1 << 32;
/// More than any GPU has, in bytes: a number beyond it is none.
const MOST_MEMORY: u64 = 1 << 46;

/// What a GPU tells of its heat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warmth {
    /// Its name.
    pub(super) name: String,
    /// Its temperature in degrees Celsius, where it tells one that a chip can have.
    pub(super) degrees: Option<u32>,
    /// Whether heat makes it slower than it could be.
    pub(super) slowed: bool,
}

/// The GPUs that the library at `path` knows; none, with the reason, when it cannot be asked.
pub(super) fn detect(path: &Path) -> Gpus {
    let none = |why| Gpus { devices: Vec::new(), driver: None, cuda: None, why_none: Some(why) };
    let library = match Nvml::open(path) {
        Ok(library) => library,
        Err(why) => return none(why),
    };
    let devices = match library.devices() {
        Ok(devices) => devices,
        Err(why) => return Gpus { driver: library.driver(), cuda: library.cuda(), ..none(why) },
    };
    let why_none = devices.is_empty().then(|| "the NVIDIA driver knows no GPU".to_owned());
    Gpus { devices, driver: library.driver(), cuda: library.cuda(), why_none }
}

/// The library, initialised; shut down when dropped.
#[derive(Debug)]
pub(super) struct Nvml(Functions);

/// The library's functions, by name.
#[derive(Debug)]
struct Functions(Library);

impl Nvml {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: the driver's own library, found where the system's linker finds it; what it runs on opening are the
        // initialisers of a C library.
        let library = unsafe { Library::new(path) }
            .map_err(|_| format!("{} is not installed (no NVIDIA driver)", path.display()))?;
        let functions = Functions(library);
        functions.call::<unsafe extern "C" fn() -> Status>(c"nvmlInit_v2", |init| {
            // SAFETY: no arguments; may be called from any thread, any number of times.
            unsafe { init() }
        })?;
        Ok(Self(functions))
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // A failure to shut down leaves nothing to do about it.
        let _ = self.0.call::<unsafe extern "C" fn() -> Status>(c"nvmlShutdown", |shutdown| {
            // SAFETY: no arguments; counts down what nvmlInit_v2 counted up.
            unsafe { shutdown() }
        });
    }
}

impl Functions {
    /// Looks the function up and calls it; an error in words when it is missing or fails.
    fn call<F>(&self, name: &CStr, call: impl FnOnce(&F) -> Status) -> Result<(), String> {
        let spelled = name.to_string_lossy();
        // SAFETY: `F` is, at each caller below, the type that NVIDIA's nvml.h declares for `name`.
        let function = unsafe { self.0.get::<F>(name.to_bytes_with_nul()) }
            .map_err(|_| format!("the NVIDIA driver is too old: it has no {spelled}"))?;
        match call(&function) {
            0 => Ok(()),
            status => Err(format!("{spelled}: {}", self.explain(status))),
        }
    }

    fn explain(&self, status: Status) -> String {
        type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;
        // SAFETY: the type that nvml.h declares.
        let text = unsafe { self.0.get::<ErrorString>(b"nvmlErrorString\0") }.ok().map(|explain| {
            // SAFETY: takes any number.
            unsafe { explain(status) }
        });
        match text {
            Some(text) if !text.is_null() => {
                // SAFETY: a constant string of the library, which is still open.
                unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
            }
            _ => format!("error {status}"),
        }
    }
}

impl Nvml {
    /// A text that the library writes into memory of ours.
    fn text(&self, name: &CStr, device: Option<Device>) -> Option<String> {
        let mut buffer = [0_u8; TEXT];
        let (start, size) = (buffer.as_mut_ptr().cast::<c_char>(), TEXT as c_uint);
        match device {
            None => self.0.call::<unsafe extern "C" fn(*mut c_char, c_uint) -> Status>(name, |get| {
                // SAFETY: writes at most `size` bytes from `start`, which belong to `buffer`.
                unsafe { get(start, size) }
            }),
            Some(device) => {
                self.0.call::<unsafe extern "C" fn(Device, *mut c_char, c_uint) -> Status>(name, |get| {
                    // SAFETY: as above; `device` came from this library.
                    unsafe { get(device, start, size) }
                })
            }
        }
        .ok()?;
        let text = CStr::from_bytes_until_nul(&buffer).ok()?.to_string_lossy().into_owned();
        (!text.is_empty()).then_some(text)
    }

    fn driver(&self) -> Option<String> {
        self.text(c"nvmlSystemGetDriverVersion", None)
    }

    fn cuda(&self) -> Option<String> {
        let mut version: c_int = 0;
        self.0
            .call::<unsafe extern "C" fn(*mut c_int) -> Status>(c"nvmlSystemGetCudaDriverVersion_v2", |get| {
                // SAFETY: writes one int.
                unsafe { get(&mut version) }
            })
            .ok()?;
        (version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
    }

    fn devices(&self) -> Result<Vec<Gpu>, String> {
        // One that cannot be opened (lost, or not granted to this container) is not there for us.
        let handles = (0..self.count()?).filter_map(|index| Some((index, self.handle(index).ok()?)));
        Ok(handles.map(|(index, device)| self.device(index, device)).collect())
    }

    /// How hot each GPU is.
    ///
    /// # Errors
    /// In words, when the driver no longer answers.
    pub(super) fn heat(&self) -> Result<Vec<Warmth>, String> {
        let devices = (0..self.count()?).filter_map(|index| self.handle(index).ok());
        let warmth = |device| Warmth {
            name: self.name(device),
            degrees: self.temperature(device),
            slowed: self.reasons(device) & BY_HEAT != 0,
        };
        Ok(devices.map(warmth).collect())
    }

    fn count(&self) -> Result<c_uint, String> {
        let mut count: c_uint = 0;
        self.0.call::<unsafe extern "C" fn(*mut c_uint) -> Status>(c"nvmlDeviceGetCount_v2", |get| {
            // SAFETY: writes one unsigned int.
            unsafe { get(&mut count) }
        })?;
        // A number that no machine has is a lie.
        Ok(count.min(MOST_DEVICES))
    }

    fn handle(&self, index: c_uint) -> Result<Device, String> {
        let mut device: Device = std::ptr::null_mut();
        self.0.call::<unsafe extern "C" fn(c_uint, *mut Device) -> Status>(
            c"nvmlDeviceGetHandleByIndex_v2",
            |get| {
                // SAFETY: writes one pointer.
                unsafe { get(index, &mut device) }
            },
        )?;
        Ok(device)
    }

    fn name(&self, device: Device) -> String {
        self.text(c"nvmlDeviceGetName", Some(device)).unwrap_or_else(|| "unknown GPU".to_owned())
    }

    fn device(&self, index: c_uint, device: Device) -> Gpu {
        let mut memory = MemoryInfo::default();
        let known = self.0.call::<unsafe extern "C" fn(Device, *mut MemoryInfo) -> Status>(
            c"nvmlDeviceGetMemoryInfo",
            |get| {
                // SAFETY: writes one nvmlMemory_t, whose three 64-bit numbers MemoryInfo has in the same order.
                unsafe { get(device, &mut memory) }
            },
        );
        if known.is_err() || memory.total > MOST_MEMORY {
            memory = MemoryInfo::default();
        }
        Gpu {
            index,
            name: self.name(device),
            uuid: self.text(c"nvmlDeviceGetUUID", Some(device)),
            memory_total: memory.total,
            memory_free: memory.free.min(memory.total),
            compute_capability: self.compute_capability(device),
            temperature: self.temperature(device),
            utilisation: self.utilisation(device),
            power: self.power(device),
            throttled: self.throttled(device),
        }
    }

    fn temperature(&self, device: Device) -> Option<u32> {
        let mut degrees: c_uint = 0;
        self.0
            .call::<unsafe extern "C" fn(Device, c_int, *mut c_uint) -> Status>(
                c"nvmlDeviceGetTemperature",
                // SAFETY: writes one unsigned int.
                |get| unsafe { get(device, CHIP, &mut degrees) },
            )
            .ok()?;
        zones::plausible(degrees)
    }

    fn utilisation(&self, device: Device) -> Option<u32> {
        let mut percent = Utilization::default();
        self.0
            .call::<unsafe extern "C" fn(Device, *mut Utilization) -> Status>(
                c"nvmlDeviceGetUtilizationRates",
                // SAFETY: writes one nvmlUtilization_t, whose two unsigned ints Utilization has in the same order.
                |get| unsafe { get(device, &mut percent) },
            )
            .ok()?;
        Some(percent.gpu).filter(|percent| *percent <= 100)
    }

    fn power(&self, device: Device) -> Option<u32> {
        let mut milliwatts: c_uint = 0;
        self.0
            .call::<unsafe extern "C" fn(Device, *mut c_uint) -> Status>(
                c"nvmlDeviceGetPowerUsage",
                // SAFETY: writes one unsigned int.
                |get| unsafe { get(device, &mut milliwatts) },
            )
            .ok()?;
        (milliwatts <= MOST_POWER).then_some(milliwatts / 1000)
    }

    fn throttled(&self, device: Device) -> Vec<String> {
        let reasons = self.reasons(device);
        let set = THROTTLES.into_iter().filter(|(bit, _)| reasons & bit != 0);
        set.map(|(_, name)| name.to_owned()).collect()
    }

    /// Why it is slower than it could be, a bit for each reason; none where the driver does not say.
    fn reasons(&self, device: Device) -> u64 {
        let mut reasons: u64 = 0;
        let told = self.0.call::<unsafe extern "C" fn(Device, *mut u64) -> Status>(
            c"nvmlDeviceGetCurrentClocksThrottleReasons",
            // SAFETY: writes one unsigned long long.
            |get| unsafe { get(device, &mut reasons) },
        );
        if told.is_ok() && reasons < MOST_REASONS { reasons } else { 0 }
    }

    fn compute_capability(&self, device: Device) -> Option<String> {
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        self.0
            .call::<unsafe extern "C" fn(Device, *mut c_int, *mut c_int) -> Status>(
                c"nvmlDeviceGetCudaComputeCapability",
                |get| {
                    // SAFETY: writes two ints.
                    unsafe { get(device, &mut major, &mut minor) }
                },
            )
            .ok()?;
        (major > 0 && (0..100).contains(&minor)).then(|| format!("{major}.{minor}"))
    }
}
