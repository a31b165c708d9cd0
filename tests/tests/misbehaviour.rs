//! Plugins that break their word, through the product: each fault has its own code, and the next answer is right.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;

use pajamas_journeys::fixtures::{Packed, liar, plugin, repository};
use pajamas_journeys::product::{House, Server, chat_entry, model_entry};
use serde_json::{Value, json};

/// A server whose models are words of the plugin `misbehaving`, each called by its word. None runs in a worker.
fn troubled(task: &str, words: &[&str]) -> (Server, Packed) {
    let packed = Packed::new(&plugin("tests/plugins/misbehaving").unwrap(), "misbehaving", "0.1.0").unwrap();
    let search = packed.folder().display().to_string();
    let mut toml = format!("[plugins]\nsearch = ['{search}']\n[stages.limits]\noutput = \"1MiB\"\n");
    for word in words {
        let model = packed.folder().join(format!("{word}.trouble"));
        fs::write(&model, word).unwrap();
        toml += &model_entry(word, &model, &format!("task = \"{task}\"\nformat = \"trouble\""));
    }
    (Server::start(House::new(&toml).unwrap()).unwrap(), packed)
}

fn ask(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let answer = server.post_json(path, body).unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

/// The good model continues `ab` as it always does.
fn the_next_answer_is_right(server: &Server, after: &str) {
    let body = json!({ "model": "good", "prompt": [97, 98], "max_tokens": 4 });
    let (status, answer) = ask(server, "/v1/completions", &body);
    assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("abab")), "after {after}: {answer}");
}

#[test]
fn each_fault_of_a_generation_has_its_code() {
    let faults: [(&str, Value, u16, &str); 9] = [
        ("load-panic", json!({}), 500, "panicked"),
        ("signature-panic", json!({}), 500, "panicked"),
        ("load-fail", json!({}), 503, "out-of-memory"),
        ("generate-panic", json!({}), 500, "panicked"),
        ("generate-babble", json!({}), 500, "plugin-protocol"),
        ("generate-flood", json!({}), 413, "output-too-large"),
        ("generate-lie", json!({}), 500, "plugin-protocol"),
        ("generate-hang", json!({ "timeout": 0.2 }), 503, "request-timeout"),
        ("load-hang", json!({ "timeout": 0.2 }), 503, "request-timeout"),
    ];
    let words: Vec<&str> = faults.iter().map(|(word, ..)| *word).chain(["good"]).collect();
    let (server, _packed) = troubled("generate", &words);
    let mut found = Vec::new();
    for (word, more, ..) in &faults {
        let mut body = json!({ "model": word, "prompt": [97, 98], "max_tokens": 8 });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let (status, answer) = ask(&server, "/v1/completions", &body);
        found.push((*word, status, answer["error"]["code"].as_str().unwrap_or_default().to_owned()));
        the_next_answer_is_right(&server, word);
    }
    let expected = faults.iter().map(|(word, _, status, code)| (*word, *status, (*code).to_owned()));
    assert_eq!(found, expected.collect::<Vec<_>>());
    // The same for who asks on the command line.
    for (word, _, _, code) in faults.iter().filter(|(word, ..)| !word.ends_with("hang")) {
        let finished = server.house().run(["generate", "--model", word, "ab"]).unwrap();
        // A panic in the plugin is told on standard error by the plugin's own hook.
        assert!(finished.stderr.contains(&format!("error[{code}]")), "{word}: {}", finished.stderr);
        assert!(!finished.status.success(), "{word}");
    }
}

#[test]
fn who_names_no_number_of_tokens_gets_at_most_the_context() {
    let (server, _packed) = troubled("generate", &["generate-babble", "good"]);
    let body = json!({ "model": "generate-babble", "prompt": [97, 98], "max_tokens": null });
    let (status, answer) = ask(&server, "/v1/completions", &body);
    assert_eq!((status, answer["error"]["code"].as_str()), (500, Some("plugin-protocol")), "{answer}");
    the_next_answer_is_right(&server, "generate-babble");
}

#[test]
fn a_stream_that_breaks_in_the_middle_ends_with_its_code_and_its_model_comes_back() {
    let (server, _packed) = troubled("generate", &["generate-panic", "good"]);
    let body = json!({ "model": "generate-panic", "prompt": [97, 98], "max_tokens": 8, "stream": true });
    for _ in 0..2 {
        let events = server.post_json("/v1/completions", &body).unwrap().events().unwrap();
        let written: String =
            events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(written, "ab", "{events:?}");
        // Not `session-poisoned` the second time: the session that panicked was let go.
        assert_eq!(events.last().unwrap()["error"]["code"], "panicked", "{events:?}");
        the_next_answer_is_right(&server, "a stream that broke");
    }
}

#[test]
fn vectors_that_are_not_one_for_each_text_are_refused() {
    let faults = [
        ("embed-wrong-shape", "output-mismatch"),
        ("embed-wrong-type", "output-mismatch"),
        ("embed-nothing", "output-missing"),
        ("embed-panic", "panicked"),
    ];
    let words: Vec<&str> = faults.iter().map(|(word, _)| *word).chain(["embed-good"]).collect();
    let (server, _packed) = troubled("embed", &words);
    for (word, code) in faults {
        let body = |model: &str| json!({ "model": model, "input": ["a", "b"] });
        let (status, answer) = ask(&server, "/v1/embeddings", &body(word));
        assert_eq!((status, answer["error"]["code"].as_str()), (500, Some(code)), "{word}: {answer}");
        let (_, answer) = ask(&server, "/v1/embeddings", &body("embed-good"));
        assert_eq!(answer["data"].as_array().map(Vec::len), Some(2), "after {word}: {answer}");
    }
}

#[test]
fn plugins_that_cannot_be_opened_are_told_apart_and_the_others_serve() {
    let misbehaving =
        Packed::new(&plugin("tests/plugins/misbehaving").unwrap(), "misbehaving", "0.1.0").unwrap();
    let lies = [
        ("wrong_magic", "plugin-probe-invalid"),
        ("wrong_major", "plugin-abi-incompatible"),
        ("panic_abort", "plugin-panic-abort"),
        ("no_root_module", "plugin-symbol-missing"),
    ];
    let liars = lies.map(|(name, _)| Packed::new(&liar(name).unwrap(), "liar", "0.1.0").unwrap());
    let sound = repository().join("target/release/plugins");
    let mut search = format!("'{}', '{}'", sound.display(), misbehaving.folder().display());
    for liar in &liars {
        search += &format!(", '{}'", liar.folder().display());
    }
    for entry in ["create", "describe"] {
        let settings = format!("[plugins.settings.misbehaving]\npanic = \"{entry}\"");
        let toml = format!("[plugins]\nsearch = [{search}]\n{settings}\n{}", chat_entry("chat"));
        let server = Server::start(House::new(&toml).unwrap()).unwrap();
        let seen = server.get("/admin/plugins").unwrap().json().unwrap();
        let code = |library: &std::path::Path| {
            let library = library.to_str().unwrap();
            let report = seen["plugins"].as_array().unwrap().iter().find(|p| p["library"] == library);
            let steps = report.unwrap_or_else(|| panic!("{library} is not in {seen}"))["steps"].clone();
            steps.as_array().unwrap().last().unwrap()["code"].clone()
        };
        assert_eq!(code(&misbehaving.library()), "panicked");
        for (liar, (_, expected)) in liars.iter().zip(lies) {
            assert_eq!(code(&liar.library()), expected);
        }
        let turns = json!([{ "role": "user", "content": "What is 2 plus 3?" }]);
        let body = json!({ "model": "chat", "messages": turns, "temperature": 0 });
        let (_, answer) = ask(&server, "/v1/chat/completions", &body);
        assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains('5'), "{answer}");
    }
}
