//! Invariant: a plugin built against 1.x loads in every 1.y host, older or newer, in whatever order they come.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_journeys::ages::{forked_plugin, kept_host, kept_plugin, newer_host, newer_plugin};
use pajamas_journeys::fixtures::plugin;
use pajamas_plugin_api::HostContext;
use pajamas_plugin_api::host::{Policy, Report, Step, open};
use serde_json::{Value, json};

/// All ages of plugins, oldest first: kept, of this repository, and newer.
fn plugins() -> [PathBuf; 3] {
    [kept_plugin().unwrap(), plugin("examples/backend-minimal").unwrap(), newer_plugin().unwrap()]
}

/// Runs a host on a model that multiplies by two, and returns what it printed, one object a plugin.
fn run(host: &Path, plugins: &[PathBuf]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("twice.scale");
    fs::write(&model, "2").unwrap();
    let output = Command::new(host).arg(&model).args(plugins).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks what every host and every plugin can do, oldest plugin first and newest first.
fn all_compute(host: &Path, check: impl Fn(&Value)) {
    let mut plugins = plugins();
    for _ in 0..2 {
        let lines = run(host, &plugins);
        assert_eq!(lines.len(), 3);
        for line in &lines {
            assert_eq!(line["y"], json!([2.0, 4.0, 6.0]), "{line}");
            check(line);
        }
        plugins.reverse();
    }
}

fn logged(line: &Value, text: &str) -> bool {
    line["log"].as_array().unwrap().iter().any(|l| l == text)
}

#[test]
fn the_kept_host_runs_plugins_of_every_age() {
    all_compute(&kept_host().unwrap(), |line| {
        // The newer plugin asks for what this host does not have, and gets the default.
        assert_eq!(logged(line, "epoch 0"), line["plugin"] == "newer-plugin", "{line}");
    });
}

#[test]
fn a_newer_host_runs_plugins_of_every_age() {
    all_compute(&newer_host().unwrap(), |line| {
        let newer = line["plugin"] == "newer-plugin";
        // Older plugins lack the new method: the host gets the default.
        assert_eq!(line["mood"], if newer { "sunny" } else { "unknown" }, "{line}");
        assert_eq!(logged(line, "epoch 7"), newer, "{line}");
    });
}

fn load(path: &Path) -> (Report, bool) {
    let folder = path.parent().unwrap();
    let (report, plugin) = open(path, Policy { require_hash: false }, |_, _| HostContext::for_tests(folder));
    (report, plugin.is_some())
}

#[test]
fn this_host_loads_plugins_of_every_age_in_both_orders() {
    let mut plugins = plugins();
    for _ in 0..2 {
        for path in &plugins {
            let (report, loaded) = load(path);
            assert!(loaded, "{report:?}");
        }
        plugins.reverse();
    }
}

#[test]
fn a_plugin_whose_types_differ_is_refused_before_it_runs() {
    let (report, loaded) = load(&forked_plugin().unwrap());
    assert!(!loaded);
    let failed = report.steps.last().unwrap();
    assert_eq!((failed.step, failed.code.as_deref()), (Step::Layout, Some("plugin-layout-mismatch")));
    assert!(
        failed.detail.len() < 1000,
        "the checker's text runs to tens of kilobytes: {}",
        failed.detail.len()
    );
    assert!(load(&kept_plugin().unwrap()).1, "a refusal leaves no trace");
}
