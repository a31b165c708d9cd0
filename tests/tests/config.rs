//! Journeys of configuration: what is wrong is found at once, with its place and how to right it.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, House, asset, keys, model_entry, pajamas, piped, run};
use serde_json::Value;

fn refusal(toml: &str, arguments: &[&str]) -> (String, i32, String) {
    let finished = House::new(toml).unwrap().run(arguments).unwrap();
    assert_eq!(finished.stdout, "");
    let (code, status) = finished.refusal().unwrap();
    (code, status, finished.stderr)
}

#[test]
fn the_repositorys_own_configuration_is_fine() {
    let checked = run(["config", "check", "--json"]).unwrap().json().unwrap().remove(0);
    assert_eq!(keys(&checked), ["file", "models", "ok", "pipelines"]);
    assert_eq!(checked["ok"], true);
    assert!(checked["file"].as_str().unwrap().ends_with("pajamas.toml"));
}

#[test]
fn a_typo_is_refused_with_the_line_and_what_was_meant() {
    for arguments in [&["config", "check"][..], &["generate", "Hello"], &["serve"], &["plugins", "list"]] {
        let (code, status, said) =
            refusal("[server]\nlisten = \"127.0.0.1:0\"\nmax_boddy = \"1MiB\"\n", arguments);
        assert_eq!((code.as_str(), status), ("config-unknown-key", 2), "{arguments:?}");
        assert!(said.contains("max_boddy") && said.contains("max_body") && said.contains(":3"), "{said}");
    }
}

#[test]
fn every_kind_of_mistake_has_its_code() {
    let model = repository().join("models/chat/model.gguf");
    let twins = model_entry("twin", &model, "").repeat(2);
    for (toml, code, words) in [
        ("[server\n", "config-syntax", &[":1"][..]),
        (twins.as_str(), "config-duplicate-id", &["twin"]),
        ("[server]\nmax_boddy = 7\n[[models]]\nid = \"a\"\n", "config-invalid", &["max_boddy", "2 problems"]),
        ("[server]\nmax_body = \"many\"\n", "config-invalid-value", &["max_body", ":2"]),
        ("[[models]]\nid = \"a\"\n", "config-missing-key", &["a"]),
        ("[defaults]\nchat = \"nobody\"\n", "config-unknown-reference", &["nobody", ":2"]),
        ("schema = 99\n", "config-version", &["99"]),
        ("[server]\nlisten = \"0.0.0.0:80\"\n", "listen-not-loopback", &[":2"]),
    ] {
        let (found, status, said) = refusal(toml, &["config", "check"]);
        assert_eq!((found.as_str(), status), (code, 2), "{toml}: {said}");
        for word in words {
            assert!(said.contains(word), "{toml}: {word} is named: {said}");
        }
    }
}

#[test]
fn a_stage_that_does_not_exist_is_named_with_the_nearest_that_does() {
    let toml = "[[pipelines]]\nid = \"p\"\ntask = \"detect\"\nsteps = [{ stage = \"leterbox\" }, { model = true }]\n";
    let (code, _, said) = refusal(toml, &["config", "check"]);
    assert_eq!(code, "config-unknown-reference");
    assert!(said.contains("letterbox"), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let finished = run(["--config", "/no/such/pajamas.toml", "config", "check"]).unwrap();
    assert_eq!(finished.refusal().unwrap(), ("config-file-missing".into(), 2));
    assert!(finished.stderr.contains("/no/such/pajamas.toml"), "{}", finished.stderr);

    let (code, status, said) =
        refusal(&model_entry("gone", "gone.gguf".as_ref(), ""), &["generate", "Hello"]);
    assert_eq!((code.as_str(), status), ("config-file-missing", 2));
    assert!(said.contains("gone.gguf") && said.contains(":3"), "{said}");
}

#[test]
fn every_value_knows_where_it_comes_from() {
    let house = House::new("[server]\nmax_body = \"1MiB\"\nrequest_timeout = \"5s\"\n").unwrap();
    let mut command = pajamas().unwrap();
    command.arg("--config").arg(house.config());
    command.args(["--set", "server.request_timeout=7s", "config", "explain", "--json"]);
    command.env("PAJAMAS_SERVER__MAX_BODY", "2MiB");
    let child = piped(&mut command).spawn().unwrap();
    let explained = Finished::wait(child).unwrap().json().unwrap();
    let entry = |key: &str| explained.iter().find(|e| e["key"] == key).unwrap().to_string();
    let body = entry("server.max_body");
    assert!(body.contains("2MiB") && body.contains("PAJAMAS_SERVER__MAX_BODY"), "{body}");
    let timeout = entry("server.request_timeout");
    assert!(timeout.contains("7s") && timeout.contains("--set"), "{timeout}");
    assert!(entry("server.listen").contains("built in"), "{}", entry("server.listen"));
}

#[test]
fn the_schema_is_one() {
    let schema = run(["config", "schema"]).unwrap();
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false, "unknown keys are errors in editors, too");
    for section in ["server", "plugins", "stages", "memory", "defaults", "models", "pipelines"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[test]
fn a_backend_that_is_not_here_is_no_silent_second_choice() {
    let Some(model) = asset("yolo/yolov8n_int8.onnx") else { return };
    for (rest, word) in [("backend = \"gguf\"", "gguf"), ("device = \"cuda:7\"", "cuda:7")] {
        let house = House::new(&model_entry("yolo", &model, rest)).unwrap();
        let refused = house.run(["detect", "--model", "yolo", "models/sample.png"]).unwrap();
        assert_eq!(refused.refusal().unwrap().0, "backend-unavailable");
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
}
