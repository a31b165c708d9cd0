//! Models in processes of their own: the same answers, and trouble that stays there.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first trouble")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::{Packed, plugin, repository};
use pajamas_journeys::product::{House, Server, model_entry, never_end};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The repository's chat model, several requests at the same time.
fn chat(id: &str, isolation: &str) -> String {
    let options = "options = { threads = 1, parallel = 8, context_length = 2048 }";
    let rest = format!("task = \"chat\"\nisolation = \"{isolation}\"\n{options}");
    model_entry(id, &repository().join("models/chat/model.gguf"), &rest)
}

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn question(model: &str) -> Value {
    let turns = json!([{ "role": "user", "content": "What is 2 plus 3?" }]);
    json!({ "model": model, "messages": turns, "temperature": 0 })
}

/// A stream that has begun.
struct Stream(Box<dyn Iterator<Item = String> + Send>);

impl Stream {
    fn begin(server: &Server, body: &Value) -> Self {
        let body = body.to_string();
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut client = TcpStream::connect(server.authority()).unwrap();
        client.write_all((head + &body).as_bytes()).unwrap();
        let lines = BufReader::new(client).lines();
        let mut stream = Self(Box::new(lines.map(Result::unwrap_or_default)));
        let begins = |line: String| line.contains("\"content\":\"") && !line.contains("\"content\":\"\"");
        assert!(stream.0.any(begins), "the answer began");
        stream
    }

    /// What came of it, up to its end or its error.
    fn rest(self) -> String {
        let ends = |line: &String| line.contains("[DONE]") || line.contains("\"error\"");
        let mut rest = String::new();
        for line in self.0 {
            rest += &line;
            if ends(&line) {
                break;
            }
        }
        rest
    }
}

#[test]
fn a_worker_that_is_killed_takes_only_its_own_requests_along() {
    let server = server(&(chat("chat", "process") + &chat("other", "process")));
    let mut body = question("chat");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(1900);
    body["logit_bias"] = never_end(&server).unwrap();
    let streams: Vec<Stream> = (0..8).map(|_| Stream::begin(&server, &body)).collect();
    let [worker] = server.workers().unwrap()[..] else { panic!("one worker for one model") };
    body["model"] = json!("other");
    body["max_tokens"] = json!(400);
    let other = Stream::begin(&server, &body);
    kill(worker);
    for stream in streams {
        let rest = stream.rest();
        assert!(rest.contains("worker-crashed") && rest.contains("SIGKILL"), "{rest}");
    }
    let rest = other.rest();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("[DONE]"), "{rest}");
    let answer = server.post_json(CHAT, &question("chat")).unwrap().json().unwrap();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains('5'), "{answer}");
    assert!(!server.workers().unwrap().contains(&worker));
}

#[test]
fn a_worker_that_was_killed_while_idle_is_not_noticed() {
    let server = server(&chat("chat", "process"));
    server.post_json(CHAT, &question("chat")).unwrap().json().unwrap();
    kill(server.workers().unwrap()[0]);
    let answer = server.post_json(CHAT, &question("chat")).unwrap().json().unwrap();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains('5'), "{answer}");
}

/// A server with a model of the plugin `misbehaving` in a worker.
fn trouble(folder: &Path, word: &str, more: &str) -> (Server, Packed) {
    let packed = Packed::new(&plugin("tests/plugins/misbehaving").unwrap(), "misbehaving", "0.1.0").unwrap();
    let model = folder.join("model.trouble");
    std::fs::write(&model, word).unwrap();
    let entry = model_entry("model", &model, "task = \"generate\"\nformat = \"trouble\"");
    let plugins = format!(
        "[plugins]\nsearch = ['{}']\nisolation = {{ misbehaving = \"process\" }}\n{more}\n",
        packed.folder().display()
    );
    (server(&(plugins + &entry)), packed)
}

fn complete(server: &Server, more: Value) -> (u16, Value) {
    let mut body = json!({ "model": "model", "prompt": [97, 98], "max_tokens": 8 });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let answer = server.post_json("/v1/completions", &body).unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

#[test]
fn what_ends_a_process_ends_the_models_own_and_three_times_is_enough() {
    for word in ["load-abort", "generate-abort", "generate-abort-late"] {
        let folder = tempfile::tempdir().unwrap();
        let (server, _packed) = trouble(folder.path(), word, "");
        let (status, answer) = complete(&server, json!({}));
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (500, &json!("worker-crashed")), "{word}: {answer}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("SIGABRT") && message.contains("told to abort"), "{word}: {message}");
        let codes: Vec<Value> =
            (0..3).map(|_| complete(&server, json!({})).1["error"]["code"].clone()).collect();
        assert_eq!(codes[2], json!("model-quarantined"), "{word}: {codes:?}");
        assert_eq!(server.workers().unwrap(), [0; 0], "{word}");
        assert_eq!(server.get("/healthz").unwrap().status, 200);
    }
}

#[test]
fn a_request_that_does_not_end_when_it_should_ends_with_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "worker = { cancel = \"100ms\" }";
    let (server, _packed) = trouble(folder.path(), "generate-deaf", limits);
    let (status, answer) = complete(&server, json!({ "timeout": 0.2 }));
    assert_eq!(status, 503, "{answer}");
    // Ends within the test's time, or the test does not.
    while !server.workers().unwrap().is_empty() {}
    let limits = "worker = { silence = \"200ms\" }";
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "generate-deaf", limits);
    let (status, answer) = complete(&server, json!({}));
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("worker-hung")), "{answer}");
}

#[test]
fn a_load_that_hangs_ends_with_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "load-deaf", "worker = { silence = \"200ms\" }");
    let (status, answer) = complete(&server, json!({}));
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("worker-hung")), "{answer}");
    assert_eq!(server.workers().unwrap(), [0; 0]);
    // Nobody has to wait for it: a request's own time ends the load as well.
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "load-deaf", "worker = { cancel = \"100ms\" }");
    let (status, answer) = complete(&server, json!({ "timeout": 0.2 }));
    assert_eq!(status, 503, "{answer}");
    // Ends within the test's time, or the test does not.
    while !server.workers().unwrap().is_empty() {}
}

#[test]
fn what_a_model_leaks_goes_with_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "leak", "");
    let cycle = || {
        assert_eq!(complete(&server, json!({})).0, 200);
        server.post_json("/admin/models/model/unload", &json!({})).unwrap().json().unwrap();
        assert_eq!(server.workers().unwrap(), [0; 0]);
    };
    cycle();
    let before = server.resident().unwrap();
    // Each time 8 MiB are left behind.
    (0..10).for_each(|_| cycle());
    let grown = server.resident().unwrap().saturating_sub(before);
    assert!(grown < 8 << 20, "grew by {grown} bytes");
}

#[test]
fn a_stopped_worker_is_found_by_its_heartbeat() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "good", "worker = { heartbeat = \"2s\" }");
    assert_eq!(complete(&server, json!({})).0, 200);
    let worker = server.workers().unwrap()[0];
    assert!(Command::new("kill").args(["-STOP", &worker.to_string()]).status().unwrap().success());
    // Tried once more, on a worker that runs.
    assert_eq!(complete(&server, json!({})).0, 200);
    assert!(!server.workers().unwrap().contains(&worker));
}

#[test]
fn answers_are_the_same_in_a_worker() {
    let models = repository().join("models");
    let detect = |id: &str, isolation: &str| {
        let rest = format!("task = \"detect\"\nisolation = \"{isolation}\"\nbackend = \"rten\"");
        model_entry(id, &models.join("detect"), &rest)
    };
    let both = chat("here", "none") + &chat("there", "process");
    let server = server(&(both + &detect("shapes-here", "none") + &detect("shapes-there", "process")));
    let held_out = std::fs::read_to_string(models.join("chat/held-out.jsonl")).unwrap();
    let mut asked = 0;
    for line in held_out.lines() {
        let pair: Value = serde_json::from_str(line).unwrap();
        let turns = &pair["messages"];
        let answer = |model: &str| {
            let body = json!({
                "model": model, "messages": turns, "temperature": 0, "logprobs": true, "top_logprobs": 2,
            });
            let answer = server.post_json(CHAT, &body).unwrap().json().unwrap();
            (answer["choices"].clone(), answer["usage"]["completion_tokens"].clone())
        };
        assert_eq!(answer("here"), answer("there"), "{turns}");
        asked += 1;
    }
    assert!(asked > 100, "{asked}");
    for picture in std::fs::read_dir(models.join("detect/held-out")).unwrap() {
        let picture = picture.unwrap().path();
        if picture.extension().is_none_or(|e| e != "png") {
            continue;
        }
        let bytes = std::fs::read(&picture).unwrap();
        let found = |model: &str| {
            let body = json!({ "model": model, "image": STANDARD.encode(&bytes) });
            server.post_json("/v1/images/detect", &body).unwrap().json().unwrap()["detections"].clone()
        };
        let here = found("shapes-here");
        assert!(here.is_array(), "{here}");
        assert_eq!(here, found("shapes-there"), "{}", picture.display());
    }
    let texts = |model: &str| {
        let body = json!({ "model": model, "input": ["llamas wear pajamas", "two plus two"] });
        server.post_json("/v1/embeddings", &body).unwrap().json().unwrap()["data"].clone()
    };
    assert_eq!(texts("here"), texts("there"));
    let metrics = server.get("/metrics").unwrap().body;
    assert!(metrics.contains("pajamas_engine{model=\"there\",number=\"slots\"} 8"), "{metrics}");
}

#[test]
fn an_unloaded_model_is_gone_and_nothing_grows() {
    let server = server(&chat("chat", "process"));
    let cycle = || {
        server.post_json("/admin/models/chat/load", &json!({})).unwrap().json().unwrap();
        assert_eq!(server.workers().unwrap().len(), 1);
        server.post_json("/admin/models/chat/unload", &json!({})).unwrap().json().unwrap();
        assert_eq!(server.workers().unwrap(), [0; 0], "the process outlives its model");
    };
    (0..20).for_each(|_| cycle());
    let (files, memory) = (server.descriptors().unwrap(), server.resident().unwrap());
    (0..100).for_each(|_| cycle());
    let (now, grown) = (server.descriptors().unwrap(), server.resident().unwrap().saturating_sub(memory));
    // Connections of the test itself come and go.
    assert!(now <= files + 2, "{files} descriptors became {now}");
    assert!(grown < 8 << 20, "grew by {grown} bytes");
}

#[test]
fn workers_end_with_their_host() {
    let server = server(&chat("chat", "process"));
    server.post_json(CHAT, &question("chat")).unwrap().json().unwrap();
    let workers = server.workers().unwrap();
    assert_eq!(workers.len(), 1);
    // Killed, so that it cannot tell anybody.
    drop(server);
    while Path::new(&format!("/proc/{}", workers[0])).exists() {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", workers[0])).unwrap_or_default();
        if stat.contains(") Z ") {
            break;
        }
    }
}
