//! How hot the processor is, as the system's thermal zones say, and the GPUs, as their driver says: what decisions look at.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::nvml::{self, Nvml, Warmth};
use super::zones::{self, ZONES};

/// How long what was read counts: reading takes longer than a decision, and heat is slow.
const FRESH: Duration = Duration::from_secs(1);

/// Temperatures, each read at most once a second. May be asked from any thread.
#[derive(Debug)]
pub struct Heat {
    cpu: Mutex<Option<(Instant, Option<u32>)>>,
    gpus: Mutex<Gpus>,
}

/// What the driver said last.
#[derive(Debug)]
struct Gpus {
    library: PathBuf,
    /// Kept open as long as it answers.
    open: Option<Nvml>,
    when: Option<Instant>,
    told: Vec<Warmth>,
}

/// How hot a GPU is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuHeat {
    /// Its temperature in degrees Celsius; `None` where the driver does not say.
    pub temperature: Option<u32>,
    /// Whether heat makes it slower than it could be. Its memory may be too hot while the chip is not.
    pub throttled: bool,
}

impl Default for Heat {
    fn default() -> Self {
        Self::with(Path::new(nvml::LIBRARY))
    }
}

impl Heat {
    fn with(library: &Path) -> Self {
        let library = library.to_owned();
        let gpus = Gpus { library, open: None, when: None, told: Vec::new() };
        Self { cpu: Mutex::default(), gpus: Mutex::new(gpus) }
    }

    /// The processor's temperature in degrees Celsius; `None` where the system does not say.
    pub fn cpu(&self) -> Option<u32> {
        let mut last = lock(&self.cpu);
        match *last {
            Some((when, temperature)) if when.elapsed() < FRESH => temperature,
            _ => {
                let temperature = hottest(Path::new(ZONES));
                *last = Some((Instant::now(), temperature));
                temperature
            }
        }
    }

    /// The heat of the GPU with this name: of several that have it the hottest, and slowed down if one is, since which of them a
    /// backend calls the first is not told; of all when none has it. Nothing where the driver does not say.
    pub fn gpu(&self, name: &str) -> GpuHeat {
        let mut gpus = lock(&self.gpus);
        if gpus.when.is_none_or(|when| when.elapsed() >= FRESH) {
            gpus.read();
        }
        let known = gpus.told.iter().any(|one| one.name == name);
        let meant = || gpus.told.iter().filter(|one| !known || one.name == name);
        GpuHeat {
            temperature: meant().filter_map(|one| one.degrees).max(),
            throttled: meant().any(|one| one.slowed),
        }
    }
}

impl Gpus {
    fn read(&mut self) {
        if self.open.is_none() {
            self.open = Nvml::open(&self.library).ok();
        }
        let told = self.open.as_ref().map(Nvml::heat);
        self.told = match told {
            Some(Ok(told)) => told,
            // A driver that was exchanged or is gone answers no more; its successor may.
            _ => {
                self.open = None;
                Vec::new()
            }
        };
        self.when = Some(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The hottest of the processor's zones; only these are asked.
fn hottest(folder: &Path) -> Option<u32> {
    let zones = zones::zones(folder).into_iter().filter(|zone| is_of_the_processor(&zone.name));
    zones.filter_map(|zone| zone.degrees()).max()
}

/// Zones have the names that their drivers give them.
fn is_of_the_processor(kind: &str) -> bool {
    kind == "x86_pkg_temp" || kind == "k10temp" || ["cpu", "soc"].iter().any(|name| kind.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_zone_of_the_processor_counts() {
        let folder = zones::tests::folder();
        assert_eq!(hottest(folder.path()), Some(72));
        assert_eq!(hottest(Path::new("/nowhere")), None);
    }

    #[test]
    fn what_was_read_counts_for_a_while() {
        let heat = Heat::default();
        *lock(&heat.cpu) = Some((Instant::now(), Some(42)));
        assert_eq!(heat.cpu(), Some(42));
        let one = |name: &str, degrees, slowed| Warmth { name: name.to_owned(), degrees, slowed };
        let told = vec![
            one("A", Some(61), true),
            one("B", Some(80), false),
            one("A", Some(66), false),
            one("C", None, true),
        ];
        *lock(&heat.gpus) = Gpus { library: PathBuf::new(), open: None, when: Some(Instant::now()), told };
        let told = |name| heat.gpu(name);
        assert_eq!(told("A"), GpuHeat { temperature: Some(66), throttled: true });
        assert_eq!(told("B"), GpuHeat { temperature: Some(80), throttled: false });
        assert_eq!(told("C"), GpuHeat { temperature: None, throttled: true });
        assert_eq!(told("another"), GpuHeat { temperature: Some(80), throttled: true });
    }

    /// What is said of the GPUs of a stand-in for the driver, each time anew; `None` without a C compiler.
    fn told(definitions: &[&str], times: usize) -> Option<Vec<GpuHeat>> {
        let folder = tempfile::tempdir().unwrap();
        let heat = Heat::with(&nvml::tests::fake(folder.path(), definitions)?);
        let again = || {
            lock(&heat.gpus).when = None;
            heat.gpu("NVIDIA Test GPU")
        };
        Some((0..times).map(|_| again()).collect())
    }

    #[test]
    fn a_gpu_is_slowed_down_by_heat_and_by_no_other_reason() {
        for (reasons, throttled) in
            [("0x1", false), ("0x4", false), ("0x80|0x8|0x4", false), ("0x20", true), ("0x40|0x8", true)]
        {
            let Some(told) = told(&[&format!("-DREASONS=({reasons})")], 1) else { return };
            assert_eq!(told, [GpuHeat { temperature: Some(71), throttled }], "{reasons}");
        }
    }

    #[test]
    fn a_driver_that_lies_or_disappears_leaves_the_heat_unknown() {
        let Some(lies) = told(&["-DLIES"], 1) else { return };
        assert_eq!(lies, [GpuHeat::default()]);
        let hot = GpuHeat { temperature: Some(71), throttled: true };
        let Some(gone) = told(&["-DGONE_AFTER=2"], 3) else { return };
        assert_eq!(gone, [hot, hot, GpuHeat::default()]);
        let Some(never) = told(&["-DINIT=9"], 2) else { return };
        assert_eq!(never, [GpuHeat::default(); 2]);
    }

    #[test]
    fn without_a_driver_no_gpu_has_a_temperature() {
        let heat = Heat::with(Path::new("/nowhere/libnvidia-ml.so.1"));
        assert_eq!([heat.gpu("A"), heat.gpu("")], [GpuHeat::default(); 2]);
    }
}
