//! Runs that make artifacts are stopped, and kept apart.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pajamas_journeys::artifacts::large;
use pajamas_journeys::product::{Finished, interrupt, pajamas, piped};

/// A conversion that has begun to write.
fn begun(source: &Path, output: &Path) -> (Child, BufReader<impl Read>) {
    let mut command = pajamas().unwrap();
    command.args(["convert", "-p", "Q3_K_M", "--threads", "1", "-o"]).args([output, source]);
    let mut child = piped(command.stdin(Stdio::null())).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains('%') {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    (child, errors)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_conversion_ends_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()).unwrap(), parent.path().join("out"));
    let (child, mut errors) = begun(&source, &output);
    interrupt(&child).unwrap();
    let finished = Finished::wait(child).unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(finished.status.code(), Some(130), "{rest}");
    assert!(rest.contains("error[cancelled]"), "{rest}");
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
