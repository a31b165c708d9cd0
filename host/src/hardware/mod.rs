//! What this machine is: processor, memory and GPUs, as far as this process may use them.
//!
//! Looking creates no GPU context and starts nothing. [`Provider`] is where tests put another machine in.

mod apple;
mod cgroup;
mod cpu_list;
mod features;
mod heat;
mod local;
mod numa;
mod nvml;
mod recommend;
mod recorded;
mod render;
mod topology;
mod zones;

use serde::{Deserialize, Serialize};

pub use cpu_list::CpuList;
pub use heat::{GpuHeat, Heat};
pub use local::LocalMachine;
pub use recommend::{
    Answer, Bandwidth, Bound, ModelFacts, Need, Place, Profiles, Question, Recommendation, Room, Shortage,
    TextFacts, TextSettings, recommend,
};
pub use recorded::RecordedMachine;

use crate::error::Result;

/// A machine, as a host sees it at one moment. Its JSON can be replayed by a [`RecordedMachine`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// Operating system and architecture.
    pub system: System,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// NVIDIA GPUs.
    pub gpus: Gpus,
    /// What else computes, where the chip alone says so.
    #[serde(default)]
    pub accelerators: Vec<Accelerator>,
    /// What backends can compute on. Asking them is not ours: empty unless somebody did.
    #[serde(default)]
    pub devices: Devices,
    /// Which memory is near to which processors, by number; one node where all is near to all, none where the system does not tell.
    #[serde(default)]
    pub numa: Vec<NumaNode>,
    /// How busy the machine is; `None` where the system does not tell.
    #[serde(default)]
    pub load: Option<Load>,
    /// What the system's sensors tell, by their numbers; none where the system has no thermal zones.
    #[serde(default)]
    pub thermal: Vec<ThermalZone>,
}

/// Operating system and architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// As Rust names it: `linux`, `macos`.
    pub os: String,
    /// What its maker calls it, with the version, for example `Linux (Debian GNU/Linux 12)`.
    pub name: String,
    /// As Rust names it: `x86_64`, `aarch64`.
    pub arch: String,
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// What its maker calls it.
    pub brand: String,
    /// Cores of the machine.
    pub physical_cores: u32,
    /// Hardware threads of the machine.
    pub logical_cores: u32,
    /// Cores that this process may run on, by its CPU affinity.
    pub usable_cores: u32,
    /// Which of these are fast and which save power, where the machine has both and says so.
    #[serde(default)]
    pub kinds: Option<CoreKinds>,
    /// How many processors' worth of time the control group grants; `None` when it sets no limit.
    pub quota: Option<f64>,
    /// Instruction sets that matter to inference, for example `avx2`, `amx-int8`, `neon`.
    pub features: Vec<String>,
}

/// Cores of two kinds, of those that this process may run on. There is at least one of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreKinds {
    /// The fast ones.
    pub performance: Cores,
    /// Those that save power.
    pub efficiency: Cores,
}

/// Some cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// How many.
    pub count: u32,
    /// Their hardware threads; none where the system does not number them.
    #[serde(default)]
    pub cpus: CpuList,
}

/// Main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What this process may use at most: what is installed, or the control group's limit.
    pub total: u64,
    /// What of that is free, or can be freed without harm.
    pub available: u64,
    /// What the machine has.
    pub installed: u64,
    /// The control group's limit, when there is one below what is installed.
    pub limit: Option<u64>,
}

/// Processors and the memory that is near to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// The system's number.
    pub id: u32,
    /// Its hardware threads; none where it is only memory.
    pub cpus: CpuList,
    /// Its memory in bytes; 0 when the system does not say.
    pub memory_total: u64,
    /// What of that is unused, in bytes; what could be freed is not counted.
    pub memory_free: u64,
}

/// How many processes ran or waited to run, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Of the last minute.
    pub one: f64,
    /// Of the last five minutes.
    pub five: f64,
    /// Of the last fifteen minutes.
    pub fifteen: f64,
}

/// A place whose temperature is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThermalZone {
    /// What its driver calls it, for example `x86_pkg_temp`.
    pub name: String,
    /// Its temperature in degrees Celsius; `None` where the sensor tells none that a chip can have.
    pub degrees: Option<u32>,
}

/// The GPUs that NVIDIA's management library knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// The GPUs, in the order of their PCI addresses.
    pub devices: Vec<Gpu>,
    /// The driver's version.
    pub driver: Option<String>,
    /// The newest CUDA that the driver runs, for example `12.4`.
    pub cuda: Option<String>,
    /// Why there are none.
    pub why_none: Option<String>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number in the order of PCI addresses, which is CUDA's only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub index: u32,
    /// What its maker calls it.
    pub name: String,
    /// The name that stays the same, whatever the order.
    pub uuid: Option<String>,
    /// All of its memory in bytes; 0 when the driver does not say.
    pub memory_total: u64,
    /// Its free memory in bytes; 0 when the driver does not say.
    pub memory_free: u64,
    /// CUDA compute capability, for example `9.0`.
    pub compute_capability: Option<String>,
    /// Its temperature in degrees Celsius.
    #[serde(default)]
    pub temperature: Option<u32>,
    /// In how many percent of the last moments it computed something.
    #[serde(default)]
    pub utilisation: Option<u32>,
    /// What it draws now, in watts.
    #[serde(default)]
    pub power: Option<u32>,
    /// Why it computes more slowly than it could: for example `thermal (hardware)`, `power cap`.
    #[serde(default)]
    pub throttled: Vec<String>,
}

/// What else computes than processor and NVIDIA GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// As backends call it: `metal:0`, `ane`.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// Whether its memory is that of the processor.
    pub shares_memory: bool,
}

/// What backends can compute on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// The devices, in the order in which backends told them.
    pub known: Vec<Device>,
    /// Why there are none.
    pub why_none: Option<String>,
}

impl Devices {
    /// The devices beside the processor whose own memory a backend tells. What of it is free may be unknown.
    pub fn with_memory(&self) -> impl Iterator<Item = &Device> {
        self.known.iter().filter(|device| device.id != "cpu" && device.memory_total > 0)
    }
}

/// A device, as backends see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As the configuration names it: `cpu`, `cuda:0`, `vulkan:0`.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// All of its memory in bytes; 0 when no backend says.
    pub memory_total: u64,
    /// Its free memory in bytes; 0 when no backend says.
    pub memory_free: u64,
    /// The backends that compute on it, by their full names.
    pub backends: Vec<String>,
}

/// Something that knows a machine.
pub trait Provider {
    /// The machine as it is now.
    ///
    /// # Errors
    /// When it cannot be known. This machine always can.
    fn hardware(&self) -> Result<Hardware>;
}

impl Hardware {
    /// This machine.
    pub fn detect() -> Self {
        LocalMachine.detect()
    }

    /// How many threads computing should use: one for each core that this process may run on, and no more than the
    /// control group grants. A second thread on a core only takes turns with the first, since matrix products leave no
    /// unit of it idle. Where cores are of two kinds the fast ones alone compute: the parts of a product are waited for until
    /// the last is done, and a slow core's is the last. llama.cpp counts by the same rule (`cpu_get_num_math`).
    pub fn recommended_threads(&self) -> u32 {
        let quota = self.cpu.quota.map_or(u32::MAX, |quota| quota.floor() as u32);
        let usable = self.cpu.usable_cores;
        let cores = self.cpu.kinds.as_ref().map_or(usable, |kinds| kinds.performance.count.min(usable));
        cores.min(quota).max(1)
    }

    /// Adds what a backend can compute on. What another told under the same name is the same, and there is one processor, whatever
    /// they call it; of memory the first that knows it is believed.
    pub fn add_device(&mut self, device: Device) {
        let same = |one: &&mut Device| one.id == device.id && (one.name == device.name || one.id == "cpu");
        let Some(known) = self.devices.known.iter_mut().find(same) else {
            self.devices.known.push(device);
            return;
        };
        if known.memory_total == 0 {
            (known.memory_total, known.memory_free) = (device.memory_total, device.memory_free);
        }
        known.backends.extend(device.backends);
    }

    /// Whether the processor has an instruction set, by its name in [`Cpu::features`].
    pub fn has_feature(&self, name: &str) -> bool {
        self.cpu.features.iter().any(|feature| feature == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(usable_cores: u32, quota: Option<f64>) -> Hardware {
        let mut machine = recorded::tests::machine("workstation");
        machine.cpu.usable_cores = usable_cores;
        machine.cpu.quota = quota;
        machine
    }

    #[test]
    fn threads_are_cores_within_the_control_groups_limit() {
        assert_eq!(machine(16, None).recommended_threads(), 16);
        assert_eq!(machine(16, Some(3.9)).recommended_threads(), 3);
        assert_eq!(machine(4, Some(8.0)).recommended_threads(), 4);
        assert_eq!(machine(4, Some(0.5)).recommended_threads(), 1);
        assert_eq!(machine(0, None).recommended_threads(), 1);
    }

    #[test]
    fn a_device_of_several_backends_is_told_once() {
        let mut machine = machine(1, None);
        for (id, name, memory_total, backend) in [
            ("cpu", "Ryzen", 0, "gguf/llama"),
            ("cpu", "processor", 64, "onnx/rten"),
            ("cpu", "Ryzen", 32, "another/engine"),
            ("vulkan:0", "Radeon", 16, "gguf/llama"),
            ("vulkan:0", "GeForce", 24, "another/engine"),
        ] {
            let (id, name, backends) = (id.to_owned(), name.to_owned(), vec![backend.to_owned()]);
            machine.add_device(Device { id, name, memory_total, memory_free: memory_total / 2, backends });
        }
        let told: Vec<_> =
            machine.devices.known.iter().map(|d| (&*d.name, d.memory_free, d.backends.len())).collect();
        assert_eq!(told, [("Ryzen", 32, 3), ("Radeon", 8, 1), ("GeForce", 12, 1)]);
    }

    #[test]
    fn where_cores_are_of_two_kinds_the_fast_ones_compute() {
        let cores = |count| Cores { count, cpus: CpuList::default() };
        let kinds = |performance, efficiency, quota| {
            let kinds = CoreKinds { performance: cores(performance), efficiency: cores(efficiency) };
            let mut machine = machine(performance + efficiency, quota);
            machine.cpu.kinds = Some(kinds);
            machine.recommended_threads()
        };
        assert_eq!(kinds(4, 8, None), 4);
        assert_eq!(kinds(4, 8, Some(2.5)), 2);
        assert_eq!(kinds(4, 8, Some(6.0)), 4);
        assert_eq!(
            ["laptop", "macbook-m2"].map(|name| recorded::tests::machine(name).recommended_threads()),
            [4, 4]
        );
    }
}
