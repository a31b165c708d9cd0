//! What Apple's systems say of their processors.

use super::{CoreKinds, Cores, CpuList};

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
}
