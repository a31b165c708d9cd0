//! Limits that Linux control groups set: what a container or a systemd slice may use of the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The limits of the process, the tightest of its group and all groups above it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Limits {
    /// Processors' worth of time.
    pub(super) cpu: Option<f64>,
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
    /// Bytes left below that limit, counting file cache that can be dropped as free.
    pub(super) memory_left: Option<u64>,
}

/// Version 1 writes "no limit" as the largest multiple of a page: nobody has this much.
const V1_UNLIMITED: u64 = 1 << 60;

impl Limits {
    /// Reads the limits of this process. `proc` and `sys` are the mount points, `/proc` and `/sys`.
    pub(super) fn read(proc: &Path, sys: &Path) -> Self {
        let groups = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
        let root = sys.join("fs/cgroup");
        let mut limits = Self::default();
        for (controllers, path) in groups.lines().filter_map(parse_line) {
            for folder in folders(&root, controllers, path) {
                limits.tighten(match controllers {
                    "" => Self::of_v2(&folder),
                    _ => Self::of_v1(&folder),
                });
            }
        }
        limits
    }

    fn of_v2(folder: &Path) -> Self {
        let cpu = text(folder, "cpu.max").and_then(|max| {
            let (quota, period) = max.split_once(' ')?;
            processors(quota.parse().ok()?, period.parse().ok()?)
        });
        let memory = number(folder, "memory.max");
        let used = number(folder, "memory.current");
        Self { cpu, memory, memory_left: left(memory, used, file_cache(folder, "")) }
    }

    fn of_v1(folder: &Path) -> Self {
        // Without a limit the quota is -1.
        let cpu = number(folder, "cpu.cfs_quota_us")
            .zip(number(folder, "cpu.cfs_period_us"))
            .and_then(|(quota, period)| processors(quota as f64, period as f64));
        let memory = number(folder, "memory.limit_in_bytes").filter(|limit| *limit < V1_UNLIMITED);
        let used = number(folder, "memory.usage_in_bytes");
        Self { cpu, memory, memory_left: left(memory, used, file_cache(folder, "total_")) }
    }

    fn tighten(&mut self, other: Self) {
        let min = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        self.memory = min(self.memory, other.memory);
        self.memory_left = min(self.memory_left, other.memory_left);
        self.cpu = self.cpu.into_iter().chain(other.cpu).reduce(f64::min);
    }
}

/// `hierarchy:controllers:path`; version 2 has hierarchy 0 and no controllers.
fn parse_line(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let ours = controllers.is_empty() || controllers.split(',').any(|c| c == "cpu" || c == "memory");
    ours.then_some((controllers, path.trim_start_matches('/')))
}

/// The folders of a group and of those above it. In a container the path may be that of the host, and only the
/// root be there.
fn folders(root: &Path, controllers: &str, path: &str) -> Vec<PathBuf> {
    let mounts = match controllers {
        // Beside version 1, version 2 is mounted below.
        "" => vec![root.to_owned(), root.join("unified")],
        _ => std::iter::once(controllers).chain(controllers.split(',')).map(|name| root.join(name)).collect(),
    };
    let below = |mount: &PathBuf| Path::new(path).ancestors().map(|p| mount.join(p)).collect::<Vec<_>>();
    mounts.iter().flat_map(below).filter(|folder| folder.is_dir()).collect()
}

fn text(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned())
}

/// A file with a number; `None` for anything else, such as `max`.
fn number(folder: &Path, file: &str) -> Option<u64> {
    text(folder, file)?.parse().ok()
}

fn stat(folder: &Path, name: &str) -> u64 {
    let stat = text(folder, "memory.stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Bytes of files that are kept in memory. All of it can be dropped, also what was read more than once: weights that are
/// mapped, the libraries of a build. `MemAvailable` of a whole machine counts it as free, too.
fn file_cache(folder: &Path, prefix: &str) -> u64 {
    ["inactive_file", "active_file"].iter().map(|name| stat(folder, &format!("{prefix}{name}"))).sum()
}

fn processors(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn left(limit: Option<u64>, used: Option<u64>, droppable: u64) -> Option<u64> {
    Some(limit?.saturating_sub(used.unwrap_or(0).saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits read from a `/proc` and `/sys` made of these files.
    fn limits(files: &[(&str, &str)]) -> Limits {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Limits::read(&root.path().join("proc"), &root.path().join("sys"))
    }

    #[test]
    fn without_groups_there_are_no_limits() {
        assert_eq!(limits(&[]), Limits::default());
        let open = limits(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(open, Limits::default());
    }

    #[test]
    fn version_2_counts_the_tightest_group_on_the_way_up() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/user.slice/pajamas.service\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "700\n"),
            ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/user.slice/pajamas.service/memory.max", "4000\n"),
            ("sys/fs/cgroup/user.slice/pajamas.service/memory.current", "500\n"),
            (
                "sys/fs/cgroup/user.slice/pajamas.service/memory.stat",
                "anon 1\ninactive_file 150\nactive_file 50\n",
            ),
            ("sys/fs/cgroup/user.slice/pajamas.service/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(found, Limits { cpu: Some(1.5), memory: Some(1000), memory_left: Some(300) });
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root_whatever_the_path_says() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/docker/0123abc\n"),
            ("sys/fs/cgroup/memory.max", "4096\n"),
            ("sys/fs/cgroup/memory.current", "96\n"),
        ]);
        assert_eq!(found, Limits { cpu: None, memory: Some(4096), memory_left: Some(4000) });
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let found = limits(&[
            (
                "proc/self/cgroup",
                "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n2:freezer:/\n1:name=systemd:/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes", "900\n"),
            (
                "sys/fs/cgroup/memory/docker/a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(found, Limits { cpu: Some(2.0), memory: Some(2000), memory_left: Some(1500) });
    }
}
