//! Which cores this process may run on, on Linux: hardware threads of one core count once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The number of cores that the process's affinity allows; `None` when the kernel does not say.
pub(super) fn usable_cores(proc: &Path, sys: &Path) -> Option<u32> {
    let status = fs::read_to_string(proc.join("self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let core_of = |cpu: u32| {
        let folder = sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
        let read = |file| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<i32>().ok();
        Some((read("physical_package_id")?, read("core_id")?))
    };
    // The kernel allows more processors than it has ever seen: those without a topology are not there.
    let cores: BTreeSet<_> = parse_list(list)?.into_iter().filter_map(core_of).collect();
    u32::try_from(cores.len()).ok().filter(|n| *n > 0)
}

/// The kernel's lists: `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<Vec<u32>> {
    /// More than any kernel is built for: guards against a range that fills memory.
    const MOST: u32 = 1 << 16;
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of `cpus` hardware threads, two to a core, of which the list is allowed.
    fn cores(cpus: u32, allowed: &str) -> Option<u32> {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("proc/self/status", &format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"));
        for cpu in 0..cpus {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            write(&format!("{folder}/physical_package_id"), "0\n");
            write(&format!("{folder}/core_id"), &format!("{}\n", cpu % (cpus / 2)));
        }
        usable_cores(&root.path().join("proc"), &root.path().join("sys"))
    }

    #[test]
    fn two_threads_of_a_core_are_one_core() {
        assert_eq!(cores(8, "0-7"), Some(4));
        assert_eq!(cores(8, "0,4"), Some(1));
        assert_eq!(cores(8, "0-1,5"), Some(2));
        assert_eq!(cores(8, "0-127"), Some(4));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_known() {
        assert_eq!(cores(8, ""), None);
        assert_eq!(cores(8, "0-4294967295"), None);
        assert_eq!(cores(0, "0-7"), None);
        assert_eq!(usable_cores(Path::new("/nonexistent"), Path::new("/nonexistent")), None);
    }
}
