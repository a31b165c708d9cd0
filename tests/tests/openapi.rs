//! The OpenAPI document against the server: schemathesis makes requests out of what is documented, good and bad, and
//! compares every answer with what is documented.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_journeys::fixtures::{repository, target};
use pajamas_journeys::product::{House, Server, chat_entry, model_entry};
use serde_json::Value;

/// The key of the tests' server, and its SHA-256: with one it shows that it asks for it.
const KEY: &str = "secret";
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Checks that are not made, and why. All others of schemathesis are.
const UNCHECKED: [(&str, &str); 1] =
    [("positive_data_acceptance", "no schema says which bytes are a picture, which token ids a model has")];

/// Routes that are not asked, and why.
const UNASKED: [(&str, &str); 1] = [("/admin/events", "it has no end, for which schemathesis would wait")];

fn server() -> Server {
    let key = format!(
        "[[server.keys]]\nname = \"all\"\nsha256 = \"{HASH}\"\nscopes = [\"infer\", \"metrics\", \"admin\"]\n"
    );
    let model =
        |id, file: &str, task| model_entry(id, &repository().join(file), &format!("task = \"{task}\""));
    let shapes = model("shapes", "models/detect/model.onnx", "detect");
    let kinds = model("kinds", "models/classify/model.onnx", "classify");
    let ranker = model("ranker", "tests/fixtures/ranker.gguf", "rerank");
    let listener = model("listener", "tests/fixtures/listener/encoder_model.onnx", "transcribe");
    let voice = model("voice", "tests/fixtures/voice/piper.onnx", "speak");
    // Jobs are allowed in a folder without models: whatever is made up, nothing long begins.
    let jobs = "[jobs]\nfolder = \"jobs\"\n";
    let toml = format!("{jobs}{key}{}{shapes}{kinds}{ranker}{listener}{voice}", chat_entry("chat"));
    let house = House::new(&toml).unwrap();
    std::fs::create_dir(house.folder().join("jobs")).unwrap();
    Server::start(house).unwrap()
}

/// The Python that `cargo xtask peers` prepares, when schemathesis is there.
fn python() -> Option<PathBuf> {
    let python = target().unwrap().with_file_name("peers").join("bin/python");
    let there = Command::new(&python).args(["-c", "import schemathesis"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: schemathesis is not there; `cargo xtask peers` installs it");
        return None;
    }
    Some(python)
}

/// Runs schemathesis with a document; says whether it found nothing, and what it said.
fn schemathesis(python: &Path, server: &Server, document: &Value, more: &[&str]) -> (bool, String) {
    // From a file: of a document that it fetches, schemathesis leaves out the route that it fetched it from.
    let file = server.house().folder().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let mut command = Command::new(python);
    command
        .current_dir(server.house().folder())
        .args(["-m", "schemathesis.cli", "run", "openapi.json", "--url"])
        .arg(format!("http://{}", server.authority()))
        .args(["--header", &format!("Authorization: Bearer {KEY}")])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--checks",
            "all",
        ])
        .args([
            "--continue-on-failure",
            "--generation-database",
            "none",
            "--request-timeout",
            "60",
            // A busy machine is no fault: what hangs ends with the request.
            "--max-response-time",
            "60",
            "--no-color",
        ])
        .args(more)
        .env("SCHEMATHESIS_HOOKS", "openapi_hooks")
        .env("PYTHONPATH", repository().join("tests/peers"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn what_is_documented_is_what_happens() {
    let Some(python) = python() else { return };
    let server = server();
    let document = server.get("/openapi.json").unwrap().json().unwrap();
    let mut more = Vec::new();
    for (check, why) in UNCHECKED {
        eprintln!("not checked: {check}: {why}");
        more.extend(["--exclude-checks", check]);
    }
    for (path, why) in UNASKED {
        eprintln!("not asked: {path}: {why}");
        assert!(document["paths"][path].is_object(), "{path} is no longer there");
        more.extend(["--exclude-path", path]);
    }
    let (good, said) = schemathesis(&python, &server, &document, &more);
    assert!(good, "{said}");
    let methods = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len());
    let routes: usize = methods.sum();
    assert!(said.contains(&format!("Selected: {}/{routes}", routes - UNASKED.len())), "{said}");
}

/// Makes a document wrong.
type Spoil = fn(&mut Value);

#[test]
fn what_is_documented_wrongly_is_found() {
    let Some(python) = python() else { return };
    let server = server();
    let document = server.get("/openapi.json").unwrap().json().unwrap();
    let spoil: [(&str, &str, Spoil); 4] = [
        ("/tokenize", "Undocumented status code", |document| {
            document["paths"]["/tokenize"]["post"]["responses"].as_object_mut().unwrap().remove("400");
        }),
        ("/healthz", "Response violates schema", |document| {
            document["components"]["schemas"]["Health"]["properties"]["version"]["type"] = "integer".into();
        }),
        ("/metrics", "Undocumented Content-Type", |document| {
            let content = &mut document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
            *content = serde_json::json!({ "text/csv": {} });
        }),
        ("/detokenize", "Schema-violating request accepted", |document| {
            let body = &mut document["paths"]["/detokenize"]["post"]["requestBody"]["content"];
            body["application/json"]["schema"]["additionalProperties"] = false.into();
        }),
    ];
    for (path, words, change) in spoil {
        let mut document = document.clone();
        change(&mut document);
        let (good, said) = schemathesis(&python, &server, &document, &["--include-path", path]);
        assert!(!good && said.contains(words), "{path}: {said}");
    }
}

#[test]
fn the_document_is_open_to_everybody_and_says_what_needs_a_key() {
    let server = server();
    let document = server.get("/openapi.json").unwrap().json().unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(operation) = methods.get("get").filter(|_| !path.contains('{')) else { continue };
        let wanted = if operation["security"].is_null() { 200 } else { 401 };
        assert_eq!(server.get(path).unwrap().status, wanted, "{path}");
    }
}
