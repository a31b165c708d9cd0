//! What an operator sees, limits and stops.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Answer, House, Server, chat_entry, model_entry, never_end, run};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn question() -> Value {
    json!({ "model": "chat", "temperature": 0, "messages": [{ "role": "user", "content": "What is 2 plus 3?" }] })
}

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

/// Waits for the state that a background load leaves: each look is an answer of the server.
fn wait_for(server: &Server, id: &str, state: &str) -> Value {
    loop {
        let models = server.get("/admin/models").unwrap().json().unwrap();
        let model = models["models"].as_array().unwrap().iter().find(|m| m["id"] == id).unwrap().clone();
        if model["state"] == state {
            return model;
        }
        assert!(
            ["unloaded", "loading", "busy", "unloading"].contains(&model["state"].as_str().unwrap()),
            "{model}"
        );
    }
}

/// The value of one line of the metrics.
fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").unwrap().body;
    let found = text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()));
    assert!(text.ends_with("# EOF\n"), "{text}");
    found
}

#[test]
fn a_key_that_the_command_line_made_opens_what_it_says() {
    let made = |scopes: &str| {
        let lines = run(["keys", "new", "--json", "--scopes", scopes, scopes.split(',').next().unwrap()]);
        let made = lines.unwrap().json().unwrap().remove(0);
        let entry = &made["entry"];
        let toml = format!(
            "[[server.keys]]\nname = {}\nsha256 = {}\nscopes = {}\n",
            entry["name"], entry["sha256"], entry["scopes"]
        );
        (made["key"].as_str().unwrap().to_owned(), toml)
    };
    let (app, first) = made("infer");
    let (ops, second) = made("admin,metrics");
    assert_ne!(app, ops);
    let server = server(&format!("{first}{second}{}", chat_entry("chat")));
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let answer = server.get_with(path, headers).unwrap();
        match answer.status {
            200 => (200, String::new()),
            _ => {
                let (status, error) = answer.refusal().unwrap();
                (status, error["code"].as_str().unwrap().to_owned())
            }
        }
    };
    let bearer = |key: &str| format!("Bearer {key}");
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(ask("/v1/models", &[]), refused(401, "key-missing"));
    assert_eq!(ask("/v1/models", &[("authorization", "Bearer pj-0")]), refused(401, "key-unknown"));
    assert_eq!(ask("/v1/models", &[("authorization", &bearer(&app))]).0, 200);
    assert_eq!(ask("/v1/models", &[("x-api-key", &app)]).0, 200);
    assert_eq!(ask("/admin/models", &[("x-api-key", &app)]), refused(403, "key-scope"));
    assert_eq!(ask("/metrics", &[("x-api-key", &app)]), refused(403, "key-scope"));
    assert_eq!(ask("/v1/models", &[("x-api-key", &ops)]), refused(403, "key-scope"));
    assert_eq!(ask("/admin/models", &[("x-api-key", &ops)]).0, 200);
    assert_eq!(ask("/metrics", &[("x-api-key", &ops)]).0, 200);
    // Who watches whether the process lives has no key.
    assert_eq!(ask("/healthz", &[]).0, 200);
    assert_eq!(ask("/readyz", &[]).0, 200);
    // Of the keys themselves nothing is told.
    let told = server.get_with("/admin/config", &[("x-api-key", &ops)]).unwrap().body;
    assert!(!told.contains(&app) && !told.contains(&ops), "{told}");
}

#[test]
fn others_may_be_served_when_keys_are_asked_for() {
    let open = "[server]\nlisten = \"0.0.0.0:0\"\n";
    let refused = House::new(open).unwrap().run(["config", "check"]).unwrap();
    assert_eq!(refused.refusal().unwrap().0, "listen-not-loopback");
    let hash = "ab".repeat(32);
    let keyed = format!("{open}[[server.keys]]\nname = \"app\"\nsha256 = \"{hash}\"\n");
    let fine = House::new(&keyed).unwrap().run(["config", "check"]).unwrap();
    assert!(fine.status.success(), "{}", fine.stderr);
    let twice = format!("{keyed}[[server.keys]]\nname = \"app\"\nsha256 = \"{hash}\"\nscopes = []\n");
    let refused = House::new(&twice).unwrap().run(["config", "check"]).unwrap();
    assert_eq!(refused.refusal().unwrap().0, "config-invalid");
    assert!(
        refused.stderr.contains("two entries") && refused.stderr.contains("opens nothing"),
        "{}",
        refused.stderr
    );
}

#[test]
fn pages_of_other_origins_are_refused_by_a_server_without_keys() {
    let server = server(&chat_entry("chat"));
    let page = server.get_with("/v1/models", &[("origin", "https://evil.example")]).unwrap();
    assert_eq!(page.refusal().unwrap().1["code"], "origin-refused");
    let own = format!("http://{}", server.authority());
    assert_eq!(server.get_with("/v1/models", &[("origin", &own)]).unwrap().status, 200);
}

#[test]
fn a_server_is_ready_when_its_models_are() {
    let chat = chat_entry("chat").replace("id = \"chat\"", "id = \"chat\"\npreload = true");
    let good = server(&chat);
    wait_for(&good, "chat", "ready");
    assert_eq!(good.get("/readyz").unwrap().json().unwrap(), json!({ "status": "ready", "waiting_for": [] }));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let whole = std::fs::read(repository().join("models/chat/model.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let bad = server(&model_entry("cut", &path, "preload = true"));
    let status = wait_for(&bad, "cut", "failed");
    assert_eq!(status["failure"]["code"], "model-invalid");
    let answer = bad.get("/readyz").unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("\"model\":\"cut\",\"state\":\"failed\""), "{}", answer.body);
    assert_eq!(bad.get("/healthz").unwrap().status, 200);
}

#[test]
fn models_are_loaded_pinned_and_unloaded_by_hand_and_watchers_see_it() {
    let server = server(&chat_entry("chat"));
    let mut events = TcpStream::connect(server.authority()).unwrap();
    write!(events, "GET /admin/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut events = BufReader::new(events);
    let mut data = |event: &str| {
        let (mut last, mut line) = (String::new(), String::new());
        while last.trim_end() != format!("event: {event}") {
            last = std::mem::take(&mut line);
            assert!(events.read_line(&mut line).unwrap() > 0, "the stream of events ended");
        }
        line
    };
    let mut next = |state: &str| {
        let line = data("model");
        assert!(line.contains(&format!("\"state\":\"{state}\"")), "{line}, not {state}");
    };
    next("unloaded");
    let post = |path: &str| server.post(path, "application/json", b"").unwrap();
    let loaded = post("/admin/models/chat/load").json().unwrap();
    assert_eq!((&loaded["state"], &loaded["pinned"]), (&json!("ready"), &json!(false)));
    assert!(loaded["memory"][0]["weights"].as_u64().unwrap() > 1 << 20);
    next("loading");
    next("busy");
    next("ready");
    assert_eq!(post("/admin/models/chat/pin").json().unwrap()["pinned"], true);
    assert_eq!(post("/admin/models/chat/unpin").json().unwrap()["pinned"], false);
    assert_eq!(post("/admin/models/chat/unload").json().unwrap()["state"], "unloaded");
    next("unloading");
    next("unloaded");
    assert_eq!(post("/admin/models/nobody/load").refusal().unwrap().1["code"], "model-not-found");
    // The route and not the path, as in the log.
    while !data("request")
        .contains(r#""path":"/admin/models/{id}/load","status":404,"code":"model-not-found""#)
    {}
    let plugins = server.get("/admin/plugins").unwrap().json().unwrap();
    assert!(plugins["plugins"].as_array().unwrap().len() >= 2, "{plugins}");
    let settings = server.get("/admin/config").unwrap().json().unwrap();
    assert!(
        settings["settings"].as_array().unwrap().iter().any(|s| s["key"] == "server.max_queue"),
        "{settings}"
    );
}

#[test]
fn what_happened_is_counted() {
    let server = server(&chat_entry("chat"));
    let answer = server.post_json(CHAT, &question()).unwrap().json().unwrap();
    let tokens = answer["usage"]["completion_tokens"].as_f64();
    assert_eq!(
        metric(&server, "pajamas_requests_total{task=\"chat\",model=\"chat\",code=\"ok\"}"),
        Some(1.0)
    );
    assert_eq!(metric(&server, "pajamas_tokens_total{model=\"chat\",direction=\"completion\"}"), tokens);
    assert_eq!(metric(&server, "pajamas_time_to_first_token_seconds_count{model=\"chat\"}"), Some(1.0));
    assert_eq!(metric(&server, "pajamas_model_state{model=\"chat\",state=\"ready\"}"), Some(1.0));
    assert_eq!(metric(&server, "pajamas_requests_in_flight{task=\"chat\",model=\"chat\"}"), Some(0.0));
    // A path is no model for somebody from elsewhere, and names of their choosing are no labels.
    let mut path = question();
    path["model"] = json!(repository().join("models/chat/model.gguf"));
    assert_eq!(server.post_json(CHAT, &path).unwrap().refusal().unwrap().1["code"], "model-not-found");
    assert_eq!(metric(&server, "pajamas_refusals_total{code=\"model-not-found\"}"), Some(1.0));
    assert!(!server.get("/metrics").unwrap().body.contains("model.gguf"));
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let server = server(&format!("[server]\nmax_queue = 0\n{}", chat_entry("chat")));
    let answer = server.post_json(CHAT, &question()).unwrap();
    let (status, error) = answer.refusal().unwrap();
    assert_eq!(
        (status, error["code"].as_str(), error["type"].as_str()),
        (429, Some("queue-full"), Some("rate_limit_error"))
    );
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
}

#[test]
fn who_may_not_wait_for_a_load_is_told_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let whole = std::fs::read(repository().join("models/chat/model.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refuse = "[server]\nwhile_loading = \"refuse\"\n";
    let server = server(&format!("{refuse}{}{}", chat_entry("chat"), model_entry("cut", &path, "")));
    let loading = |answer: &Answer| {
        let (status, error) = answer.refusal().unwrap();
        assert_eq!((status, error["code"].as_str()), (503, Some("model-loading")));
        assert!(answer.retry_after.as_deref().unwrap().parse::<u64>().unwrap() >= 1);
    };
    loading(&server.post_json(CHAT, &question()).unwrap());
    let answer = loop {
        let answer = server.post_json(CHAT, &question()).unwrap();
        if answer.status == 200 {
            break answer;
        }
        loading(&answer);
    };
    assert!(answer.json().unwrap()["choices"][0]["message"]["content"].as_str().unwrap().contains('5'));
    assert_eq!(metric(&server, "pajamas_model_loads_total{model=\"chat\"}"), Some(1.0));
    // What can never be loaded says why as soon as that is known.
    let mut body = question();
    body["model"] = json!("cut");
    loading(&server.post_json(CHAT, &body).unwrap());
    let code = loop {
        let code = server.post_json(CHAT, &body).unwrap().refusal().unwrap().1["code"].clone();
        if code != "model-loading" {
            break code;
        }
    };
    assert_eq!(code, "model-invalid");
    // After some failures it rests, and the caller hears until when.
    let wait = loop {
        let answer = server.post_json(CHAT, &body).unwrap();
        let code = answer.refusal().unwrap().1["code"].clone();
        if let Some(wait) = answer.retry_after.filter(|_| code == "model-invalid") {
            break wait.parse::<u64>().unwrap();
        }
    };
    assert!((1..=60).contains(&wait), "{wait}");
    // Tokens need the model, too.
    let post = |path: &str| server.post(path, "application/json", b"").unwrap();
    assert_eq!(post("/admin/models/chat/unload").status, 200);
    loading(&server.post_json("/tokenize", &json!({ "model": "chat", "content": "a" })).unwrap());
}

#[test]
fn a_client_that_stops_sending_is_let_go() {
    let server = server(&format!("[server]\nclient_timeout = \"100ms\"\n{}", chat_entry("chat")));
    let answer = |text: &str| {
        let mut stream = TcpStream::connect(server.authority()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // Half a body: an answer that says why, then the end. Half a head: the end.
    let body = answer(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"model\"",
    );
    assert!(body.starts_with("HTTP/1.1 503") && body.contains("client-too-slow"), "{body}");
    let head = answer("POST /v1/chat/completions HTTP/1.1\r\nhost: loc");
    assert!(!head.contains("200 OK"), "{head}");
    // Others are served as before.
    assert_eq!(server.get("/healthz").unwrap().status, 200);
}

/// A number that the engine of the model `chat` reports.
fn engine(server: &Server, number: &str) -> f64 {
    metric(server, &format!("pajamas_engine{{model=\"chat\",number=\"{number}\"}}")).unwrap()
}

#[test]
fn a_client_that_goes_away_gives_its_slot_back() {
    const MOST: u32 = 900;
    let server = server(&chat_entry("chat"));
    let mut body = question();
    // Without an end of its own: only leaving stops it before the limit.
    body["grammar"] = json!("root ::= \"a\"*");
    body["logit_bias"] = json!({ "2": -100 });
    body["max_tokens"] = json!(MOST);
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut client = TcpStream::connect(server.authority()).unwrap();
    write!(client, "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let mut first = [0; 16];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    drop(client);
    while engine(&server, "busy") > 0.0 {}
    assert_eq!(engine(&server, "cancelled"), 1.0);
    assert!(engine(&server, "generated_tokens") < f64::from(MOST));
    // The slot serves the next one.
    assert_eq!(server.post_json(CHAT, &question()).unwrap().status, 200);
}

#[test]
fn a_request_says_how_long_it_may_take() {
    let model = repository().join("models/chat/model.gguf");
    let entry =
        model_entry("chat", &model, "task = \"chat\"\noptions = { threads = 1, context_length = 65536 }");
    let server = server(&format!("[server]\nrequest_timeout = \"60s\"\n{entry}"));
    let bias = never_end(&server).unwrap();
    let turns = json!([{ "role": "user", "content": "Hello" }]);
    let families = [
        (CHAT, json!({ "messages": turns })),
        ("/v1/completions", json!({ "prompt": "Hello", "max_tokens": 60_000 })),
        ("/v1/responses", json!({ "input": "Hello" })),
        ("/v1/messages", json!({ "messages": turns, "max_tokens": 60_000 })),
    ];
    for (path, mut body) in families {
        body["model"] = json!("chat");
        for wrong in [json!(0), json!(-1), json!(60.5), json!(1e300), json!("1")] {
            body["timeout"] = wrong;
            let (status, error) = server.post_json(path, &body).unwrap().refusal().unwrap();
            assert_eq!((status, &error["code"]), (400, &json!("invalid-input")), "{path}: {error}");
            assert!(error["message"].as_str().unwrap().contains("`timeout`"), "{path}: {error}");
        }
        body["timeout"] = json!(0.25);
        body["temperature"] = json!(2.0);
        body["logit_bias"] = bias.clone();
        let (status, error) = server.post_json(path, &body).unwrap().refusal().unwrap();
        // Once a machine was seen to be slower than that, it is said before rather than after.
        let code = error["code"].as_str().unwrap();
        let late = code == "request-timeout" || path != CHAT && code == "deadline-unmet";
        assert!(status == 503 && late, "{path}: {error}");
        body["stream"] = json!(true);
        // On a slow machine the first token may come later than that; then there is no stream to break.
        let broken = [0.25, 1.0, 4.0, 16.0].into_iter().find_map(|seconds| {
            body["timeout"] = json!(seconds);
            Some(server.post_json(path, &body).unwrap()).filter(|answer| answer.status == 200)
        });
        let answer = broken.unwrap();
        assert!(answer.body.contains("request-timeout"), "{path}: {}", answer.body);
    }
    let texts = json!({ "model": "chat", "input": "Hello", "timeout": 0 });
    assert_eq!(server.post_json("/v1/embeddings", &texts).unwrap().status, 400);
    assert_eq!(server.post_json(CHAT, &question()).unwrap().status, 200);
}
