//! Which cores this process may run on, on Linux: hardware threads of one core count once; and which of them are fast.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{CoreKinds, Cores, CpuList};

/// The cores that the process's affinity allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Usable {
    /// How many.
    pub(super) cores: u32,
    /// Which of them are of which kind, where there are two.
    pub(super) kinds: Option<CoreKinds>,
}

/// A core: its package, its cluster there, its number there. Kernels for ARM count the cores of each cluster from 0.
type Core = (i32, i32, i32);

/// The cores that the process's affinity allows; `None` when the kernel does not say.
pub(super) fn usable(proc: &Path, sys: &Path) -> Option<Usable> {
    let status = fs::read_to_string(proc.join("self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    // The kernel allows more processors than it has ever seen: those without a topology are not there.
    let mut cores: BTreeMap<Core, Vec<u32>> = BTreeMap::new();
    for cpu in list.parse::<CpuList>().ok()?.iter() {
        if let Some(core) = core_of(sys, cpu) {
            cores.entry(core).or_default().push(cpu);
        }
    }
    let count = u32::try_from(cores.len()).ok().filter(|n| *n > 0)?;
    Some(Usable { cores: count, kinds: kinds(sys, &cores) })
}

fn core_of(sys: &Path, cpu: u32) -> Option<Core> {
    let folder = of_cpu(sys, cpu).join("topology");
    let number = |file| number::<i32>(&folder.join(file));
    Some((number("physical_package_id")?, number("cluster_id").unwrap_or(-1), number("core_id")?))
}

/// The kinds of these cores; `None` where all are of one, or the kernel does not say.
fn kinds(sys: &Path, cores: &BTreeMap<Core, Vec<u32>>) -> Option<CoreKinds> {
    let fast = of_intel(sys).or_else(|| by_capacity(sys, cores.values().flatten().copied()))?;
    let (performance, efficiency): (Vec<_>, Vec<_>) =
        cores.values().partition(|cpus| cpus.iter().any(|cpu| fast.contains(*cpu)));
    let cores = |cores: Vec<&Vec<u32>>| Cores {
        count: u32::try_from(cores.len()).unwrap_or(u32::MAX),
        cpus: cores.into_iter().flatten().copied().collect(),
    };
    (!performance.is_empty() && !efficiency.is_empty())
        .then(|| CoreKinds { performance: cores(performance), efficiency: cores(efficiency) })
}

/// Hybrid processors of Intel have a performance counter for each kind. What is neither a core nor an atom (`lowpower`) is no fast
/// one, either.
fn of_intel(sys: &Path) -> Option<CpuList> {
    let list = |kind| fs::read_to_string(sys.join(format!("devices/{kind}/cpus"))).ok()?.parse().ok();
    list("cpu_atom").and_then(|_: CpuList| list("cpu_core"))
}

/// ARM's cores by how much each computes, of 1024. A slow core has less than half of the fastest one's: where as many slow as fast
/// ones step together, they are no faster than the fast ones alone.
fn by_capacity(sys: &Path, cpus: impl Iterator<Item = u32>) -> Option<CpuList> {
    let capacity = |cpu| Some((cpu, number::<u32>(&of_cpu(sys, cpu).join("cpu_capacity"))?));
    let capacities: Vec<(u32, u32)> = cpus.map(capacity).collect::<Option<_>>()?;
    let most = capacities.iter().map(|(_, capacity)| *capacity).max()?;
    Some(capacities.into_iter().filter(|(_, one)| *one >= most.div_ceil(2)).map(|(cpu, _)| cpu).collect())
}

fn of_cpu(sys: &Path, cpu: u32) -> std::path::PathBuf {
    sys.join(format!("devices/system/cpu/cpu{cpu}"))
}

fn number<N: std::str::FromStr>(file: &Path) -> Option<N> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine as the kernel shows it.
    struct Machine(tempfile::TempDir);

    impl Machine {
        /// Of `cpus` hardware threads, two to a core, of which the list is allowed.
        fn new(cpus: u32, allowed: &str) -> Self {
            let machine = Self::allowing(allowed);
            (0..cpus).for_each(|cpu| machine.core(cpu, "", cpu % (cpus / 2)));
            machine
        }

        fn allowing(allowed: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine.write("proc/self/status", &format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"));
            machine
        }

        fn core(&self, cpu: u32, cluster: &str, core: u32) {
            let folder = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            self.write(&format!("{folder}/physical_package_id"), "0\n");
            self.write(&format!("{folder}/core_id"), &format!("{core}\n"));
            if !cluster.is_empty() {
                self.write(&format!("{folder}/cluster_id"), cluster);
            }
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn usable(&self) -> Option<Usable> {
            usable(&self.0.path().join("proc"), &self.0.path().join("sys"))
        }

        /// Counts and hardware threads of the fast cores and of the others.
        fn kinds(&self) -> Option<[(u32, String); 2]> {
            let CoreKinds { performance, efficiency } = self.usable()?.kinds?;
            Some([performance, efficiency].map(|cores| (cores.count, cores.cpus.to_string())))
        }
    }

    fn cores(cpus: u32, allowed: &str) -> Option<u32> {
        Some(Machine::new(cpus, allowed).usable()?.cores)
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
        assert_eq!(usable(Path::new("/nonexistent"), Path::new("/nonexistent")), None);
        assert_eq!(Machine::new(8, "0-7").kinds(), None);
    }

    /// Two fast cores of two threads each, and four slow ones.
    fn hybrid(allowed: &str) -> Machine {
        let machine = Machine::allowing(allowed);
        (0..4).for_each(|cpu| machine.core(cpu, "0\n", cpu / 2));
        (4..8).for_each(|cpu| machine.core(cpu, "8\n", cpu));
        machine.write("sys/devices/cpu_core/cpus", "0-3\n");
        machine.write("sys/devices/cpu_atom/cpus", "4-7\n");
        machine
    }

    #[test]
    fn a_hybrid_processor_tells_which_cores_are_fast() {
        let both =
            |fast: (u32, &str), slow: (u32, &str)| Some([fast, slow].map(|(n, cpus)| (n, cpus.to_owned())));
        let machine = hybrid("0-7");
        assert_eq!(machine.usable().unwrap().cores, 6);
        assert_eq!(machine.kinds(), both((2, "0-3"), (4, "4-7")));
        assert_eq!(hybrid("1,6-7").kinds(), both((1, "1"), (2, "6-7")));
        // Where only one kind may be used, there is nothing to choose.
        assert_eq!((hybrid("4-7").kinds(), hybrid("0-3").kinds()), (None, None));
        // Newer kernels have a third kind.
        machine.write("sys/devices/cpu_atom/cpus", "4-5\n");
        machine.write("sys/devices/cpu_lowpower/cpus", "6-7\n");
        assert_eq!(machine.kinds(), both((2, "0-3"), (4, "4-7")));
        machine.write("sys/devices/cpu_core/cpus", "all of them\n");
        assert_eq!(machine.kinds(), None);
    }

    /// A machine with ARM's cores of these capacities, four to a cluster, each cluster counted from 0.
    fn arm(capacities: &[&str]) -> Machine {
        let machine = Machine::allowing("0-63");
        for (cpu, capacity) in (0..).zip(capacities) {
            machine.core(cpu, &format!("{}\n", cpu / 4), cpu % 4);
            machine.write(&format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"), capacity);
        }
        machine
    }

    #[test]
    fn arms_cores_are_fast_or_slow_by_what_they_compute() {
        let (fast, slow) = ("1024\n", "414\n");
        let machine = arm(&[slow, slow, slow, slow, fast, fast, "1000\n", "870\n"]);
        assert_eq!(machine.usable().unwrap().cores, 8, "each cluster counts its cores from 0");
        assert_eq!(machine.kinds(), Some([(4, "4-7".to_owned()), (4, "0-3".to_owned())]));
        assert_eq!(arm(&[fast, fast, "682\n", "682\n"]).kinds(), None, "all compute");
        assert_eq!(arm(&[slow, slow]).kinds(), None);
        assert_eq!(arm(&[fast, "?\n"]).kinds(), None);
    }
}
