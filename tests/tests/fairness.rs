//! Who waits behind whom, how much each key may use, and what is refused at once because it would be late.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;

use pajamas_journeys::product::{Answer, House, Server, chat_entry, run};
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";

/// A key, and its entry with more in it.
fn key(name: &str, more: &str) -> (String, String) {
    let made = run(["keys", "new", "--json", name]).unwrap().json().unwrap().remove(0);
    let scopes = "[\"infer\", \"admin\", \"metrics\"]";
    let entry = format!(
        "[[server.keys]]\nname = \"{name}\"\nsha256 = {}\nscopes = {scopes}\n{more}\n",
        made["entry"]["sha256"]
    );
    (made["key"].as_str().unwrap().to_owned(), entry)
}

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

/// So many tokens after a prompt.
fn text(tokens: u32) -> Value {
    json!({ "model": "chat", "prompt": "Llamas", "max_tokens": tokens, "ignore_eos": true, "temperature": 0 })
}

fn ask(server: &Server, key: &str, body: &Value) -> Answer {
    server.post_with(TEXT, &[("x-api-key", key)], body).unwrap()
}

#[test]
fn a_key_has_its_limits_and_hears_what_is_left() {
    let (few, first) = key("few", "requests_per_minute = 2");
    let (short, second) = key("short", "tokens_per_minute = 40");
    let (free, third) = key("free", "");
    let server = server(&[first, second, third, chat_entry("chat")].concat());
    let one = ask(&server, &few, &text(1));
    assert_eq!(one.status, 200, "{}", one.body);
    assert_eq!((one.left["limit-requests"].as_str(), one.left["remaining-requests"].as_str()), ("2", "1"));
    assert!(
        one.left["reset-requests"].ends_with('s') && !one.left.contains_key("limit-tokens"),
        "{:?}",
        one.left
    );
    assert_eq!(ask(&server, &few, &text(1)).status, 200);
    let refused = ask(&server, &few, &text(1));
    assert_eq!((refused.status, refused.refusal().unwrap().1["code"].clone()), (429, json!("rate-limited")));
    assert!((1..=30).contains(&refused.retry_after.unwrap().parse::<u32>().unwrap()));
    assert_eq!(refused.left["remaining-requests"], "0");
    // Streamed or not: the refusal has its status.
    let mut streamed = text(1);
    streamed["stream"] = json!(true);
    assert_eq!(ask(&server, &few, &streamed).status, 429);

    // An answer is longer than was foreseen: the next one waits for it.
    let long = ask(&server, &short, &text(60));
    assert_eq!((long.status, long.left["remaining-tokens"].as_str()), (200, "0"), "{}", long.body);
    assert_eq!(ask(&server, &short, &text(1)).refusal().unwrap().1["code"], "rate-limited");
    // What was refused costs nothing.
    let before = ask(&server, &free, &text(1));
    assert!(before.status == 200 && before.left.is_empty(), "{:?}", before.left);
    for _ in 0..5 {
        assert_eq!(ask(&server, &free, &text(1)).status, 200);
    }
}

/// A request that runs until its connection is dropped.
fn endless(server: &Server, key: &str) -> TcpStream {
    let mut body = text(30_000);
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut running = TcpStream::connect(server.authority()).unwrap();
    let head = format!(
        "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    running.write_all((head + &body).as_bytes()).unwrap();
    let mut first = [0; 16];
    running.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    running
}

/// The chat model with one place, and room for an answer that is long enough.
fn one_place() -> String {
    chat_entry("chat").replace("threads = 1", "threads = 1, parallel = 1, context_length = 32768")
}

fn waiting(server: &Server, key: &str) -> Value {
    let models = server.get_with("/admin/models", &[("x-api-key", key)]).unwrap().json().unwrap();
    models["queues"][0].clone()
}

#[test]
fn one_key_with_many_requests_does_not_delay_the_first_of_another() {
    let (many, first) = key("many", "");
    let (few, second) = key("few", "");
    let (low, third) = key("low", "priority = \"low\"");
    let server = server(&[first, second, third, one_place()].concat());
    let running = endless(&server, &many);
    let (sender, order) = channel();
    let order: Vec<&str> = std::thread::scope(|scope| {
        let server = &server;
        let people = [
            ("low", &low),
            ("many", &many),
            ("many", &many),
            ("many", &many),
            ("many", &many),
            ("few", &few),
        ];
        for (place, (name, key)) in people.into_iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || {
                // Long enough that the order of the answers is that of their turns.
                let mut body = text(40);
                // Who may not be high is not, whatever it says.
                body["priority"] = json!(if name == "low" { "high" } else { "normal" });
                assert_eq!(ask(server, key, &body).status, 200);
                sender.send(name).unwrap();
            });
            while waiting(server, &many)["inside"] != place + 2 {}
        }
        // The first is with the model already; the others wait, and it is seen whose they are.
        let seen = waiting(server, &many);
        assert_eq!(seen["by_key"], json!({ "few": 1, "many": 4 }), "{seen}");
        let metrics = server.get_with("/metrics", &[("x-api-key", &many)]).unwrap().body;
        assert!(metrics.contains("pajamas_key_queue_depth{model=\"chat\",key=\"many\"} 4"), "{metrics}");
        drop(running);
        order.iter().take(6).collect()
    });
    let place = order.iter().position(|name| *name == "few").unwrap();
    assert!(place <= 2, "{order:?}");
}

#[test]
fn a_rule_gives_its_priority_to_those_that_say_none_and_no_more_than_their_key_may() {
    let (free, first) = key("free", "");
    let (low, second) = key("low", "priority = \"low\"");
    let rule = "[[routes]]\nid = \"gold\"\nuse = \"chat\"\npriority = \"high\"\n\
                when = { model = \"chat\", metadata = { tier = \"gold\" } }\n";
    let server = server(&[rule.to_owned(), first, second, one_place()].concat());
    let body = |more: Value| {
        let mut body = text(40);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let gold = json!({ "metadata": { "tier": "gold" } });
    let traced = ask(&server, &free, &body(json!({ "metadata": { "tier": "gold" }, "route_trace": true })));
    assert_eq!(traced.json().unwrap()["route_trace"]["priority"], 10);
    let plain = ask(&server, &free, &body(json!({ "route_trace": true })));
    assert!(plain.json().unwrap()["route_trace"].get("priority").is_none());

    let running = endless(&server, &free);
    let (sender, order) = channel();
    let order: Vec<&str> = std::thread::scope(|scope| {
        let server = &server;
        // The first is with the model already, the others wait.
        let people = [
            ("first", &free, json!({})),
            ("gold of a low key", &low, gold.clone()),
            ("gold that says normal", &free, json!({ "metadata": { "tier": "gold" }, "priority": "normal" })),
            ("gold", &free, gold),
        ];
        for (place, (name, key, more)) in people.into_iter().enumerate() {
            let (sender, body) = (sender.clone(), body(more));
            scope.spawn(move || {
                assert_eq!(ask(server, key, &body).status, 200);
                sender.send(name).unwrap();
            });
            while waiting(server, &free)["inside"] != place + 2 {}
        }
        drop(running);
        order.iter().take(4).collect()
    });
    let place = |who: &str| order.iter().position(|name| *name == who).unwrap();
    assert!(place("gold") < place("gold that says normal"), "{order:?}");
    assert!(place("gold that says normal") < place("gold of a low key"), "{order:?}");
}

#[test]
fn what_would_be_late_is_refused_at_once() {
    let server = server(&one_place());
    // Until something was observed nothing is late: it begins, and may be done in time or not.
    assert_eq!(ask(&server, "", &text(1000)).status, 200);
    let mut body = text(1000);
    // Far less than it takes, and far more than deciding does.
    body["timeout"] = json!(0.1);
    let (status, error) = ask(&server, "", &body).refusal().unwrap();
    assert_eq!((status, &error["code"]), (503, &json!("deadline-unmet")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("and the request may take 0.1 s"), "{error}");
    body["timeout"] = json!(100);
    assert_eq!(ask(&server, "", &body).status, 200);
}

#[test]
fn at_the_same_time_a_key_has_no_more_than_it_may() {
    let (app, first) = key("app", "max_concurrent = 1");
    let (other, second) = key("other", "");
    let server = server(&[first, second, one_place().replace("parallel = 1", "parallel = 3")].concat());
    let running = endless(&server, &app);
    let refused = ask(&server, &app, &text(1));
    assert_eq!((refused.status, refused.refusal().unwrap().1["code"].clone()), (429, json!("rate-limited")));
    assert_eq!(ask(&server, &other, &text(1)).status, 200);
    drop(running);
    while ask(&server, &app, &text(1)).status == 429 {}
}
