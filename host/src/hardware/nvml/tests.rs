//! With a library that answers like the driver's, lies, and disappears.

use super::*;
use crate::hardware::Hardware;

/// Builds `fake.c`, which answers like the driver's library; `None` without a C compiler.
pub fn fake(folder: &Path, definitions: &[&str]) -> Option<std::path::PathBuf> {
    let library = folder.join(LIBRARY);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hardware/nvml/fake.c");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).args(definitions);
    match compiler.output() {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("skipped: no C compiler to build a stand-in for the NVIDIA driver: {error}");
            None
        }
    }
}

#[test]
fn the_librarys_answers_become_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fake(folder.path(), &[]) else { return };
    let gpus = detect(&library);
    assert_eq!((gpus.driver.as_deref(), gpus.cuda.as_deref()), (Some("550.54.15"), Some("12.4")));
    assert_eq!((gpus.devices.len(), gpus.why_none), (2, None), "the lost GPU is left out");
    let first = &gpus.devices[0];
    assert_eq!((first.index, first.name.as_str()), (0, "NVIDIA Test GPU"));
    assert_eq!(first.uuid.as_deref(), Some("GPU-0"));
    assert_eq!((first.memory_total, first.memory_free), (24 << 30, 20 << 30));
    assert_eq!(first.compute_capability.as_deref(), Some("8.9"));
    assert_eq!((first.temperature, first.utilisation, first.power), (Some(71), Some(93), Some(287)));
    assert_eq!(first.throttled, ["power cap", "thermal (hardware)"]);
    let second = &gpus.devices[1];
    assert_eq!((second.temperature, second.power, second.throttled.len()), (None, None, 0));
    assert_eq!(
        (second.index, second.memory_total),
        (2, 0),
        "memory that the driver does not tell is unknown"
    );
}

#[test]
fn why_there_are_no_gpus_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let gone = detect(&folder.path().join(LIBRARY));
    assert!(gone.why_none.unwrap().ends_with("libnvidia-ml.so.1 is not installed (no NVIDIA driver)"));
    for (definition, reason) in [
        ("-DINIT=9", "nvmlInit_v2: Driver Not Loaded"),
        ("-DCOUNT=0", "the NVIDIA driver knows no GPU"),
        ("-DOLD", "the NVIDIA driver is too old: it has no nvmlInit_v2"),
    ] {
        let Some(library) = fake(folder.path(), &[definition]) else { return };
        let gpus = detect(&library);
        assert_eq!((gpus.devices.len(), gpus.why_none.as_deref()), (0, Some(reason)));
        std::fs::remove_file(library).unwrap();
    }
}

#[test]
fn a_driver_that_lies_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fake(folder.path(), &["-DLIES"]) else { return };
    let gpus = detect(&library);
    let first = &gpus.devices[0];
    assert_eq!((first.temperature, first.utilisation, first.power), (None, None, None));
    assert_eq!((first.memory_total, first.memory_free), (0, 0), "memory that no GPU has is unknown");
    assert_eq!((&first.compute_capability, &gpus.cuda, first.throttled.len()), (&None, &None, 0));
    assert!(gpus.devices.len() <= MOST_DEVICES as usize);
}

#[test]
fn a_driver_that_disappears_is_an_error_and_then_gone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = fake(folder.path(), &["-DGONE_AFTER=2"]) else { return };
    let nvml = Nvml::open(&library).unwrap();
    let told = |degrees, slowed| Warmth { name: "NVIDIA Test GPU".to_owned(), degrees, slowed };
    let both = vec![told(Some(71), true), told(None, false)];
    assert_eq!(nvml.heat(), Ok(both.clone()));
    assert_eq!(nvml.heat(), Ok(both));
    assert_eq!(nvml.heat(), Err("nvmlDeviceGetCount_v2: Other".to_owned()));
}

#[test]
fn this_machines_gpus_have_names_and_memory() {
    let gpus = Hardware::detect().gpus;
    if let Some(reason) = &gpus.why_none {
        return eprintln!("skipped: no GPU here: {reason}");
    }
    for gpu in gpus.devices {
        assert!(!gpu.name.is_empty() && gpu.memory_free <= gpu.memory_total, "{gpu:?}");
    }
}
