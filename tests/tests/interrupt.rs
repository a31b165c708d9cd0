//! Ctrl-C in the middle of things: what was begun ends, with its own exit status.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use pajamas_journeys::fixtures::{Packed, plugin};
use pajamas_journeys::product::{Finished, House, chat_entry, interrupt, pajamas, piped};

/// More prompts than anybody waits for, so that the answers go on until they are stopped.
#[test]
fn a_generation_ends() {
    let house = House::new(&chat_entry("chat")).unwrap();
    let mut command = pajamas().unwrap();
    command.arg("--config").arg(house.config()).args(["generate", "-t", "2", "--top-k", "0", "-n", "400"]);
    let mut child = piped(command.args(["Hello"; 5000])).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child).unwrap();
    let finished = Finished::wait(child).unwrap();
    assert_eq!(finished.refusal().unwrap(), ("cancelled".into(), 130));
    // What was said by then stays, and the line is ended for the shell's prompt.
    assert!(finished.stdout.ends_with('\n'), "{:?}", finished.stdout);
}

/// A pipe with a name stands for the model: the test decides when it is read, so that it knows when loading began.
#[test]
fn a_load_ends() {
    let misbehaving =
        Packed::new(&plugin("tests/plugins/misbehaving").unwrap(), "misbehaving", "0.1.0").unwrap();
    let search = misbehaving.folder().display().to_string();
    let house = House::new(&format!(
        "[plugins]\nsearch = ['{search}']\n[[models]]\nid = \"slow\"\nartifact = \"slow\"\ntask = \"generate\"\n"
    ))
    .unwrap();
    let folder = house.folder().join("slow");
    fs::create_dir(&folder).unwrap();
    let manifest = r#"{ "model_id": "slow", "formats": [{ "type": "trouble", "path": "model.trouble" }] }"#;
    fs::write(folder.join("manifest.json"), manifest).unwrap();
    let (model, next) = (folder.join("model.trouble"), folder.join("next"));
    assert!(Command::new("mkfifo").args([&model, &next]).status().unwrap().success());

    for json in [false, true] {
        let mut command = pajamas().unwrap();
        command.arg("--config").arg(house.config()).args(["generate", "Hello"]);
        if json {
            command.arg("--json");
        }
        let child = piped(command.stdin(Stdio::null())).spawn().unwrap();
        // Opening for writing waits for a reader: first the estimate, then, once the other pipe has taken the
        // name, the load.
        let mut estimate = fs::OpenOptions::new().write(true).open(&model).unwrap();
        let spare = folder.join("spare");
        fs::rename(&model, &spare).unwrap();
        fs::rename(&next, &model).unwrap();
        estimate.write_all(b"load-hang").unwrap();
        drop(estimate);
        fs::OpenOptions::new().write(true).open(&model).unwrap().write_all(b"load-hang").unwrap();
        fs::rename(&spare, &next).unwrap();
        interrupt(&child).unwrap();
        let finished = Finished::wait(child).unwrap();
        assert_eq!(finished.refusal().unwrap(), ("cancelled".into(), 130));
        assert_eq!(finished.stdout, "", "nothing is half said");
    }
}

/// A reader that has read enough is no error, and the command does not go on for nobody.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let long = House::new(&chat_entry("chat")).unwrap();
    let config = long.config().display().to_string();
    let commands: [&[&str]; 4] = [
        &["--config", &config, "generate", "-t", "2", "--top-k", "0", "-n", "400", "Hello"],
        &["config", "explain"],
        &["config", "schema"],
        &[
            "tokenize",
            "--model",
            "models/chat/model.gguf",
            "a long text that is many tokens, so that many lines follow",
        ],
    ];
    for arguments in commands {
        let mut child = piped(pajamas().unwrap().args(arguments).stdin(Stdio::null())).spawn().unwrap();
        // Closed before anything is written: the first line finds nobody.
        drop(child.stdout.take());
        let finished = Finished::wait(child).unwrap();
        assert!(finished.status.success(), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stderr, "", "{arguments:?}");
    }
}
