//! Types of tensors that were solved for: under a size and under a divergence, kept only where they measure better than the
//! preset, and said so wherever it is looked for.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, asset, run};
use serde_json::Value;

fn chat() -> PathBuf {
    repository().join("models/chat/hf")
}

fn convert(source: &Path, output: &Path, arguments: &[&str]) -> Finished {
    let (source, output) = (source.to_str().unwrap(), output.to_str().unwrap());
    run([&["convert", source, "--output", output, "--threads", "1"], arguments].concat()).unwrap()
}

/// Every file of a form's folder.
fn files(folder: &Path) -> Vec<String> {
    let found = fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = found.collect();
    found.sort();
    found
}

/// A text of characters that every small vocabulary has.
fn plain_text(folder: &Path) -> PathBuf {
    let text = fs::read_to_string(repository().join("calibration/general.txt")).unwrap();
    let known = |c: &char| c.is_ascii_alphanumeric() || " .,".contains(*c);
    let text: String = text.replace('\n', " ").chars().filter(known).take(30_000).collect();
    let path = folder.join("plain.txt");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_is_solved_for_is_closer_than_the_preset_of_its_size_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (preset, solved) = (folder.path().join("preset"), folder.path().join("solved"));
    let of_preset =
        convert(&chat(), &preset, &["-p", "Q3_K_M", "--dry-run", "--json"]).json().unwrap().remove(0);
    let most = of_preset["files"][0]["bytes"].as_u64().unwrap();
    let asked = ["-p", "Q3_K_M", "--strategy", "solve", "--windows", "1"];
    let planned = convert(&chat(), &solved, &[&asked[..], &["--dry-run", "--json"]].concat());
    let planned = planned.json().unwrap().remove(0);
    assert_eq!(planned["files"][0]["bytes"], most);
    assert!(planned["notes"][0].as_str().unwrap().contains("when it runs") && !solved.exists());

    let made = convert(&chat(), &solved, &[&asked[..], &["--json"]].concat()).json().unwrap().remove(0);
    assert!(made["files"][0]["bytes"].as_u64().unwrap() <= most, "{made}");
    let about = &made["report"]["solve"];
    let number = |path: &str| about.pointer(path).and_then(Value::as_f64).unwrap();
    assert_eq!((&about["kept"], &about["preset"]["precision"]), (&"solve".into(), &"Q3_K_M".into()));
    assert!(number("/measured_kld/value") < 0.9 * number("/preset/kld/value"), "{about}");
    let ratio = number("/predicted_kld") / number("/measured_kld/value");
    assert!((0.5..2.0).contains(&ratio), "{about}");
    assert_eq!(about["types"].as_object().unwrap().len(), 22);
    assert_ne!(about["text"]["sha256"], about["text"]["held_out_sha256"]);
    let notes = made["report"]["notes"].to_string();
    assert!(notes.contains("solve is kept") && notes.contains("below the preset's"), "{notes}");

    // In the manifest, whole, and nothing is left of the run.
    let manifest: Value = serde_json::from_slice(&fs::read(solved.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["formats"][0]["solve"]["kept"], "solve");
    assert_eq!(manifest["formats"][0]["solve"]["preset"], about["preset"]);
    assert_eq!(files(&solved.join("gguf/Q3_K_M")), ["hf-Q3_K_M.gguf", "metadata.json"]);
    assert!(run(["verify", solved.to_str().unwrap()]).unwrap().status.success());
    let again = convert(&chat(), &solved, &[&asked[..], &["--json"]].concat()).json().unwrap().remove(0);
    assert_eq!((&again["skipped"], &again["files"]), (&true.into(), &made["files"]));
}

#[test]
fn a_divergence_is_met_and_what_cannot_be_met_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tiny) = asset("llm/TinyStories-656K") else { return };
    let output = folder.path().join("out");
    let text = plain_text(folder.path());
    let asked = ["-p", "Q4_K_M", "--strategy", "solve", "--text", text.to_str().unwrap(), "--windows", "2"];
    let with = |more: &[&str]| convert(&tiny, &output, &[&asked[..], more].concat());

    let refused = |finished: Finished, code: &str, word: &str| {
        assert_eq!(finished.refusal().unwrap().0, code, "{}", finished.stderr);
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
        assert!(!output.join("gguf").exists(), "something was left behind");
    };
    refused(with(&["--target-size", "10KB"]), "target-unreachable", "10000 bytes");
    refused(with(&["--target-size", "much"]), "invalid-option", "target_size");
    refused(with(&["--target-kld", "0.0000000001"]), "target-unreachable", "the closest");
    refused(with(&["--domain", "astrology"]), "domain-not-found", "astrology");
    refused(with(&["--pure"]), "invalid-option", "pure");
    let without = convert(&tiny, &output, &["-p", "Q4_K_M", "--target-kld", "0.1"]);
    refused(without, "invalid-option", "strategy");

    let made = with(&["--target-kld", "0.02", "--json"]).json().unwrap().remove(0);
    let about = &made["report"]["solve"];
    assert_eq!((&about["kept"], &about["goal"]["kld"]), (&"solve".into(), &0.02.into()), "{about}");
    assert!(about["measured_kld"]["value"].as_f64().unwrap() <= 0.02, "{about}");
}
