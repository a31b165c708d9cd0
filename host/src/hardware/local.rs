//! This machine.

use std::path::Path;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind};

use super::{
    Cpu, Devices, Hardware, Load, Memory, Provider, System, apple, cgroup, features, numa, nvml, topology,
    zones,
};
use crate::error::Result;

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalMachine;

impl Provider for LocalMachine {
    fn hardware(&self) -> Result<Hardware> {
        Ok(self.detect())
    }
}

impl LocalMachine {
    /// Looks at it: some files and a library, a few milliseconds.
    pub(super) fn detect(self) -> Hardware {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        // Fails only on systems that sysinfo does not know; there the numbers stay 0, which is "unknown".
        let known = sysinfo::System::new_with_specifics(kinds).ok();
        let (installed, available) =
            known.as_ref().map_or((0, 0), |k| (k.total_memory(), k.available_memory()));
        let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
        let limits = cgroup::Limits::read(proc, sys);
        let system = system();
        let cpu = cpu(known.as_ref(), limits, topology::usable(proc, sys));
        Hardware {
            accelerators: apple::accelerators(&system, &cpu.brand),
            devices: Devices::default(),
            system,
            cpu,
            memory: memory(installed, available, limits),
            gpus: nvml::detect(Path::new(nvml::LIBRARY)),
            numa: numa::nodes(sys),
            load: load(),
            thermal: zones::thermal(Path::new(zones::ZONES)),
        }
    }
}

fn system() -> System {
    let os = std::env::consts::OS.to_owned();
    let name = sysinfo::System::long_os_version().unwrap_or_else(|_| os.clone());
    System { os, name, arch: std::env::consts::ARCH.to_owned() }
}

fn cpu(known: Option<&sysinfo::System>, limits: cgroup::Limits, usable: Option<topology::Usable>) -> Cpu {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let allowed = std::thread::available_parallelism().map_or(1, |n| count(n.get()));
    let cpus = known.map_or(&[][..], |k| k.cpus());
    let logical = count(cpus.len()).max(allowed);
    let physical = sysinfo::System::physical_core_count().map_or(logical, count).max(1);
    let brand = cpus.first().map(|cpu| cpu.brand().trim()).filter(|brand| !brand.is_empty());
    Cpu {
        brand: brand.unwrap_or("unknown").to_owned(),
        physical_cores: physical,
        logical_cores: logical,
        usable_cores: usable.as_ref().map_or(allowed, |usable| usable.cores).min(physical),
        kinds: usable.map_or_else(apple::kinds, |usable| usable.kinds),
        quota: limits.cpu,
        features: features::detect(),
    }
}

fn load() -> Option<Load> {
    // Elsewhere sysinfo would start a thread that counts.
    let load = if cfg!(unix) { sysinfo::System::load_average().ok()? } else { return None };
    let known = [load.one, load.five, load.fifteen].iter().all(|load| load.is_finite() && *load >= 0.0);
    known.then_some(Load { one: load.one, five: load.five, fifteen: load.fifteen })
}

fn memory(installed: u64, available: u64, limits: cgroup::Limits) -> Memory {
    let limit = limits.memory.filter(|limit| *limit < installed);
    let left = limits.memory_left.unwrap_or(u64::MAX);
    Memory { total: limit.unwrap_or(installed), available: available.min(left), installed, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_every_machine_has() {
        let found = Hardware::detect();
        assert!(found.cpu.physical_cores >= 1 && found.cpu.logical_cores >= found.cpu.physical_cores);
        assert!((1..=found.cpu.physical_cores).contains(&found.cpu.usable_cores));
        assert!(found.memory.available > 0 && found.memory.available <= found.memory.total);
        assert!(found.memory.total <= found.memory.installed);
        assert!(!found.cpu.brand.is_empty() && !found.system.name.is_empty());
        assert!(found.gpus.devices.is_empty() == found.gpus.why_none.is_some());
        assert!(found.load.is_some() || cfg!(not(unix)));
        assert!(found.numa.iter().all(|node| node.memory_free <= node.memory_total), "{:?}", found.numa);
        let threads = std::thread::available_parallelism().unwrap().get() as u32;
        assert!((1..=threads.max(1)).contains(&found.recommended_threads()), "{threads}");
    }

    #[test]
    fn a_limit_counts_only_below_what_is_installed() {
        let limits = |memory, memory_left| cgroup::Limits { cpu: None, memory, memory_left };
        let free = memory(100, 60, limits(None, None));
        assert_eq!((free.total, free.available, free.limit), (100, 60, None));
        let tight = memory(100, 60, limits(Some(50), Some(20)));
        assert_eq!((tight.total, tight.available, tight.limit), (50, 20, Some(50)));
        let loose = memory(100, 60, limits(Some(200), Some(150)));
        assert_eq!((loose.total, loose.available, loose.limit), (100, 60, None));
    }
}
