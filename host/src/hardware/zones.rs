//! The thermal zones of Linux: places whose temperature some driver tells.

use std::fs;
use std::path::{Path, PathBuf};

use super::ThermalZone;

/// Where they are.
pub(super) const ZONES: &str = "/sys/class/thermal";

/// A zone whose temperature was not asked yet: some drivers take their time.
#[derive(Debug)]
pub(super) struct Zone {
    folder: PathBuf,
    /// What its driver calls it.
    pub(super) name: String,
}

impl Zone {
    /// Its temperature in degrees Celsius; `None` where it tells none that a chip can have.
    pub(super) fn degrees(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("temp")).ok()?;
        let thousandths: i64 = text.trim().parse().ok()?;
        u32::try_from(thousandths / 1000).ok().and_then(plausible)
    }
}

/// The zones below a folder, by their numbers.
pub(super) fn zones(folder: &Path) -> Vec<Zone> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut zones: Vec<(u32, Zone)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("thermal_zone")?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("type")).ok()?.trim().to_owned();
            Some((number, Zone { folder: entry.path(), name }))
        })
        .collect();
    zones.sort_by_key(|(number, _)| *number);
    zones.into_iter().map(|(_, zone)| zone).collect()
}

/// All zones with their temperatures.
pub(super) fn thermal(folder: &Path) -> Vec<ThermalZone> {
    let told = |zone: Zone| ThermalZone { degrees: zone.degrees(), name: zone.name };
    zones(folder).into_iter().map(told).collect()
}

/// A temperature that a chip can have. A sensor that says nothing, or more than any chip bears, is broken.
pub(super) fn plausible(degrees: u32) -> Option<u32> {
    Some(degrees).filter(|degrees| (1..150).contains(degrees))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Zones of a machine whose sensors are of every kind, broken ones too.
    pub fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (zone, kind, temperature) in [
            ("thermal_zone0", "acpitz", "99000"),
            ("thermal_zone10", "x86_pkg_temp", "61000"),
            ("thermal_zone2", "cpu-thermal", "72900"),
            ("thermal_zone3", "cpu1-thermal", "-274000"),
            ("thermal_zone4", "soc_thermal", "65535000"),
            ("thermal_zone5", "cpu2-thermal", "hot"),
            ("cooling_device0", "Processor", "0"),
        ] {
            let zone = folder.path().join(zone);
            fs::create_dir(&zone).unwrap();
            fs::write(zone.join("type"), format!("{kind}\n")).unwrap();
            fs::write(zone.join("temp"), format!("{temperature}\n")).unwrap();
        }
        fs::create_dir(folder.path().join("thermal_zone6")).unwrap();
        folder
    }

    #[test]
    fn zones_have_names_and_degrees_that_a_chip_can_have() {
        let told: Vec<_> =
            thermal(folder().path()).into_iter().map(|zone| (zone.name, zone.degrees)).collect();
        let zones = [
            ("acpitz", Some(99)),
            ("cpu-thermal", Some(72)),
            ("cpu1-thermal", None),
            ("soc_thermal", None),
            ("cpu2-thermal", None),
            ("x86_pkg_temp", Some(61)),
        ];
        assert_eq!(told, zones.map(|(name, degrees)| (name.to_owned(), degrees)));
        assert_eq!(thermal(Path::new("/nowhere")), []);
    }
}
