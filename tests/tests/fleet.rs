//! More models than memory: every request is answered by the right one, and none is ever over the limit.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::sync::atomic::{AtomicBool, Ordering};

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, chat_entry, model_entry};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Looks at the server after which what should happen by itself has not: each takes about a millisecond.
const LOOKS: usize = 60_000;

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn question(model: &str, words: &str) -> Value {
    json!({ "model": model, "temperature": 0, "messages": [{ "role": "user", "content": words }] })
}

fn words(server: &Server, body: &Value) -> String {
    let answer = server.post_json(CHAT, body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().unwrap()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// What `/admin/models` says of one model.
fn status(server: &Server, id: &str) -> Value {
    let models = server.get("/admin/models").unwrap().json().unwrap();
    models["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
}

/// Bytes that models may hold in main memory, and bytes that they hold.
fn memory(server: &Server) -> (u64, u64) {
    let models = server.get("/admin/models").unwrap().json().unwrap();
    let cpu = models["devices"]
        .as_array()
        .unwrap()
        .iter()
        .find(|device| device["device"] == "cpu")
        .unwrap()
        .clone();
    assert!(cpu["others"].is_u64(), "{cpu}");
    (cpu["total"].as_u64().unwrap(), cpu["used"].as_u64().unwrap())
}

/// Looks until a model is in this state by itself.
fn becomes(server: &Server, id: &str, state: &str) -> Value {
    let status = (0..LOOKS).map(|_| status(server, id)).find(|status| status["state"] == state);
    status.unwrap_or_else(|| panic!("{id} does not become {state}"))
}

/// What one chat model holds.
fn size() -> u64 {
    let server = server(&chat_entry("chat"));
    assert_eq!(server.post("/admin/models/chat/load", "application/json", b"").unwrap().status, 200);
    memory(&server).1
}

#[test]
fn three_models_share_memory_for_two_and_every_answer_is_right() {
    const SUMS: [(&str, &str); 4] = [
        ("What is 2 plus 3?", "5"),
        ("What is 4 plus 4?", "8"),
        ("What is 1 plus 6?", "7"),
        ("What is 3 plus 6?", "9"),
    ];
    const MODELS: [&str; 3] = ["one", "two", "three"];
    let limit = size() * 5 / 2;
    let entries: String = MODELS.map(chat_entry).concat();
    let server = server(&format!("[memory]\nlimit = \"{limit}B\"\n{entries}"));
    let over = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let (server, over) = (&server, &over);
        let clients: Vec<_> = (0..6)
            .map(|client| {
                scope.spawn(move || {
                    for round in 0..6 {
                        let (sum, result) = SUMS[(client + round) % SUMS.len()];
                        let model = MODELS[(client * 2 + round) % MODELS.len()];
                        let said = words(server, &question(model, sum));
                        assert!(said.contains(result), "{model}: {sum} {said}");
                    }
                })
            })
            .collect();
        let watcher = scope.spawn(move || {
            let mut looks = 0;
            while !over.load(Ordering::SeqCst) {
                let (total, used) = memory(server);
                assert!(used <= total && total == limit, "{used} of {total} bytes");
                looks += 1;
            }
            looks
        });
        let ended: Vec<bool> = clients.into_iter().map(|client| client.join().is_ok()).collect();
        over.store(true, Ordering::SeqCst);
        assert!(watcher.join().unwrap() > 0);
        ended
    });
    assert!(ended.iter().all(|ended| *ended), "{ended:?}");
    // Who gave way went, or slept.
    let came = |id: &&str| ["loads", "wakes"].map(|what| status(&server, id)[what].as_u64().unwrap());
    let came: u64 = MODELS.iter().flat_map(came).sum();
    assert!(came > 3, "{came} loads and wakes: there was room for all");
    let metrics = server.get("/metrics").unwrap().body;
    assert!(!metrics.contains("pajamas_refusals_total{code=\"out-of-memory\"}"), "{metrics}");
    assert!(metrics.contains("pajamas_model_leaks_total{model=\"one\"} 0"), "{metrics}");
}

#[test]
fn a_model_goes_after_its_time_and_a_request_may_say_another() {
    let chat = chat_entry("chat").replace("id = \"chat\"", "id = \"chat\"\nttl = \"100ms\"");
    let server = server(&format!("{chat}{}", chat_entry("stays")));
    assert!(words(&server, &question("chat", "What is 2 plus 3?")).contains('5'));
    becomes(&server, "chat", "unloaded");
    assert_eq!(memory(&server).1, 0);
    // It comes back with the next request, and goes when that says so.
    let mut body = question("chat", "What is 2 plus 3?");
    body["keep_alive"] = json!(-1);
    assert!(words(&server, &body).contains('5'));
    assert_eq!(status(&server, "chat")["expires_ms"], Value::Null);
    body["keep_alive"] = json!("1h");
    assert!(words(&server, &body).contains('5'));
    let ready = becomes(&server, "chat", "ready");
    assert!(ready["expires_ms"].as_u64().unwrap() > 3_000_000, "{ready}");
    body["keep_alive"] = json!(0);
    assert!(words(&server, &body).contains('5'));
    assert_eq!(becomes(&server, "chat", "unloaded")["loads"], 2);
    // Vectors have the field, too, and a model without a time of its own stays.
    let embed = |keep: Value| {
        let body = json!({ "model": "stays", "input": "pajamas", "keep_alive": keep });
        server.post_json("/v1/embeddings", &body).unwrap()
    };
    assert_eq!(embed(Value::Null).status, 200);
    assert_eq!(becomes(&server, "stays", "ready")["expires_ms"], Value::Null);
    let refused = embed(json!("soon")).refusal().unwrap();
    assert_eq!((refused.0, &refused.1["code"]), (400, &json!("invalid-input")), "{refused:?}");
    assert_eq!(embed(json!("0s")).status, 200);
    becomes(&server, "stays", "unloaded");
}

#[test]
fn a_model_that_failed_several_times_rests_and_says_how_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let whole = std::fs::read(repository().join("models/chat/model.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let server = server(&model_entry("cut", &path, "task = \"chat\""));
    let body = question("cut", "Hello");
    let ask = || {
        let answer = server.post_json(CHAT, &body).unwrap();
        (
            answer.refusal().unwrap().1["code"].clone(),
            answer.retry_after.and_then(|wait| wait.parse::<u64>().ok()),
        )
    };
    let first = ask();
    assert_eq!(first, (json!("model-invalid"), None), "the next request may find it mended");
    let rested = (0..LOOKS).map(|_| ask()).find(|(_, wait)| wait.is_some()).unwrap();
    assert!(rested.0 == "model-invalid" && rested.1.unwrap() >= 1, "{rested:?}");
    // By hand it is tried at once.
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(server.post("/admin/models/cut/load", "application/json", b"").unwrap().status, 200);
    assert_eq!(status(&server, "cut")["failure"], Value::Null);
}

#[test]
fn a_model_that_is_warmed_has_computed_before_the_first_request() {
    let chat = chat_entry("chat").replace("id = \"chat\"", "id = \"chat\"\npreload = true\nwarm = true");
    let colours = repository().join("models/classify");
    let colours = model_entry("colours", &colours, "task = \"classify\"\npreload = true\nwarm = true");
    let server = server(&(chat + &colours));
    let warmed = |_| {
        let metrics = server.get("/metrics").unwrap().body;
        metrics.contains("pajamas_engine{model=\"chat\",number=\"generated_tokens\"} 1\n")
    };
    assert!((0..LOOKS).any(warmed), "it is ready, and has computed nothing");
    becomes(&server, "colours", "ready");
    assert_eq!(server.get("/readyz").unwrap().status, 200);
    // A model that was ready and went comes back with the next request: the server stays ready.
    assert_eq!(server.post("/admin/models/chat/unload", "application/json", b"").unwrap().status, 200);
    assert_eq!(server.get("/readyz").unwrap().status, 200);
}

#[test]
fn a_thousand_loads_leave_nothing_behind() {
    let entry = chat_entry("chat").replace("threads = 1", "threads = 1, context_length = 256");
    let server = server(&entry);
    let cycle = || {
        for what in ["load", "unload"] {
            let path = format!("/admin/models/chat/{what}");
            let told = server.post(&path, "application/json", b"").unwrap();
            assert_eq!(told.status, 200, "{}", told.body);
        }
    };
    (0..100).for_each(|_| cycle());
    let (files, bytes) = (server.descriptors().unwrap(), server.resident().unwrap());
    (0..900).for_each(|_| cycle());
    let status = status(&server, "chat");
    assert_eq!((&status["loads"], &status["leaks"]), (&json!(1000), &json!(0)), "{status}");
    assert_eq!(memory(&server).1, 0, "the ledger is empty");
    let (now, grown) = (server.descriptors().unwrap(), server.resident().unwrap().saturating_sub(bytes));
    // Connections of the test itself come and go; of what a load takes, 8 MiB would be left in two of them.
    assert!(now <= files + 2, "{files} descriptors became {now}");
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert!(words(&server, &question("chat", "What is 2 plus 3?")).contains('5'));
}
