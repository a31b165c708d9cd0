//! The devices this machine has, found without touching any of them.

use std::path::Path;

use pajamas_plugin_api::DeviceInfo;

/// The processor.
pub(crate) const CPU: &str = "cpu";

/// The processor, with the machine's memory where the system tells it.
pub(crate) fn cpu() -> DeviceInfo {
    let about = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (memory_total, memory_free) = memory(&about);
    DeviceInfo { id: CPU.to_owned(), name: "processor".to_owned(), memory_total, memory_free }
}

/// (total, available) in bytes from the text of `/proc/meminfo`; 0 for what it does not say.
fn memory(meminfo: &str) -> (u64, u64) {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    (value("MemTotal:").unwrap_or(0), value("MemAvailable:").unwrap_or(0))
}

/// NVIDIA's GPUs as the kernel driver lists them: no CUDA context comes to life, no memory is taken. Linux only;
/// elsewhere the list is empty.
pub(crate) fn nvidia() -> Vec<DeviceInfo> {
    nvidia_in(Path::new("/proc/driver/nvidia/gpus"))
}

fn nvidia_in(folder: &Path) -> Vec<DeviceInfo> {
    let mut gpus: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    // The folders are named by bus address, the order in which CUDA numbers them under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    gpus.sort();
    gpus.iter()
        .enumerate()
        .map(|(index, gpu)| {
            let about = std::fs::read_to_string(gpu.join("information")).unwrap_or_default();
            let model =
                about.lines().find_map(|line| line.strip_prefix("Model:")).unwrap_or("NVIDIA GPU").trim();
            DeviceInfo {
                id: format!("cuda:{index}"),
                name: model.to_owned(),
                memory_total: 0,
                memory_free: 0,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory("MemTotal:  2 kB\nMemFree: 1 kB\nMemAvailable:   1 kB\n"), (2048, 1024));
        assert_eq!(memory(""), (0, 0));
    }

    #[test]
    fn gpus_are_listed_by_bus_address() {
        let dir = tempfile::tempdir().unwrap();
        for (bus, model) in [("0000:41:00.0", "NVIDIA B"), ("0000:01:00.0", "NVIDIA A")] {
            std::fs::create_dir(dir.path().join(bus)).unwrap();
            std::fs::write(dir.path().join(bus).join("information"), format!("Model: \t {model}\n")).unwrap();
        }
        let names: Vec<_> = nvidia_in(dir.path()).into_iter().map(|d| (d.id, d.name)).collect();
        assert_eq!(names, [("cuda:0".into(), "NVIDIA A".into()), ("cuda:1".into(), "NVIDIA B".into())]);
        assert!(nvidia_in(Path::new("/nonexistent")).is_empty());
    }
}
