//! Runs that make artifacts are stopped, and kept apart.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pajamas_journeys::artifacts::large;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, interrupt, pajamas, piped};
use serde_json::Value;

/// A conversion that has begun to write.
fn begun(source: &Path, output: &Path) -> (Child, BufReader<impl Read>) {
    until(source, output, &["-p", "Q3_K_M"], |_| true)
}

/// A conversion that tells how far it is, and has come where it is wanted.
fn until(
    source: &Path,
    output: &Path,
    arguments: &[&str],
    wanted: impl Fn(&str) -> bool,
) -> (Child, BufReader<impl Read>) {
    let mut command = pajamas().unwrap();
    command.arg("convert").args(arguments).args(["--threads", "1", "-o"]).args([output, source]);
    let mut child = piped(command.stdin(Stdio::null())).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !(line.contains('%') && wanted(&line)) {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it came there");
    }
    (child, errors)
}

/// What a conversion says that is not disturbed.
fn made(source: &Path, output: &Path, arguments: &[&str]) -> Value {
    let mut command = pajamas().unwrap();
    command.arg("convert").args(arguments).args(["--threads", "1", "--json", "-o"]).args([output, source]);
    let finished = Finished::wait(piped(command.stdin(Stdio::null())).spawn().unwrap()).unwrap();
    finished.json().unwrap().remove(0)
}

/// Every file of a form's folder but its record, with what is in it.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut found: Vec<_> = entries
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .filter(|(name, _)| name != "metadata.json")
        .map(|(name, path)| (name, fs::read(path).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

#[test]
fn a_conversion_that_was_killed_goes_on_where_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()).unwrap(), parent.path().join("out"));
    let folder = output.join("gguf/Q3_K_M");
    let journal = folder.join(".large-Q3_K_M.gguf.part.json");
    let (child, _errors) = until(&source, &output, &["-p", "Q3_K_M"], |_| journal.exists());
    signal(&child, "-KILL");
    Finished::wait(child).unwrap();
    assert!(folder.join(".large-Q3_K_M.gguf.part").exists() && journal.exists());
    assert!(!output.join("manifest.json").exists(), "what is half there counts for nothing");

    let whole = made(&source, &parent.path().join("whole"), &["-p", "Q3_K_M"]);
    assert!(whole["report"].get("resumed_bytes").is_none());
    let again = made(&source, &output, &["-p", "Q3_K_M"]);
    let resumed = again["report"]["resumed_bytes"].as_u64().unwrap();
    assert!(resumed >= 1 << 20 && resumed < again["files"][0]["bytes"].as_u64().unwrap(), "{resumed}");
    assert_eq!(again["files"], whole["files"], "the same bytes as undisturbed");
    assert_eq!(contents(&folder), contents(&parent.path().join("whole/gguf/Q3_K_M")));
}

#[test]
fn what_was_killed_is_not_gone_on_with_in_another_way() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()).unwrap(), parent.path().join("out"));
    let journal = output.join("gguf/Q3_K_M/.large-Q3_K_M.gguf.part.json");
    let (child, _errors) = until(&source, &output, &["-p", "Q3_K_M"], |_| journal.exists());
    signal(&child, "-KILL");
    Finished::wait(child).unwrap();
    let again = made(&source, &output, &["-p", "Q3_K_M", "--pure"]);
    assert!(again["report"].get("resumed_bytes").is_none(), "{again}");
    assert_eq!(contents(&output.join("gguf/Q3_K_M")).len(), 1, "and nothing of it is left");
}

/// What solving for types is asked for.
const SOLVE: [&str; 6] = ["-p", "Q3_K_M", "--strategy", "solve", "--windows", "1"];

#[test]
fn solving_that_was_killed_does_not_measure_again() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (repository().join("models/chat/hf"), parent.path().join("out"));
    let folder = output.join("gguf/Q3_K_M");
    let (child, _errors) = until(&source, &output, &SOLVE, |line| line.contains(" 40 %"));
    signal(&child, "-KILL");
    Finished::wait(child).unwrap();
    assert!(folder.join(".solve/measured").exists());
    assert!(!output.join("manifest.json").exists(), "what is half there counts for nothing");

    let whole = made(&source, &parent.path().join("whole"), &SOLVE);
    let again = made(&source, &output, &SOLVE);
    let number = |made: &Value, of: &str| made["report"]["solve"][of].as_u64().unwrap();
    assert_eq!(number(&whole, "remembered"), 0);
    assert!((10..number(&again, "measurements")).contains(&number(&again, "remembered")), "{again}");
    for same in ["sensitivities", "types", "measured_kld", "preset", "rounds"] {
        assert_eq!(again["report"]["solve"][same], whole["report"]["solve"][same], "{same}");
    }
    assert_eq!(again["files"], whole["files"], "the same bytes as undisturbed");
    assert_eq!(contents(&folder), contents(&parent.path().join("whole/gguf/Q3_K_M")));
}

#[test]
fn solving_that_is_stopped_ends_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (repository().join("models/chat/hf"), parent.path().join("out"));
    stopped(until(&source, &output, &SOLVE, |line| line.contains(" 10 %")));
    assert!(!output.exists());

    // What a killed one left is of no use to a conversion of another kind, which takes it away.
    let (child, _errors) = until(&source, &output, &SOLVE, |line| line.contains(" 10 %"));
    signal(&child, "-KILL");
    Finished::wait(child).unwrap();
    made(&source, &output, &["-p", "Q3_K_M"]);
    assert_eq!(contents(&output.join("gguf/Q3_K_M")).len(), 1);
}

/// Interrupts a conversion, which says that it was.
fn stopped((child, mut errors): (Child, BufReader<impl Read>)) {
    interrupt(&child).unwrap();
    let finished = Finished::wait(child).unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(finished.status.code(), Some(130), "{rest}");
    assert!(rest.contains("error[cancelled]"), "{rest}");
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_conversion_ends_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()).unwrap(), parent.path().join("out"));
    stopped(begun(&source, &output));
    assert!(!output.exists());
}

#[test]
fn a_folder_has_one_writer_at_a_time() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()).unwrap(), parent.path().join("out"));
    let (child, _errors) = begun(&source, &output);
    // It holds still while the other tries.
    signal(&child, "-STOP");
    let second = |precision: &str| {
        let mut command = pajamas().unwrap();
        command.args(["convert", "-p", precision, "-o"]).args([&output, &source]);
        Finished::wait(piped(command.stdin(Stdio::null())).spawn().unwrap()).unwrap()
    };
    let refused = second("Q8_0");
    assert_eq!(refused.refusal().unwrap(), ("output-busy".into(), 5), "{}", refused.stderr);
    signal(&child, "-KILL");
    signal(&child, "-CONT");
    Finished::wait(child).unwrap();
    // Whoever was killed holds nothing, and what it left half-written is in nobody's way.
    let finished = second("F16");
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(second("Q3_K_M").status.code(), Some(0));
    let left: Vec<_> =
        fs::read_dir(output.join("gguf/Q3_K_M")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
