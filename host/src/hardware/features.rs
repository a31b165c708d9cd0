//! Instruction sets that inference engines have code for.

/// Those that this processor has and the operating system lets programs use, the most basic first.
pub(super) fn detect() -> Vec<String> {
    platform().into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(target_arch = "x86_64")]
fn platform() -> Vec<(&'static str, bool)> {
    macro_rules! features {
        ($($name:tt)*) => { vec![$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let mut features = features![
        "sse4.2" "avx" "f16c" "fma" "avx2" "avxvnni"
        "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vbmi" "avx512vnni" "avx512bf16" "avx512fp16"
    ];
    features.extend(amx());
    features
}

/// The standard library's detection of AMX is not stable yet: this asks the processor itself.
#[cfg(target_arch = "x86_64")]
fn amx() -> [(&'static str, bool); 3] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Leaf 1, ecx: the operating system saves extended registers, and lets programs ask which.
    const OSXSAVE: u32 = 1 << 27;
    /// XCR0: tile configuration and tile data are saved.
    const TILES: u64 = 0b11 << 17;

    let extended = __cpuid(0).eax >= 7;
    let leaf = __cpuid_count(7, 0);
    let tiles = extended && __cpuid(1).ecx & OSXSAVE != 0 && {
        // SAFETY: OSXSAVE says that the instruction exists and is allowed.
        unsafe { extended_registers() & TILES == TILES }
    };
    let bit = |n: u32| tiles && leaf.edx & (1 << n) != 0;
    [("amx-tile", bit(24)), ("amx-int8", bit(25)), ("amx-bf16", bit(22))]
}

/// XCR0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "xsave")]
fn extended_registers() -> u64 {
    // SAFETY: register 0 exists wherever the instruction does.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

#[cfg(target_arch = "aarch64")]
fn platform() -> Vec<(&'static str, bool)> {
    macro_rules! features {
        ($($name:tt)*) => { vec![$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    features!["neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn platform() -> Vec<(&'static str, bool)> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_agree_with_the_kernels_list() {
        let Ok(cpuinfo) = std::fs::read_to_string("/proc/cpuinfo") else {
            return eprintln!("skipped: there is no /proc/cpuinfo to compare with");
        };
        let Some(flags) = cpuinfo.lines().find_map(|l| l.strip_prefix("flags")) else {
            return eprintln!("skipped: /proc/cpuinfo has no x86 flags to compare with");
        };
        let kernel: Vec<&str> = flags.split_whitespace().collect();
        let ours = detect();
        for (name, flag) in [
            ("avx2", "avx2"),
            ("fma", "fma"),
            ("f16c", "f16c"),
            ("avx512f", "avx512f"),
            ("avx512vnni", "avx512_vnni"),
            ("avxvnni", "avx_vnni"),
            ("amx-tile", "amx_tile"),
            ("amx-int8", "amx_int8"),
            ("amx-bf16", "amx_bf16"),
        ] {
            assert_eq!(ours.iter().any(|f| f == name), kernel.contains(&flag), "{name}");
        }
    }
}
