//! The conformance kit on sound plugins, and on plugins whose faults it must find.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_journeys::fixtures::{Packed, plugin, repository, target};
use pajamas_plugin_api::conformance::{CheckOptions, ConformanceReport, check};
use pajamas_plugin_api::host::Outcome;
use serde_json::{Value, json};

fn model(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

fn outcome<'r>(report: &'r ConformanceReport, subject: &str, name: &str) -> (Outcome, &'r str) {
    let check = report.checks.iter().find(|c| c.subject == subject && c.name == name);
    check.map(|c| (c.outcome, c.detail.as_str())).unwrap_or_else(|| panic!("no check {name:?} in\n{report}"))
}

#[test]
fn the_examples_conform() {
    let folder = tempfile::tempdir().unwrap();
    for (path, name, model) in [
        ("examples/backend-minimal", "minimal", model(folder.path(), "twice.scale", "2")),
        (
            "examples/backend-recommended",
            "recommended",
            model(folder.path(), "greeting.bigram", "Hello world\nworld says\nsays Hello\n"),
        ),
    ] {
        let packed = Packed::new(&plugin(path).unwrap(), name, "0.1.0").unwrap();
        let report = check(packed.folder(), &CheckOptions { models: vec![model], ..CheckOptions::default() });
        assert!(report.passed(), "{report}");
        assert!(report.checks.len() > 20, "{report}");
    }
}

/// Ours keep the contract that we ask of others.
#[test]
fn the_shipped_plugins_conform() {
    let plugins = target().unwrap().with_file_name("release").join("plugins");
    for (name, models) in
        [("gguf", &["chat/model.gguf"][..]), ("onnx", &["detect/model.onnx", "classify/model.onnx"])]
    {
        let models = models.iter().map(|model| repository().join("models").join(model)).collect();
        let report = check(&plugins.join(name), &CheckOptions { models, ..CheckOptions::default() });
        assert!(report.passed(), "{report}");
        assert!(
            report.checks.iter().any(|c| c.name.contains("several threads") && c.outcome == Outcome::Passed),
            "{report}"
        );
    }
    let models = ["chat/hf", "chat/model.gguf"].map(|model| repository().join("models").join(model)).to_vec();
    let report = check(&plugins.join("quant"), &CheckOptions { models, ..CheckOptions::default() });
    assert!(report.passed(), "{report}");
    for subject in
        ["quantizer gguf, source hf", "quantizer gguf, source model.gguf", "quantizer mlx, source hf"]
    {
        assert_eq!(
            outcome(&report, subject, "stops when cancelled in the middle").0,
            Outcome::Passed,
            "{report}"
        );
    }
    let offered = ["pajamas.describe/1", "pajamas.calibrate/1", "pajamas.evaluate/1"];
    for name in offered {
        let (found, detail) = outcome(&report, "quantizer gguf", &format!("{name} refuses nonsense"));
        assert_eq!(found, Outcome::Passed, "{detail}");
    }
}

#[test]
fn a_quantizer_without_a_source_is_not_run() {
    let plugins = target().unwrap().with_file_name("release").join("plugins");
    let report = check(&plugins.join("quant"), &CheckOptions::default());
    assert!(report.passed(), "{report}");
    let (found, reason) = outcome(&report, "quantizer gguf", "plans, and writes nothing");
    assert_eq!(found, Outcome::Skipped);
    assert!(reason.contains("huggingface, gguf"), "{reason}");
}

/// Runs the kit on `misbehaving`, with one model that holds `word`.
fn misbehaving(word: &str, settings: Value) -> (ConformanceReport, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{word}.trouble");
    let models = vec![model(folder.path(), &file, word)];
    let mut options = CheckOptions { models, settings, ..CheckOptions::default() };
    // What never ends is not waited for as long as a busy machine may need for the rest.
    if word.ends_with("deaf") {
        options.patience = Duration::from_millis(500);
        options.deadline = 4 * options.patience;
    }
    let report = check(&plugin("tests/plugins/misbehaving").unwrap(), &options);
    // Lets calls return that the kit has given up on.
    fs::write(folder.path().join(format!("{word}.go")), "").unwrap();
    (report, format!("backend trouble, model {file}"))
}

#[test]
fn a_backend_that_behaves_passes() {
    for word in ["good", "embed-good"] {
        let (report, _) = misbehaving(word, Value::Null);
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn every_fault_of_a_model_is_found() {
    for (word, name, words) in [
        ("load-panic", "loads", "told to panic"),
        ("load-deaf", "loads", "has not returned"),
        ("load-fail", "loads", "told to fail"),
        ("signature-panic", "loads", "told to panic"),
        ("leak", "gives its memory back", "grew by"),
        ("infer-panic", "infers from zeros", "told to panic"),
        ("infer-deaf", "infers from zeros", "has not returned"),
        ("infer-wrong-shape", "infers from zeros", "output-mismatch"),
        ("infer-wrong-type", "infers from zeros", "output-mismatch"),
        ("infer-surplus", "infers from zeros", "output-unexpected"),
        ("infer-nothing", "infers from zeros", "output-missing"),
        ("infer-too-much", "infers from zeros", "output-too-large"),
        ("infer-misuse", "infers from zeros", "plugin-protocol"),
        ("generate-panic", "generates a few tokens", "told to panic"),
        ("generate-deaf", "generates a few tokens", "has not returned"),
        ("generate-babble", "generates a few tokens", "at most 8 were asked for"),
        ("generate-lie", "generates a few tokens", "at most 8 were asked for"),
        ("embed-panic", "embeds", "told to panic"),
        ("embed-wrong-shape", "embeds", "[2, 4] was expected"),
        ("embed-wrong-type", "embeds", "no f32 tensor"),
        ("embed-nothing", "embeds", "no f32 tensor"),
        ("embed-deaf", "does not embed once cancelled", "it still runs"),
        ("embed-stubborn", "does not embed once cancelled", "succeeded"),
        ("slots-kept", "gives back slots", "gave back 0 bytes"),
        ("slots-miscounted", "gives back slots", "it says 3"),
        ("extension-any", "knows no extension of a nonsense name", "does not exist"),
        ("extension-panic", "infers from zeros", "session-poisoned"),
        ("extension-obliging", "pajamas.chat/1 refuses nonsense", "succeeded"),
        ("extension-broken", "pajamas.chat/1 refuses nonsense", "told to panic"),
    ] {
        let (report, subject) = misbehaving(word, Value::Null);
        let (found, detail) = outcome(&report, &subject, name);
        assert_eq!(found, Outcome::Failed, "{word}: {detail}\n{report}");
        assert!(detail.contains(words), "{word}: {detail:?} lacks {words:?}");
        assert!(!report.passed());
    }
}

#[test]
fn every_fault_of_a_quantizer_is_found() {
    for (word, name, words) in [
        ("plan-panic", "plans, and writes nothing", "told to panic"),
        ("plan-fickle", "plans, and writes nothing", "another one"),
        ("plan-nothing", "plans, and writes nothing", "no files"),
        ("plan-elsewhere", "plans, and writes nothing", "not lie below"),
        ("plan-writes", "plans, and writes nothing", "draft"),
        ("plan-anything", "refuses an unknown precision", "succeeded"),
        ("plan-leak", "gives its memory back", "grew by"),
        ("run-panic", "writes what it planned", "told to panic"),
        ("run-other-size", "writes what it planned", "of 14 bytes was planned, but not written"),
        ("run-surplus", "writes what it planned", "was written, but not planned"),
        ("run-backwards", "writes what it planned", "goes back"),
        ("run-sums", "writes what it planned", "has the sum"),
        ("run-replaces", "leaves a file alone where its folder should be", "succeeded"),
        ("run-deaf", "does not quantize once cancelled", "it still runs"),
        ("run-deaf", "stops when cancelled in the middle", "it still runs"),
        ("run-stubborn", "does not quantize once cancelled", "succeeded"),
        ("run-stubborn", "stops when cancelled in the middle", "succeeded"),
        ("run-stubborn", "stops when progress says so", "succeeded"),
        ("run-half", "stops when cancelled in the middle", "one.part"),
        ("run-half", "stops when progress says so", "one.part"),
        ("cut-down", "survives a source cut in half", "half a word"),
    ] {
        let (report, subject) = misbehaving(word, Value::Null);
        let subject = subject.replace("backend trouble, model", "quantizer scribbler, source");
        let (found, detail) = outcome(&report, &subject, name);
        assert_eq!(found, Outcome::Failed, "{word}: {detail}\n{report}");
        assert!(detail.contains(words), "{word}: {detail:?} lacks {words:?}");
    }
}

#[test]
fn every_breach_of_the_contract_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let models = vec![model(folder.path(), "any.careless", "anything")];
    let settings = json!({"careless": true});
    let options = CheckOptions { models, settings, ..CheckOptions::default() };
    let report = check(&plugin("tests/plugins/misbehaving").unwrap(), &options);
    let backend = "backend Care Less";
    for name in
        ["describes itself", "probes alike twice", "refuses a missing model", "refuses a model of noise"]
    {
        assert_eq!(outcome(&report, backend, name).0, Outcome::Failed, "{name}\n{report}");
    }
    for (subject, name) in [
        (backend, "knows no extension of a nonsense name"),
        (backend, "pajamas.fitness/1 refuses nonsense"),
        ("quantizer Care Less", "describes itself"),
        ("quantizer Care Less", "refuses a missing source"),
        ("quantizer Care Less", "refuses an empty folder"),
        ("quantizer Care Less", "refuses a source of noise"),
        ("quantizer Care Less", "knows no extension of a nonsense name"),
        ("quantizer Care Less", "pajamas.describe/1 refuses nonsense"),
        ("quantizer Care Less, source any.careless", "plans, and writes nothing"),
    ] {
        assert_eq!(outcome(&report, subject, name).0, Outcome::Failed, "{subject}: {name}\n{report}");
    }
    let model = "backend Care Less, model any.careless";
    for name in [
        "refuses an unknown option",
        "refuses an unknown device",
        "does not load once cancelled",
        "has a sound signature",
        "uses the memory it estimated",
        "infers from zeros",
    ] {
        assert_eq!(outcome(&report, model, name).0, Outcome::Failed, "{name}\n{report}");
    }
}

#[test]
fn a_plugin_that_does_not_load_is_reported_and_the_report_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let report = check(&model(folder.path(), "text.so", "I am a text file."), &CheckOptions::default());
    assert!(!report.passed());
    assert!(report.to_string().contains("plugin-open-failed"), "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["loading"]["steps"][3]["code"], "plugin-open-failed");
}
