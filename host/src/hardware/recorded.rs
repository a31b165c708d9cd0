//! A machine out of a file: what `pajamas hardware --json` printed elsewhere.

use std::path::PathBuf;

use super::{Hardware, Provider};
use crate::error::{Error, Result};

/// A machine that was recorded as JSON.
#[derive(Debug, Clone)]
pub struct RecordedMachine {
    path: PathBuf,
}

impl RecordedMachine {
    /// The machine recorded in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Provider for RecordedMachine {
    /// # Errors
    /// `file-not-found`, `io`; `invalid-input` when the file is not the record of a machine.
    fn hardware(&self) -> Result<Hardware> {
        let json = std::fs::read(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        serde_json::from_slice(&json).map_err(|e| {
            Error::new("invalid-input", format!("{}: not the record of a machine: {e}", self.path.display()))
                .help("record one with `pajamas hardware --json`")
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::hardware::Devices;

    /// A machine of `machines/`.
    pub fn machine(name: &str) -> Hardware {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hardware/machines");
        RecordedMachine::new(format!("{folder}/{name}.json")).hardware().unwrap()
    }

    #[test]
    fn a_record_replays_as_it_was() {
        for name in ["amx-vm", "workstation", "laptop", "macbook-m2", "two-sockets"] {
            let machine = machine(name);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("machine.json");
            std::fs::write(&path, serde_json::to_vec(&machine).unwrap()).unwrap();
            assert_eq!(RecordedMachine::new(path).hardware().unwrap(), machine);
        }
    }

    /// Those that were recorded before more was asked.
    #[test]
    fn what_an_old_record_does_not_have_is_not_known() {
        let old = machine("amx-vm");
        assert_eq!((old.cpu.kinds, old.load, old.devices), (None, None, Devices::default()));
        assert!(old.numa.is_empty() && old.thermal.is_empty() && old.accelerators.is_empty());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        assert_eq!(RecordedMachine::new(&path).hardware().unwrap_err().code(), "file-not-found");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(RecordedMachine::new(&path).hardware().unwrap_err().code(), "invalid-input");
    }
}
