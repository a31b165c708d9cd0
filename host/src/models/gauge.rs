//! What the devices themselves say of their memory.

use super::fleet::Bytes;
use crate::hardware::{Hardware, Provider};

/// Asks the machine. Without one nothing is known, and the ledger's own numbers count alone.
#[derive(Default)]
pub(super) struct Gauge(Option<Box<dyn Provider + Send + Sync>>);

impl Gauge {
    pub(super) fn new(machine: Box<dyn Provider + Send + Sync>) -> Self {
        Self(Some(machine))
    }

    /// Whether there is a machine to ask.
    pub(super) fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// What is free on each device that can be asked. Takes some milliseconds.
    pub(super) fn free(&self) -> Bytes {
        let Some(hardware) = self.look() else { return Bytes::new() };
        let others = beside_the_processor(&hardware).map(|(id, [_, free])| (id, free));
        let cpu = (hardware.memory.total > 0).then(|| ("cpu".to_owned(), hardware.memory.available));
        cpu.into_iter().chain(others).collect()
    }

    /// What is held on these devices: of main memory by this process, of a GPU by everybody. A device that cannot be asked
    /// is missing.
    pub(super) fn held<'d>(&self, devices: impl IntoIterator<Item = &'d String>) -> Bytes {
        let devices: Vec<&String> = devices.into_iter().collect();
        let asked = devices.iter().any(|device| *device != "cpu");
        let hardware = if asked { self.look() } else { None };
        let held = |device: &str| match device {
            "cpu" => self.0.as_ref().and_then(|_| resident()),
            _ => {
                let (_, [total, free]) =
                    beside_the_processor(hardware.as_ref()?).find(|(id, _)| id == device)?;
                Some(total.saturating_sub(free))
            }
        };
        devices.into_iter().filter_map(|device| Some((device.clone(), held(device)?))).collect()
    }

    fn look(&self) -> Option<Hardware> {
        // A machine that cannot be asked now is asked again the next time.
        self.0.as_ref()?.hardware().ok()
    }
}

/// Total and free memory of the devices beside the processor: of those whose backends tell it, and of the GPUs whose numbers are
/// certainly those of CUDA: the management library counts by PCI address and knows nothing of what CUDA was told to leave out.
fn beside_the_processor(hardware: &Hardware) -> impl Iterator<Item = (String, [u64; 2])> {
    let gpus = &hardware.gpus.devices;
    let ordered = std::env::var_os("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    let whole = std::env::var_os("CUDA_VISIBLE_DEVICES").is_none();
    let certain = whole && (gpus.len() == 1 || ordered);
    let known = gpus.iter().filter(move |gpu| certain && gpu.memory_total > 0 && gpu.memory_free > 0);
    let told = hardware.devices.with_memory().filter(|device| device.memory_free > 0);
    let told = told.map(|device| (device.id.clone(), [device.memory_total, device.memory_free]));
    known.map(|gpu| (format!("cuda:{}", gpu.index), [gpu.memory_total, gpu.memory_free])).chain(told)
}

/// Bytes of main memory that this process has.
#[cfg(target_os = "linux")]
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(not(target_os = "linux"))]
fn resident() -> Option<u64> {
    None
}
