//! How hot the processor is, as the system's thermal zones say, and the GPUs, as their driver says.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::nvml::{self, Nvml};
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
                let temperature = hottest(Path::new(ZONES));
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
