//! How many threads pay.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Below this many processors hardware threads are not told from cores: virtual machines report them at random.
const FEW: usize = 4;

/// The number of threads to compute with: one for each core that this process may use. Two threads of one core
/// share the units that matrix products are waiting for.
pub(crate) fn default_threads() -> u32 {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match cores(Path::new("/sys/devices/system/cpu")) {
        Some(cores) if available > FEW => cores.min(available),
        _ => available,
    };
    u32::try_from(threads).unwrap_or(1)
}

/// Counts cores by Linux's description of the processor; `None` elsewhere.
fn cores(folder: &Path) -> Option<usize> {
    let mut seen = HashSet::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let topology = entry.path().join("topology");
        let read = |name: &str| fs::read_to_string(topology.join(name)).ok();
        if let (Some(package), Some(core)) = (read("physical_package_id"), read("core_id")) {
            seen.insert((package, core));
        }
    }
    (!seen.is_empty()).then_some(seen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        for (cpu, package, core) in [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 1)] {
            let topology = folder.path().join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("physical_package_id"), package.to_string()).unwrap();
            fs::write(topology.join("core_id"), core.to_string()).unwrap();
        }
        assert_eq!(cores(folder.path()), Some(3));
        assert_eq!(cores(&folder.path().join("nothing")), None);
        assert!(default_threads() >= 1);
    }
}
