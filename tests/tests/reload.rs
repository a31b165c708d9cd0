//! Another configuration for a server that runs.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use pajamas_journeys::product::{House, Server, chat_entry, never_end, run};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Files are not watched, so that each test says itself when they are read.
const BY_HAND: &str = "[server]\nwatch = false\n";

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn question(model: &str) -> Value {
    json!({ "model": model, "temperature": 0, "messages": [{ "role": "user", "content": "What is 2 plus 3?" }] })
}

/// Waits for a reload later than `before`, and gives what is told of it.
fn reloaded(server: &Server, before: &Value) -> Value {
    loop {
        let config = server.get("/admin/config").unwrap().json().unwrap();
        if config["reload"] != *before {
            return config["reload"].clone();
        }
    }
}

fn reload(server: &Server, toml: &str) -> Value {
    server.house().write(toml).unwrap();
    server.post("/admin/reload", "application/json", b"").unwrap().json().unwrap()["changes"].clone()
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").unwrap().body;
    text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()))
}

#[test]
fn hanging_up_adds_a_model_and_leaves_the_others_alone() {
    let server = server(&format!("{BY_HAND}{}", chat_entry("chat")));
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
    assert_eq!(
        server.post_json(CHAT, &question("more")).unwrap().refusal().unwrap().1["code"],
        "model-not-found"
    );
    server.house().write(&format!("{BY_HAND}{}{}", chat_entry("chat"), chat_entry("more"))).unwrap();
    server.hang_up().unwrap();
    let told = reloaded(&server, &Value::Null);
    assert_eq!((&told["cause"], &told["error"]), (&json!("signal"), &Value::Null));
    assert_eq!(told["changes"]["models"], json!({ "added": ["more"], "removed": [], "changed": [] }));
    assert_eq!(server.post_json(CHAT, &question("more")).unwrap().status, 200);
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
    for model in ["chat", "more"] {
        assert_eq!(metric(&server, &format!("pajamas_model_loads_total{{model=\"{model}\"}}")), Some(1.0));
    }
    assert_eq!(metric(&server, "pajamas_config_reloads_total{result=\"ok\"}"), Some(1.0));
    assert_eq!(metric(&server, "pajamas_config_reloads_total{result=\"failed\"}"), Some(0.0));
    // It goes on to be stopped as before.
    assert!(server.stop().unwrap().0.success());
}

#[test]
fn a_file_that_changes_is_taken_over_and_one_that_is_wrong_is_not() {
    let server = server(&chat_entry("chat"));
    let mut events = TcpStream::connect(server.authority()).unwrap();
    write!(events, "GET /admin/events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(events).lines().map(Result::unwrap);
    let mut event = || -> Value {
        lines.find(|line| line.trim() == "event: config").unwrap();
        let data = lines.next().unwrap();
        serde_json::from_str(data.trim().strip_prefix("data: ").unwrap()).unwrap()
    };
    server.house().write(&format!("[server]\nmax_queue = 7\nmax_que = 8\n{}", chat_entry("other"))).unwrap();
    let told = event();
    assert_eq!((&told["cause"], &told["changes"]), (&json!("file"), &Value::Null));
    assert_eq!(told["error"]["code"], "config-unknown-key");
    assert!(told["error"]["message"].as_str().unwrap().contains("pajamas.toml:3:1"), "{told}");
    let config = server.get("/admin/config").unwrap().json().unwrap();
    assert_eq!(config["reload"], told);
    let queue = |config: &Value| {
        let settings = config["settings"].as_array().unwrap();
        settings.iter().find(|s| s["key"] == "server.max_queue").unwrap()["value"].clone()
    };
    assert_eq!(queue(&config), 64);
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
    assert_eq!(server.post_json(CHAT, &question("other")).unwrap().status, 404);
    assert_eq!(metric(&server, "pajamas_config_reloads_total{result=\"failed\"}"), Some(1.0));
    // The next change is another try.
    server.house().write(&format!("[server]\nmax_queue = 7\n{}", chat_entry("other"))).unwrap();
    let told = event();
    assert_eq!((&told["error"], &told["changes"]["settings"]), (&Value::Null, &json!(["server.max_queue"])));
    assert_eq!(queue(&server.get("/admin/config").unwrap().json().unwrap()), 7);
    assert_eq!(server.post_json(CHAT, &question("other")).unwrap().status, 200);
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 404);
}

/// Begins a stream of at most `tokens` that no word ends, and waits for its first bytes.
fn stream(server: &Server, tokens: u32) -> TcpStream {
    let mut body = question("chat");
    body["logit_bias"] = never_end(server).unwrap();
    body["max_tokens"] = json!(tokens);
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut client = TcpStream::connect(server.authority()).unwrap();
    write!(
        client,
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut first = [0; 16];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    client
}

fn rest(mut client: TcpStream) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    rest
}

#[test]
fn a_model_that_goes_or_changes_is_kept_by_the_requests_that_have_it() {
    // Enough that it goes on for long after a reload.
    const MOST: u32 = 2000;
    let roomy = chat_entry("chat").replace("threads = 1", "threads = 1, context_length = 4096");
    let server = server(&format!("{BY_HAND}{roomy}"));
    let runs = || metric(&server, "pajamas_requests_in_flight{task=\"chat\",model=\"chat\"}") == Some(1.0);
    let running = stream(&server, MOST);
    let other = roomy.replace("4096", "64");
    let changes = reload(&server, &format!("{BY_HAND}{other}"));
    assert_eq!(changes["models"]["changed"], json!(["chat"]));
    assert!(runs());
    // Who comes now gets the new one, which takes less.
    let long =
        json!({ "model": "chat", "messages": [{ "role": "user", "content": "pajamas ".repeat(100) }] });
    let refused = server.post_json(CHAT, &long).unwrap().refusal().unwrap();
    assert_eq!(refused.1["code"], "context-length-exceeded");
    let whole = rest(running);
    assert!(whole.contains("\"finish_reason\":\"length\"") && whole.contains("data: [DONE]"), "{whole}");

    reload(&server, &format!("{BY_HAND}{roomy}"));
    let running = stream(&server, MOST);
    let changes = reload(&server, BY_HAND);
    assert_eq!(changes["models"]["removed"], json!(["chat"]));
    assert!(runs());
    let (status, error) = server.post_json(CHAT, &question("chat")).unwrap().refusal().unwrap();
    assert_eq!((status, &error["code"]), (404, &json!("model-not-found")));
    let whole = rest(running);
    assert!(whole.contains("\"finish_reason\":\"length\"") && whole.contains("data: [DONE]"), "{whole}");
    // What it held is given back.
    while server.get("/admin/models").unwrap().json().unwrap()["devices"]
        .as_array()
        .unwrap()
        .iter()
        .any(|device| device["used"] != 0)
    {}
}

#[test]
fn what_is_said_of_a_model_is_no_reason_to_load_it_again() {
    let server = server(&format!("{BY_HAND}{}", chat_entry("chat")));
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
    let described = chat_entry("chat").replace("id = \"chat\"", "id = \"chat\"\ndescription = \"sums\"");
    let changes = reload(&server, &format!("{BY_HAND}max_queue = 9\n{described}"));
    assert_eq!(
        (&changes["models"]["changed"], &changes["settings"]),
        (&json!(["chat"]), &json!(["server.max_queue"]))
    );
    assert_eq!(server.get("/v1/models").unwrap().json().unwrap()["data"][0]["description"], "sums");
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
    assert_eq!(metric(&server, "pajamas_model_loads_total{model=\"chat\"}"), Some(1.0));
    // One that is to be ready is made so.
    let ready = chat_entry("early").replace("id = \"early\"", "id = \"early\"\npreload = true");
    reload(&server, &format!("{BY_HAND}max_queue = 9\n{described}{ready}"));
    while server.get("/readyz").unwrap().status != 200 {}
    assert_eq!(metric(&server, "pajamas_model_loads_total{model=\"early\"}"), Some(1.0));
    // Limits of memory hold for what is there: none of the two has room any more.
    reload(&server, &format!("{BY_HAND}max_queue = 9\n{described}{ready}[memory]\nlimit = \"1MiB\"\n"));
    let (status, error) = server.post_json(CHAT, &question("chat")).unwrap().refusal().unwrap();
    assert_eq!((status, &error["code"]), (503, &json!("out-of-memory")));
}

#[test]
fn another_key_opens_at_once_and_the_old_one_no_more() {
    let made = |name: &str| {
        let lines = run(["keys", "new", "--json", "--scopes", "infer,admin", name]);
        let made = lines.unwrap().json().unwrap().remove(0);
        let toml = format!(
            "[[server.keys]]\nname = \"app\"\nsha256 = {}\nscopes = [\"infer\", \"admin\"]\n",
            made["entry"]["sha256"]
        );
        (made["key"].as_str().unwrap().to_owned(), toml)
    };
    let ((old, before), (new, after)) = (made("old"), made("new"));
    let server = server(&format!("{BY_HAND}{before}{}", chat_entry("chat")));
    let status = |key: &str| server.get_with("/v1/models", &[("x-api-key", key)]).unwrap().status;
    assert_eq!((status(&old), status(&new)), (200, 401));
    server.house().write(&format!("{BY_HAND}{after}{}", chat_entry("chat"))).unwrap();
    let reload = |key: &str| server.post_with("/admin/reload", &[("x-api-key", key)], &json!({})).unwrap();
    assert_eq!(reload(&new).status, 401);
    let changes = reload(&old).json().unwrap()["changes"].clone();
    assert_eq!(changes["keys"], json!({ "added": [], "removed": [], "changed": ["app"] }));
    assert_eq!((status(&old), status(&new)), (401, 200));
    let told = server.get_with("/admin/config", &[("x-api-key", &new)]).unwrap().body;
    assert!(!told.contains(&old) && !told.contains(&new), "{told}");
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_holds() {
    let fixed = "[server]\nwatch = false\nlisten = \"127.0.0.1:0\"\n";
    let house = House::new(&format!("{fixed}{}", chat_entry("chat"))).unwrap();
    let server = Server::start_with(house, &[]).unwrap();
    let moved = fixed.replace(":0", ":1");
    let changes = reload(&server, &format!("{moved}max_queue = 0\n{}", chat_entry("chat")));
    assert_eq!(changes["needs_restart"], json!(["server.listen"]));
    assert_eq!(changes["settings"], json!(["server.max_queue"]));
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().refusal().unwrap().0, 429);
    let settings = server.get("/admin/config").unwrap().json().unwrap()["settings"].clone();
    let listen = settings.as_array().unwrap().iter().find(|s| s["key"] == "server.listen").unwrap().clone();
    assert_eq!(listen["value"], "127.0.0.1:0");
    // A flag lies over the file, as it did at the start.
    let house = House::new(&format!("{fixed}{}", chat_entry("chat"))).unwrap();
    let server = Server::start_with(house, &["--listen", "127.0.0.1:0"]).unwrap();
    let changes = reload(&server, &format!("{moved}{}", chat_entry("chat")));
    assert_eq!((&changes["needs_restart"], &changes["settings"]), (&json!([]), &json!([])));
    // A model that cannot be is refused, and with it the rest of the file.
    server
        .house()
        .write(&format!("{moved}max_queue = 0\n[[models]]\nid = \"no\"\npath = \"pajamas.toml\"\n"))
        .unwrap();
    let refused = server.post("/admin/reload", "application/json", b"").unwrap().refusal().unwrap();
    assert_eq!(refused.0, 400, "{}", refused.1);
    assert_eq!(server.post_json(CHAT, &question("chat")).unwrap().status, 200);
}
