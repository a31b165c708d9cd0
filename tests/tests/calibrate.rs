//! What matters in a model is found out by a text, and what is made of it is told so: by the command line.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, run};
use serde_json::Value;

const MODEL: &str = "models/chat/model.gguf";
/// A text that does not change.
const TEXT: &str = "LICENSE-APACHE";
const SHA256: &str = "62c7a1e35f56406896d7aa7ca52d0cc0d272ac022b5d2796e7d6905db8a3636a";

fn calibrate(output: &Path, arguments: &[&str]) -> Finished {
    let output = output.to_str().unwrap();
    run([&["calibrate", MODEL, "--output", output, "--threads", "1"], arguments].concat()).unwrap()
}

fn manifest(artifact: &Path) -> Value {
    serde_json::from_slice(&fs::read(artifact.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn a_matrix_is_collected_shown_merged_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let half = calibrate(&path("half.gguf"), &["--text", TEXT, "--chunks", "4", "--json"]);
    let half = half.json().unwrap().remove(0);
    assert_eq!((&half["chunks"], &half["calibration"]["tokens"]), (&4.into(), &2048.into()));
    let shown = run(["calibrate", "--show", path("half.gguf").to_str().unwrap()]).unwrap();
    assert!(shown.status.success() && shown.stdout.contains("ffn_down"), "{}", shown.stderr);
    for column in ["Σ(act²)", "μ", "σ", "% active", "entropy", "% ZD", "cosine"] {
        assert!(shown.stdout.contains(column), "{}", shown.stdout);
    }
    let (one, two) = (path("half.gguf"), path("both.gguf"));
    let merge = [
        "calibrate",
        "--merge",
        one.to_str().unwrap(),
        "--merge",
        one.to_str().unwrap(),
        "--output",
        two.to_str().unwrap(),
        "--json",
    ];
    let merged = run(merge).unwrap().json().unwrap().remove(0);
    assert_eq!((&merged["chunks"], &merged["tensors"]), (&8.into(), &21.into()));

    // A precision that needs it, and a manifest that says which text it was.
    let artifact = path("small");
    let convert = ["convert", "models/chat/hf", "-p", "IQ2_XS", "-o", artifact.to_str().unwrap()];
    assert_eq!(run(convert).unwrap().refusal().unwrap().0, "importance-missing");
    let with = [&convert[..], &["--imatrix", one.to_str().unwrap(), "--json"]].concat();
    let made = run(with).unwrap().json().unwrap().remove(0);
    assert_eq!(made["report"]["calibration"], half["calibration"]);
    let manifest = manifest(&artifact);
    assert_eq!(manifest["calibration"]["sha256"], SHA256);
    assert_eq!(manifest["formats"][0]["calibration"], manifest["calibration"]);
    // Another matrix makes another file.
    let other = [&convert[..], &["--imatrix", two.to_str().unwrap(), "--json"]].concat();
    assert_eq!(run(other).unwrap().json().unwrap().remove(0)["skipped"], false);
}

#[test]
fn what_cannot_be_calibrated_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.txt");
    fs::write(&short, "a few words").unwrap();
    let short = short.to_str().unwrap();
    let output = folder.path().join("new/out.gguf");
    let refused = |arguments: &[&str]| {
        let finished = calibrate(&output, arguments);
        assert!(!output.parent().unwrap().exists(), "{}", finished.stderr);
        finished.refusal().unwrap_or_else(|e| panic!("{e}"))
    };
    assert_eq!(refused(&["--text", short]), ("calibration-too-short".into(), 2));
    assert_eq!(refused(&["--text", "no-such-file"]), ("model-not-found".into(), 3));
    assert_eq!(refused(&["--domain", "astrology"]), ("domain-not-found".into(), 3));
    assert_eq!(refused(&[]), ("invalid-option".into(), 2));
    assert_eq!(refused(&["--text", TEXT, "--chunk-size", "3"]), ("invalid-option".into(), 2));
    let damaged = run(["calibrate", "--show", TEXT]).unwrap();
    assert_eq!(damaged.refusal().unwrap(), ("importance-invalid".into(), 2));
}

#[test]
fn importance_quantization_is_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let artifact = folder.path().join("chat");
    let iq = |arguments: &[&str]| {
        let start = ["iq", MODEL, "--output", artifact.to_str().unwrap(), "--threads", "1", "--json"];
        run([&start[..], arguments].concat()).unwrap()
    };
    assert_eq!(iq(&["-p", "IQ9", "--text", TEXT]).refusal().unwrap().0, "invalid-option");
    assert!(!artifact.exists());
    let arguments = ["-p", "IQ2_XS,IQ4_XS", "--text", TEXT, "--chunks", "4", "--strategy", "architecture"];
    let made = iq(&arguments).json().unwrap();
    assert_eq!(made.len(), 3, "a matrix and two forms");
    assert_eq!((&made[0]["skipped"], &made[0]["chunks"]), (&Value::Bool(false), &4.into()));
    assert_eq!(made[1]["report"]["strategy"], "architecture");
    let manifest = manifest(&artifact);
    let files: Vec<_> =
        manifest["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert!(files.contains(&"importance/LICENSE-APACHE.gguf"), "{files:?}");
    assert_eq!(manifest["calibration"], made[0]["calibration"]);
    let verified = run(["verify", artifact.to_str().unwrap(), "--json"]).unwrap().json().unwrap().remove(0);
    assert_eq!(verified["files"], 5);
    // The same again is there already, all of it.
    let again = iq(&arguments).json().unwrap();
    assert!(again.iter().all(|one| one["skipped"] == true), "{again:?}");
    // It runs, whatever two bits a weight leave of so small a model.
    let asked = ["generate", "--model", artifact.to_str().unwrap(), "--json", "-n", "8", "Who are you?"];
    assert!(run(asked).unwrap().json().unwrap()[0]["tokens"].is_array());
}

/// Stopped by Ctrl-C, it leaves what it collected, and goes on from there.
#[test]
#[cfg(unix)]
fn a_calibration_that_is_stopped_goes_on() {
    use std::io::{BufRead, BufReader};

    use pajamas_journeys::product::{interrupt, pajamas, piped};

    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.gguf");
    let arguments = ["calibrate", MODEL, "--text", TEXT, "--threads", "1", "--output"];
    let mut command = pajamas().unwrap();
    let mut child = piped(command.args(arguments).arg(&output).current_dir(repository())).spawn().unwrap();
    // Half of it is done when it is stopped.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("50 %")));
    interrupt(&child).unwrap();
    let ended = lines.map(Result::unwrap).last();
    let status = child.wait().unwrap();
    if status.success() {
        eprintln!("skipped: the calibration was done before it was stopped");
        return;
    }
    assert_eq!(status.code(), Some(130), "{ended:?}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["out.gguf.checkpoint"]);
    let again = calibrate(&output, &["--text", TEXT, "--resume", "--json"]).json().unwrap().remove(0);
    assert!(again["resumed"].as_u64().unwrap() >= 5, "{again}");
    assert!(!folder.path().join("out.gguf.checkpoint").exists());
}
