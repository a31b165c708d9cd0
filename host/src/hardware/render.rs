//! A machine as a person reads it.

use std::fmt;

use super::{Accelerator, Cpu, Device, Devices, Gpu, Gpus, Hardware, Load, Memory, NumaNode, ThermalZone};

/// Width of the left column.
const LABEL: usize = 12;

/// Width of a line in the right column, for lists that wrap.
const WIDTH: usize = 72;

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "System", &[format!("{}, {}", self.system.name, self.system.arch)])?;
        section(f, "Processor", &processor(&self.cpu))?;
        section(f, "Memory", &memory(&self.memory))?;
        section(f, "NUMA", &numa(&self.numa))?;
        section(f, "GPU", &gpus(&self.gpus, &self.accelerators))?;
        section(f, "Devices", &devices(&self.devices))?;
        section(f, "Heat", &heat(&self.thermal))?;
        section(f, "Load", &self.load.iter().map(load).collect::<Vec<_>>())?;
        let threads = self.recommended_threads();
        section(f, "Threads", &[format!("{threads} for computing")])
    }
}

fn section(f: &mut fmt::Formatter<'_>, label: &str, lines: &[String]) -> fmt::Result {
    let labels = std::iter::once(label).chain(std::iter::repeat(""));
    labels.zip(lines).try_for_each(|(label, line)| writeln!(f, "{label:LABEL$}{line}"))
}

fn processor(cpu: &Cpu) -> Vec<String> {
    let mut counts =
        format!("{}, {}", plural(cpu.physical_cores, "core"), plural(cpu.logical_cores, "thread"));
    if let Some(kinds) = &cpu.kinds {
        let (fast, slow) = (kinds.performance.count, kinds.efficiency.count);
        counts += &format!("; {fast} for performance, {slow} for efficiency");
    }
    if cpu.usable_cores < cpu.physical_cores {
        counts += &format!("; this process may use {}", plural(cpu.usable_cores, "core"));
    }
    if let Some(quota) = cpu.quota {
        counts += &format!("; the control group grants the time of {quota:.1}");
    }
    let mut lines = vec![cpu.brand.clone(), counts];
    lines.extend(wrap(cpu.features.iter().cloned(), " "));
    lines
}

fn memory(memory: &Memory) -> Vec<String> {
    let mut lines = vec![format!("{}, {} available", bytes(memory.total), bytes(memory.available))];
    if memory.limit.is_some() {
        lines.push(format!("the control group's limit; {} are installed", bytes(memory.installed)));
    }
    lines
}

/// The nodes, where there are several: the memory of one is the machine's.
fn numa(nodes: &[NumaNode]) -> Vec<String> {
    let node = |node: &NumaNode| {
        let mut line = format!("node {}: ", node.id);
        line += &if node.cpus.is_empty() {
            "no processors".to_owned()
        } else {
            format!("processors {}", node.cpus)
        };
        if node.memory_total > 0 {
            line += &format!(", {}, {} unused", bytes(node.memory_total), bytes(node.memory_free));
        }
        line
    };
    if nodes.len() > 1 { nodes.iter().map(node).collect() } else { Vec::new() }
}

fn heat(zones: &[ThermalZone]) -> Vec<String> {
    let zone = |ThermalZone { name, degrees }: &ThermalZone| match degrees {
        Some(degrees) => format!("{name} {degrees} °C"),
        None => format!("{name} unknown"),
    };
    wrap(zones.iter().map(zone), ", ")
}

fn load(Load { one, five, fifteen }: &Load) -> String {
    format!("{one:.2}, {five:.2}, {fifteen:.2} in the last 1, 5, 15 minutes")
}

fn gpus(gpus: &Gpus, others: &[Accelerator]) -> Vec<String> {
    let mut lines: Vec<String> = gpus.devices.iter().map(gpu).chain(others.iter().map(accelerator)).collect();
    // Nobody misses an NVIDIA driver where the chip has a GPU of its own.
    if let Some(reason) = gpus.why_none.as_ref().filter(|_| others.is_empty()) {
        lines.push(format!("none: {reason}"));
    }
    let version =
        |name, version: &Option<String>| version.as_ref().map(|version| format!("{name} {version}"));
    let versions: Vec<String> =
        [version("driver", &gpus.driver), version("CUDA", &gpus.cuda)].into_iter().flatten().collect();
    if !versions.is_empty() {
        lines.push(versions.join(", "));
    }
    lines
}

fn gpu(gpu: &Gpu) -> String {
    let mut line = format!("{}: {}", gpu.index, gpu.name);
    if gpu.memory_total > 0 {
        line += &format!(", {}, {} free", bytes(gpu.memory_total), bytes(gpu.memory_free));
    }
    if let Some(capability) = &gpu.compute_capability {
        line += &format!(", compute {capability}");
    }
    let numbers = [(gpu.utilisation, " % busy"), (gpu.temperature, " °C"), (gpu.power, " W")];
    for (number, unit) in numbers.iter().filter_map(|(number, unit)| Some((number.as_ref()?, unit))) {
        line += &format!(", {number}{unit}");
    }
    if !gpu.throttled.is_empty() {
        line += &format!("; slowed down: {}", gpu.throttled.join(", "));
    }
    line
}

fn accelerator(Accelerator { id, name, shares_memory }: &Accelerator) -> String {
    format!("{id}: {name}{}", if *shares_memory { ", shares the memory" } else { "" })
}

fn devices(devices: &Devices) -> Vec<String> {
    let none = devices.why_none.iter().map(|reason| format!("none: {reason}"));
    devices.known.iter().map(device).chain(none).collect()
}

fn device(device: &Device) -> String {
    let mut line = format!("{}: {}", device.id, device.name);
    if device.memory_total > 0 {
        line += &format!(", {}", bytes(device.memory_total));
    }
    if device.memory_free > 0 {
        line += &format!(", {} free", bytes(device.memory_free));
    }
    line + &format!(" ({})", device.backends.join(", "))
}

fn plural(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// To a tenth of the largest unit that fits: for people, who compare sizes rather than add them.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} B"),
    }
}

/// Words in lines, with something between them.
fn wrap(words: impl IntoIterator<Item = String>, between: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + between.len() + word.len() <= WIDTH => {
                line.push_str(between);
                line.push_str(&word);
            }
            last => {
                // What goes on in the next line ends with a comma, and not with the space behind it.
                last.into_iter().for_each(|line| line.push_str(between.trim_end()));
                lines.push(word);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::recorded::tests::machine;

    #[test]
    fn a_virtual_machine_without_a_gpu() {
        insta::assert_snapshot!(machine("amx-vm"), @r"
        System      Linux (Debian GNU/Linux 12), x86_64
        Processor   Intel(R) Xeon(R) Processor
                    2 cores, 2 threads
                    sse4.2 avx f16c fma avx2 avxvnni avx512f avx512bw avx512dq avx512vl
                    avx512vbmi avx512vnni avx512bf16 avx512fp16 amx-tile amx-int8 amx-bf16
        Memory      23.5 GiB, 17.0 GiB available
        GPU         none: libnvidia-ml.so.1 is not installed (no NVIDIA driver)
        Threads     2 for computing
        ");
    }

    #[test]
    fn a_workstation_with_limits_and_two_gpus() {
        insta::assert_snapshot!(machine("workstation"), @r"
        System      Linux (Ubuntu 24.04), x86_64
        Processor   AMD Ryzen 9 7950X 16-Core Processor
                    16 cores, 32 threads; this process may use 8 cores; the control group grants the time of 6.5
                    sse4.2 avx f16c fma avx2 avx512f avx512bw avx512dq avx512vl avx512vbmi
                    avx512vnni avx512bf16
        Memory      16.0 GiB, 12.0 GiB available
                    the control group's limit; 62.0 GiB are installed
        GPU         0: NVIDIA GeForce RTX 4090, 24.0 GiB, 22.0 GiB free, compute 8.9
                    1: NVIDIA GeForce RTX 3060
                    driver 550.54.15, CUDA 12.4
        Threads     6 for computing
        ");
    }

    #[test]
    fn a_laptop_with_cores_of_two_kinds_and_sensors() {
        insta::assert_snapshot!(machine("laptop"), @r"
        System      Linux (Ubuntu 24.04), x86_64
        Processor   12th Gen Intel(R) Core(TM) i5-1240P
                    12 cores, 16 threads; 4 for performance, 8 for efficiency
                    sse4.2 avx f16c fma avx2 avxvnni
        Memory      15.4 GiB, 10.9 GiB available
        GPU         none: libnvidia-ml.so.1 is not installed (no NVIDIA driver)
        Heat        INT3400 Thermal 20 °C, acpitz 46 °C, TCPU 47 °C, iwlwifi_1 unknown,
                    x86_pkg_temp 48 °C
        Load        0.61, 0.74, 0.58 in the last 1, 5, 15 minutes
        Threads     4 for computing
        ");
    }

    #[test]
    fn a_macbook_whose_chip_has_more_than_a_processor() {
        insta::assert_snapshot!(machine("macbook-m2"), @r"
        System      macOS 15.5 Sequoia, aarch64
        Processor   Apple M2
                    8 cores, 8 threads; 4 for performance, 4 for efficiency
                    neon fp16 dotprod bf16 i8mm
        Memory      16.0 GiB, 10.0 GiB available
        GPU         metal:0: Apple M2 GPU, shares the memory
                    ane: Apple M2 Neural Engine, shares the memory
        Devices     metal:0: Apple M2 (gguf/gguf)
                    cpu: Apple M2, 16.0 GiB (gguf/gguf, onnx/rten)
        Load        1.92, 2.10, 1.87 in the last 1, 5, 15 minutes
        Threads     4 for computing
        ");
    }

    #[test]
    fn a_server_with_two_nodes_of_memory() {
        let told = machine("two-sockets").to_string();
        let nodes = "\nNUMA        node 0: processors 0-31,64-95, 188.7 GiB, 177.2 GiB unused\n            \
            node 1: processors 32-63,96-127, 188.9 GiB, 184.0 GiB unused\n";
        assert!(told.contains(nodes), "{told}");
        // One node is all memory.
        assert!(!machine("raspberry-pi-5").to_string().contains("NUMA"));
    }

    #[test]
    fn why_no_backend_has_a_device_is_told() {
        let mut machine = machine("amx-vm");
        machine.devices.why_none = Some("no plugin was asked: so [config]".to_owned());
        let told = machine.to_string();
        assert!(told.contains("\nDevices     none: no plugin was asked: so [config]\n"), "{told}");
    }

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(
            [bytes(0), bytes(1536), bytes(5 << 20), bytes(3 << 29)],
            ["0 B", "1.5 KiB", "5.0 MiB", "1.5 GiB"]
        );
    }
}
