//! What is known of machines beyond what they say: `profiles.toml`.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hardware::{Cpu, Gpu};

const BUILT_IN: &str = include_str!("../profiles.toml");

/// What is known of machines beyond what they say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    pub(super) gpus: Vec<GpuProfile>,
    pub(super) processors: Vec<Processor>,
    pub(super) shares: Vec<Share>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GpuProfile {
    /// A part of its name.
    pub(super) name: String,
    /// GiB of memory from, up to.
    #[serde(default)]
    pub(super) memory: Option<[u64; 2]>,
    /// Whether its memory is that of the processor.
    #[serde(default)]
    pub(super) unified: bool,
    /// GB/s.
    pub(super) bandwidth: u32,
    pub(super) source: String,
}

/// A processor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Processor {
    /// A part of its name.
    #[serde(default)]
    pub(super) name: String,
    /// Instruction sets that it has.
    #[serde(default)]
    pub(super) features: Vec<String>,
    /// Cores that it has at least.
    #[serde(default)]
    pub(super) cores: u32,
    /// Whether its memory is only what such machines come with.
    #[serde(default)]
    pub(super) class: bool,
    /// GB/s.
    pub(super) bandwidth: u32,
    /// Cores that compute fast.
    #[serde(default)]
    pub(super) fast_cores: Option<u32>,
    /// The GPU that computes in the same memory.
    #[serde(default)]
    pub(super) gpu: Option<String>,
    pub(super) source: String,
}

/// What a GPU may use of memory that it shares.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    /// GiB of memory.
    #[serde(default)]
    up_to: Option<u64>,
    share: f64,
    source: String,
}

impl Profiles {
    /// Those that the host has with it.
    ///
    /// # Errors
    /// `internal` if they were damaged when the host was built.
    pub fn built_in() -> Result<Self> {
        toml::from_str(BUILT_IN)
            .map_err(|error| Error::new("internal", format!("the profiles of machines: {error}")))
    }

    /// What is known of a GPU.
    pub(super) fn gpu(&self, gpu: &Gpu) -> Option<&GpuProfile> {
        let gib = gpu.memory_total >> 30;
        let fits = |profile: &&GpuProfile| {
            let size = profile.memory.is_none_or(|[from, up_to]| (from..up_to).contains(&gib));
            size && gpu.name.contains(&profile.name)
        };
        self.gpus.iter().find(fits)
    }

    /// What is known of a processor.
    pub(super) fn processor(&self, cpu: &Cpu) -> Option<&Processor> {
        let fits = |profile: &&Processor| {
            let has = |feature: &String| cpu.features.contains(feature);
            let told = if profile.name.is_empty() {
                !profile.features.is_empty()
            } else {
                has_word(&cpu.brand, &profile.name)
            };
            told && profile.features.iter().all(has) && cpu.physical_cores >= profile.cores
        };
        self.processors.iter().find(fits)
    }

    /// Bytes that a GPU may use of memory that it shares with the processor, and who says so.
    pub(super) fn shared(&self, total: u64) -> (u64, &str) {
        let gib = total >> 30;
        let share = self.shares.iter().find(|share| share.up_to.is_none_or(|most| gib <= most));
        share.map_or((total, ""), |share| ((total as f64 * share.share) as u64, share.source.as_str()))
    }
}

/// Whether a name has a part that no letter or digit goes on: `Apple M1` is not in `Apple M15`.
fn has_word(name: &str, part: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    name.match_indices(part).any(|(at, part)| !goes_on(&name[at + part.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str, gib: u64) -> Gpu {
        Gpu {
            name: name.to_owned(),
            memory_total: gib << 30,
            ..crate::hardware::recorded::tests::machine("rtx-4090").gpus.devices[0].clone()
        }
    }

    #[test]
    fn the_longest_name_and_the_right_size_count() {
        let profiles = Profiles::built_in().unwrap();
        for (name, gib, bandwidth) in [
            ("NVIDIA GeForce RTX 3060", 12, 360),
            ("NVIDIA GeForce RTX 3060", 8, 240),
            ("NVIDIA GeForce RTX 4070 Ti SUPER", 16, 672),
            ("NVIDIA GeForce RTX 4070 SUPER", 12, 504),
            ("NVIDIA A100-SXM4-40GB", 40, 1555),
            ("NVIDIA A100-SXM4-80GB", 80, 2039),
            ("NVIDIA A100 80GB PCIe", 80, 1935),
            ("NVIDIA H100 80GB HBM3", 79, 3350),
            ("NVIDIA H100 PCIe", 79, 2039),
            ("NVIDIA H100 NVL", 93, 3938),
            ("Orin (nvgpu)", 7, 102),
            ("Orin (nvgpu)", 61, 205),
        ] {
            assert_eq!(profiles.gpu(&gpu(name, gib)).unwrap().bandwidth, bandwidth, "{name} {gib}");
        }
        assert_eq!(profiles.gpu(&gpu("NVIDIA GeForce GTX 1080", 8)), None);
    }

    #[test]
    fn every_number_has_a_source_and_every_entry_can_be_reached() {
        let profiles = Profiles::built_in().unwrap();
        let sources = profiles.gpus.iter().map(|gpu| (&gpu.name, &gpu.source, gpu.bandwidth));
        let processors = profiles.processors.iter().map(|one| (&one.name, &one.source, one.bandwidth));
        for (name, source, bandwidth) in sources.chain(processors) {
            assert!(!source.is_empty() && (10..10_000).contains(&bandwidth), "{name}");
        }
        for (place, one) in profiles.gpus.iter().enumerate() {
            let hidden = |earlier: &GpuProfile| one.name.contains(&earlier.name) && earlier.memory.is_none();
            assert!(!profiles.gpus[..place].iter().any(hidden), "{}", one.name);
        }
        for (place, one) in profiles.processors.iter().enumerate().filter(|(_, one)| !one.name.is_empty()) {
            let hidden = |earlier: &Processor| has_word(&one.name, &earlier.name) && !earlier.name.is_empty();
            assert!(!profiles.processors[..place].iter().any(hidden), "{}", one.name);
        }
    }

    #[test]
    fn a_gpu_gets_a_part_of_memory_that_it_shares() {
        let profiles = Profiles::built_in().unwrap();
        // What llama.cpp was told on machines with 16 and 64 GiB.
        let mib = |gib: u64| profiles.shared(gib << 30).0 >> 20;
        assert!((10_000..=10_922).contains(&mib(16)) && (20_000..=21_845).contains(&mib(32)));
        assert_eq!((mib(64), mib(96)), (49_152, 73_728));
    }
}
