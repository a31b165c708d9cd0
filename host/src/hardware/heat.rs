//! How hot the processor is, as the system's thermal zones say, and the GPUs, as their driver says.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::nvml::{self, Nvml};

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
    /// Names and temperatures.
    degrees: Vec<(String, u32)>,
}

impl Default for Heat {
    fn default() -> Self {
        Self::with(Path::new(nvml::LIBRARY))
    }
}

impl Heat {
    fn with(library: &Path) -> Self {
        let library = library.to_owned();
        let gpus = Gpus { library, open: None, when: None, degrees: Vec::new() };
        Self { cpu: Mutex::default(), gpus: Mutex::new(gpus) }
    }

    /// The processor's temperature in degrees Celsius; `None` where the system does not say.
    pub fn cpu(&self) -> Option<u32> {
        let mut last = lock(&self.cpu);
        match *last {
            Some((when, temperature)) if when.elapsed() < FRESH => temperature,
            _ => {
                let temperature = hottest(Path::new("/sys/class/thermal"));
                *last = Some((Instant::now(), temperature));
                temperature
            }
        }
    }

    /// The temperature in degrees Celsius of the GPU with this name: of several that have it the hottest, since which of
    /// them a backend calls the first is not told; of all when none has it. `None` where the driver does not say.
    pub fn gpu(&self, name: &str) -> Option<u32> {
        let mut gpus = lock(&self.gpus);
        if gpus.when.is_none_or(|when| when.elapsed() >= FRESH) {
            gpus.read();
        }
        let named = gpus.degrees.iter().filter(|(known, _)| known == name).map(|(_, degrees)| *degrees).max();
        named.or_else(|| gpus.degrees.iter().map(|(_, degrees)| *degrees).max())
    }
}

impl Gpus {
    fn read(&mut self) {
        if self.open.is_none() {
            self.open = Nvml::open(&self.library).ok();
        }
        let told = self.open.as_ref().map(Nvml::temperatures);
        self.degrees = match told {
            Some(Ok(degrees)) => degrees,
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

/// A temperature that a chip can have. A sensor that says nothing, or more than any chip bears, is broken.
pub(super) fn plausible(degrees: u32) -> Option<u32> {
    Some(degrees).filter(|degrees| (1..150).contains(degrees))
}

/// The hottest of the processor's zones.
fn hottest(zones: &Path) -> Option<u32> {
    let zones = std::fs::read_dir(zones).ok()?.flatten();
    let temperature = |zone: &Path| {
        let kind = std::fs::read_to_string(zone.join("type")).ok()?;
        if !is_of_the_processor(kind.trim()) {
            return None;
        }
        let thousandths: i64 = std::fs::read_to_string(zone.join("temp")).ok()?.trim().parse().ok()?;
        u32::try_from(thousandths / 1000).ok().and_then(plausible)
    };
    zones.filter_map(|zone| temperature(&zone.path())).max()
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
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(hottest(folder.path()), None);
        for (zone, kind, temperature) in [
            ("thermal_zone0", "acpitz", "99000"),
            ("thermal_zone1", "x86_pkg_temp", "61000"),
            ("thermal_zone2", "cpu-thermal", "72900"),
            ("thermal_zone3", "cpu1-thermal", "-274000"),
            ("thermal_zone4", "soc_thermal", "65535000"),
            ("thermal_zone5", "cpu2-thermal", "hot"),
        ] {
            let zone = folder.path().join(zone);
            std::fs::create_dir(&zone).unwrap();
            std::fs::write(zone.join("type"), format!("{kind}\n")).unwrap();
            std::fs::write(zone.join("temp"), format!("{temperature}\n")).unwrap();
        }
        assert_eq!(hottest(folder.path()), Some(72));
        assert_eq!(hottest(Path::new("/nowhere")), None);
    }

    #[test]
    fn what_was_read_counts_for_a_while() {
        let heat = Heat::default();
        *lock(&heat.cpu) = Some((Instant::now(), Some(42)));
        assert_eq!(heat.cpu(), Some(42));
        let two = vec![("A".to_owned(), 61), ("B".to_owned(), 80), ("A".to_owned(), 66)];
        *lock(&heat.gpus) =
            Gpus { library: PathBuf::new(), open: None, when: Some(Instant::now()), degrees: two };
        assert_eq!((heat.gpu("A"), heat.gpu("B"), heat.gpu("another")), (Some(66), Some(80), Some(80)));
    }

    #[test]
    fn without_a_driver_no_gpu_has_a_temperature() {
        let heat = Heat::with(Path::new("/nowhere/libnvidia-ml.so.1"));
        assert_eq!((heat.gpu("A"), heat.gpu("")), (None, None));
    }
}
