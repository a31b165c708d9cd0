//! Clients that others wrote: what they send is understood, and what they get is what they expect.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::process::Command;

use pajamas_journeys::fixtures::{repository, target};
use pajamas_journeys::product::{House, Server, chat_entry, model_entry};

/// Runs a script of `tests/peers` against a server, with the Python that `cargo xtask peers` prepares.
fn journey(script: &str) {
    let python = target().unwrap().with_file_name("peers").join("bin/python");
    if !python.is_file() {
        eprintln!("skipped: {script} needs its peer; `cargo xtask peers` installs it");
        return;
    }
    let listener = repository().join("tests/fixtures/listener/encoder_model.onnx");
    let listener = model_entry("listener", &listener, "task = \"transcribe\"");
    let voice =
        model_entry("voice", &repository().join("tests/fixtures/voice/piper.onnx"), "task = \"speak\"");
    let server = Server::start(House::new(&(chat_entry("chat") + &listener + &voice)).unwrap()).unwrap();
    let base = format!("http://{}", server.authority());
    let output = Command::new(python)
        .arg(repository().join("tests/peers").join(script))
        .arg(base)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("journey ok"), "{script}:\n{said}");
}

#[test]
fn openais_own_client_finds_all_it_knows() {
    journey("openai_journey.py");
}

#[test]
fn anthropics_own_client_finds_all_it_knows() {
    journey("anthropic_journey.py");
}
