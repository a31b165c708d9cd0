//! What Apple's systems say of their processors, and what these chips have beside.

use super::{Accelerator, CoreKinds, Cores, CpuList, System};

/// How many cores are of which kind, where there are two; their numbers the system does not tell.
pub(super) fn kinds() -> Option<CoreKinds> {
    kinds_of(level)
}

/// By how many cores a level of performance has; 0 is the fastest.
fn kinds_of(level: impl Fn(u32) -> Option<u32>) -> Option<CoreKinds> {
    let cores =
        |at| level(at).filter(|count| *count > 0).map(|count| Cores { count, cpus: CpuList::default() });
    Some(CoreKinds { performance: cores(0)?, efficiency: cores(1)? })
}

/// The GPU and the neural engine, which each of Apple's own chips has. A virtual machine's processor is named otherwise (`Apple M2
/// (Virtual)`, `Apple processor`): what it may use of them is not known, and neither is the GPU of a Mac with an Intel processor.
pub(super) fn accelerators(system: &System, brand: &str) -> Vec<Accelerator> {
    let chip = brand.strip_prefix("Apple M").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if system.os != "macos" || system.arch != "aarch64" || chip.is_none_or(|rest| rest.contains('(')) {
        return Vec::new();
    }
    let one = |id: &str, what| Accelerator {
        id: id.to_owned(),
        name: format!("{brand} {what}"),
        shares_memory: true,
    };
    vec![one("metal:0", "GPU"), one("ane", "Neural Engine")]
}

#[cfg(target_os = "macos")]
fn level(level: u32) -> Option<u32> {
    let name = std::ffi::CString::new(format!("hw.perflevel{level}.physicalcpu")).ok()?;
    let mut count: libc::c_int = 0;
    let mut size = size_of_val(&count);
    // SAFETY: the name ends with a zero; at most `size` bytes are written to `count`; nothing is set.
    let status = unsafe {
        libc::sysctlbyname(name.as_ptr(), (&raw mut count).cast(), &raw mut size, std::ptr::null_mut(), 0)
    };
    if status == 0 && size == size_of_val(&count) { u32::try_from(count).ok() } else { None }
}

#[cfg(not(target_os = "macos"))]
fn level(_: u32) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_of_performance_are_the_kinds() {
        let of = |levels: [Option<u32>; 2]| kinds_of(|level| levels[level as usize]);
        let kinds = of([Some(4), Some(6)]).unwrap();
        assert_eq!((kinds.performance.count, kinds.efficiency.count), (4, 6));
        assert_eq!([of([Some(8), None]), of([Some(8), Some(0)]), of([None, None])], [None, None, None]);
    }

    #[test]
    fn apples_chips_have_a_gpu_and_a_neural_engine_and_nothing_else_has() {
        let of = |os: &str, arch: &str, brand: &str| {
            let system = System { os: os.to_owned(), name: String::new(), arch: arch.to_owned() };
            accelerators(&system, brand).into_iter().map(|one| (one.id, one.name)).collect::<Vec<_>>()
        };
        let both = [("metal:0", "Apple M3 Max GPU"), ("ane", "Apple M3 Max Neural Engine")];
        assert_eq!(
            of("macos", "aarch64", "Apple M3 Max"),
            both.map(|(id, name)| (id.to_owned(), name.to_owned()))
        );
        for (os, arch, brand) in [
            ("macos", "x86_64", "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz"),
            ("macos", "aarch64", "Apple M2 (Virtual)"),
            ("macos", "aarch64", "Apple processor"),
            ("linux", "aarch64", "Apple M2"),
            ("linux", "aarch64", "Neoverse-V1"),
        ] {
            assert_eq!(of(os, arch, brand), [], "{brand}");
        }
    }
}
