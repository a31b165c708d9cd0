//! A model that others need room from sleeps, and wakes with the next request: it keeps its weights, and is not loaded again.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, model_entry};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The repository's chat model with a context that is large beside its weights.
fn entry(id: &str, isolation: &str) -> String {
    let options = "options = { threads = 1, parallel = 4, context_length = 2048, prompt_cache = \"prefix\" }";
    let rest = format!("task = \"chat\"\nisolation = \"{isolation}\"\n{options}");
    model_entry(id, &repository().join("models/chat/model.gguf"), &rest)
}

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn ask(server: &Server, model: &str) -> (String, Value) {
    let turns = json!([{ "role": "user", "content": "What is 2 plus 3?" }]);
    let answer =
        server.post_json(CHAT, &json!({ "model": model, "temperature": 0, "messages": turns })).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json().unwrap();
    (answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned(), answer["usage"].clone())
}

/// Tokens of the prompt that were still in the cache.
fn cached(usage: &Value) -> u64 {
    usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0)
}

fn status(server: &Server, id: &str) -> Value {
    let models = server.get("/admin/models").unwrap().json().unwrap();
    models["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
}

fn held(status: &Value, kind: &str) -> u64 {
    status["memory"].as_array().unwrap().iter().map(|memory| memory[kind].as_u64().unwrap()).sum()
}

/// Two models, and memory for both only if one sleeps.
fn two(isolation: &str) -> Server {
    let (weights, rest) = {
        let server = server(&entry("one", "none"));
        ask(&server, "one");
        let status = status(&server, "one");
        (held(&status, "weights"), held(&status, "kv") + held(&status, "scratch"))
    };
    assert!(rest > weights / 4, "{weights} bytes of weights and {rest} others: nothing to give back");
    let limit = 2 * weights + rest * 7 / 4;
    server(&format!("[memory]\nlimit = \"{limit}B\"\n{}{}", entry("one", isolation), entry("two", isolation)))
}

/// Everything of the journey, with models in the host's process or in their own.
fn journey(isolation: &str) -> (Server, String) {
    let server = two(isolation);
    let mut events = TcpStream::connect(server.authority()).unwrap();
    write!(events, "GET /admin/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (first, _) = ask(&server, "one");
    assert!(first.contains('5'), "{first}");
    // Asked once more, the beginning is in its cache.
    let (_, usage) = ask(&server, "one");
    assert!(cached(&usage) > 0, "{usage}");
    let awake = status(&server, "one");

    assert_eq!(ask(&server, "two").0, first);
    let one = status(&server, "one");
    assert_eq!(
        (&one["state"], &one["loads"], &one["wakes"]),
        (&json!("sleeping"), &json!(1), &json!(0)),
        "{one}"
    );
    assert_eq!((held(&one, "weights"), held(&one, "kv")), (held(&awake, "weights"), 0), "{one}");
    let metrics = server.get("/metrics").unwrap().body;
    assert!(metrics.contains("pajamas_model_state{model=\"one\",state=\"sleeping\"} 1"), "{metrics}");

    let (again, usage) = ask(&server, "one");
    assert_eq!(again, first);
    assert!(cached(&usage) == 0, "{usage}");
    let one = status(&server, "one");
    assert_eq!((&one["loads"], &one["wakes"]), (&json!(1), &json!(1)), "{one}");
    assert!(one["wake_ms"].as_f64().unwrap() > 0.0, "{one}");
    assert_eq!(one["memory"], awake["memory"]);
    assert_eq!(status(&server, "two")["state"], "sleeping");
    let mut told = BufReader::new(events).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("\"state\":\"sleeping\"")), "the stream of events ended");

    // What sleeps is unloaded by hand like any other.
    assert_eq!(server.post("/admin/models/two/unload", "application/json", b"").unwrap().status, 200);
    assert_eq!(status(&server, "two")["state"], "unloaded");
    assert_eq!(ask(&server, "two").0, first);
    assert_eq!(status(&server, "two")["loads"], 2);
    assert_eq!(status(&server, "one")["state"], "sleeping");
    (server, first)
}

#[test]
fn a_model_sleeps_for_another_and_wakes_as_it_was() {
    journey("none");
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_in_a_process_of_its_own_sleeps_and_wakes_in_it() {
    let (server, first) = journey("process");
    // One that is killed in its sleep is loaded anew, and whoever asks does not notice.
    for worker in server.workers().unwrap() {
        assert!(
            std::process::Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap().success()
        );
    }
    assert_eq!(ask(&server, "one").0, first);
    assert_eq!(status(&server, "one")["loads"], 2);
}

/// Both are asked for all the time: whoever sleeps wakes, who is in use gives back slots, nobody is refused, and nothing is loaded
/// more than once.
#[test]
fn two_models_take_turns_without_a_load() {
    let server = two("none");
    ask(&server, "one");
    let all = held(&status(&server, "one"), "kv");
    std::thread::scope(|scope| {
        for client in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..6 {
                    let model = ["one", "two"][(client + round) % 2];
                    assert!(ask(server, model).0.contains('5'), "{model}");
                }
            });
        }
    });
    let models = ["one", "two"].map(|id| status(&server, id));
    assert!(models.iter().all(|model| model["loads"] == 1), "{models:?}");
    let gave_way = |model: &Value| model["wakes"].as_u64() > Some(0) || held(model, "kv") < all;
    assert!(models.iter().any(gave_way), "{models:?}");
}

/// Begins a long answer, and waits for its first words.
fn begin(server: &Server, model: &str) -> BufReader<TcpStream> {
    let turns = json!([{ "role": "user", "content": "Tell me about llamas." }]);
    // Alternatives to each word make it take as long as another model takes to be loaded, many times over.
    let body = json!({
        "model": model, "temperature": 0, "messages": turns, "max_tokens": 900, "ignore_eos": true, "stream": true,
        "logprobs": true, "top_logprobs": 20
    })
    .to_string();
    let mut stream = TcpStream::connect(server.authority()).unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close"
    );
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"content\":\"") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended before a word");
    }
    stream
}

/// The rest of an answer: its words, and why it ended.
fn rest(stream: BufReader<TcpStream>) -> (String, Value) {
    let (mut words, mut finish) = (String::new(), Value::Null);
    let lines = stream.lines().map(Result::unwrap);
    for event in lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok()) {
        let choice = &event["choices"][0];
        words += choice["delta"]["content"].as_str().unwrap_or_default();
        finish =
            [finish, choice["finish_reason"].clone()].into_iter().rfind(|f| !f.is_null()).unwrap_or_default();
    }
    (words, finish)
}

fn gives_back_slots(isolation: &str) {
    let server = two(isolation);
    let alone = rest(begin(&server, "one"));
    let awake = status(&server, "one");

    let long = begin(&server, "one");
    let (answer, _) = ask(&server, "two");
    assert!(answer.contains('5'), "{answer}");
    let one = status(&server, "one");
    assert_eq!((&one["state"], &one["loads"]), (&json!("busy"), &json!(1)), "both are in use at once: {one}");
    assert_eq!(held(&one, "kv"), held(&awake, "kv") / 4, "one slot of four");
    assert_eq!(rest(long), alone, "and it goes on as if nothing had been");

    assert_eq!(server.post("/admin/models/two/unload", "application/json", b"").unwrap().status, 200);
    // Its slots come back by themselves.
    while status(&server, "one")["memory"] != awake["memory"] {}
    assert_eq!(rest(begin(&server, "one")), alone);
    assert_eq!(status(&server, "one")["loads"], 1);
}

#[test]
fn a_model_in_use_gives_back_what_it_does_not_need_and_has_it_again() {
    gives_back_slots("none");
}

#[cfg(target_os = "linux")]
#[test]
fn so_does_one_in_a_process_of_its_own() {
    gives_back_slots("process");
}
