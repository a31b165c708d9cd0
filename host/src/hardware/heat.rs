//! How hot the processor is, as the system's thermal zones say.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was read counts: reading takes longer than a decision, and heat is slow.
const FRESH: Duration = Duration::from_secs(1);

/// The processor's temperature, read at most once a second. May be asked from any thread.
#[derive(Debug, Default)]
pub struct Heat(Mutex<Option<(Instant, Option<u32>)>>);

impl Heat {
    /// The processor's temperature in degrees Celsius; `None` where the system does not say.
    pub fn cpu(&self) -> Option<u32> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((when, temperature)) if when.elapsed() < FRESH => temperature,
            _ => {
                let temperature = hottest(Path::new("/sys/class/thermal"));
                *last = Some((Instant::now(), temperature));
                temperature
            }
        }
    }
}

/// The hottest of the processor's zones.
fn hottest(zones: &Path) -> Option<u32> {
    let zones = std::fs::read_dir(zones).ok()?.flatten();
    let temperature = |zone: &Path| {
        let kind = std::fs::read_to_string(zone.join("type")).ok()?;
        if !is_of_the_processor(kind.trim()) {
            return None;
        }
        // In thousandths of a degree. A sensor that says less than nothing, or more than any chip bears, is broken.
        let thousandths: i64 = std::fs::read_to_string(zone.join("temp")).ok()?.trim().parse().ok()?;
        u32::try_from(thousandths / 1000).ok().filter(|degrees| (1..150).contains(degrees))
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
        let heat = Heat(Mutex::new(Some((Instant::now(), Some(42)))));
        assert_eq!(heat.cpu(), Some(42));
    }
}
