//! Traces, as a collector gets them.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use pajamas_journeys::product::{House, Server, chat_entry};
use serde_json::{Value, json};

/// A collector: the body of each request that it gets.
fn collector() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(client.read_line(&mut head).unwrap() > 0, "{head}");
            }
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            let head = head.to_ascii_lowercase();
            assert!(head.contains("content-type: application/json"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            client.read_exact(&mut body).unwrap();
            sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n";
            write!(client.get_mut(), "{answer}content-length: 2\r\n\r\n{{}}").unwrap();
        }
    });
    (address, bodies)
}

fn attribute<'s>(span: &'s Value, name: &str) -> &'s Value {
    let attributes = span["attributes"].as_array().unwrap();
    let value =
        &attributes.iter().find(|a| a["key"] == name).unwrap_or_else(|| panic!("{name}: {span}"))["value"];
    value.as_object().unwrap().values().next().unwrap()
}

#[test]
fn a_request_is_a_span_with_its_parts_below_that_of_the_caller() {
    const PARENT: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let (address, bodies) = collector();
    let toml = format!("[telemetry]\notlp = \"{address}\"\n{}", chat_entry("chat"));
    let server = Server::start(House::new(&toml).unwrap()).unwrap();
    let question = json!({
        "model": "chat", "temperature": 0, "messages": [{ "role": "user", "content": "What is 2 plus 3?" }]
    });
    let ask = |sampled: &str, id: &str, body: &Value| {
        let traceparent = format!("00-{}-{}-{sampled}", PARENT.0, PARENT.1);
        let headers = [("traceparent", traceparent.as_str()), ("x-request-id", id)];
        server.post_with("/v1/chat/completions", &headers, body).unwrap()
    };
    let usage = ask("01", "one", &question).json().unwrap()["usage"].clone();
    assert_eq!(ask("01", "two", &json!({ "model": "nobody", "messages": [] })).status, 400);
    // Its caller keeps no trace of this one; and who only looks leaves none.
    assert_eq!(ask("00", "three", &question).status, 200);
    assert_eq!(server.get("/v1/models").unwrap().status, 200);
    // What waits to be sent is sent before the end.
    assert!(server.stop().unwrap().0.success());
    let bodies: Vec<Value> = bodies.try_iter().collect();
    let spans: Vec<&Value> = bodies
        .iter()
        .flat_map(|body| body["resourceSpans"].as_array().unwrap())
        .flat_map(|resource| resource["scopeSpans"].as_array().unwrap())
        .flat_map(|scope| scope["spans"].as_array().unwrap())
        .collect();
    let by = |id: &str| {
        let known = |span: &&&Value| span["kind"] == 2 && attribute(span, "pajamas.request_id") == id;
        *spans.iter().find(known).unwrap_or_else(|| panic!("{id}: {spans:?}"))
    };
    let one = by("one");
    assert_eq!((&one["traceId"], &one["parentSpanId"]), (&json!(PARENT.0), &json!(PARENT.1)));
    assert_eq!(one["name"], "POST /v1/chat/completions");
    assert_eq!(attribute(one, "gen_ai.request.model"), "chat");
    assert_eq!(attribute(one, "pajamas.backend"), "gguf/gguf");
    assert_eq!(attribute(one, "pajamas.device"), "cpu");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    assert_eq!(text(attribute(one, "http.response.status_code")), "200");
    assert_eq!(text(attribute(one, "gen_ai.usage.output_tokens")), usage["completion_tokens"].to_string());
    let time = |span: &Value, end: &str| text(&span[format!("{end}TimeUnixNano")]).parse::<u64>().unwrap();
    let mut at = time(one, "start");
    let parts = spans.iter().filter(|span| span["parentSpanId"] == one["spanId"]);
    let names: Vec<&str> = parts
        .map(|part| {
            assert_eq!(part["traceId"], PARENT.0);
            assert!(time(part, "start") >= at && time(part, "end") >= time(part, "start"), "{part}");
            at = time(part, "end");
            part["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(names, ["load", "queue", "prompt", "decode"]);
    assert_eq!(attribute(by("two"), "error.type"), "invalid-input");
    assert_eq!(spans.iter().filter(|span| span["kind"] == 2).count(), 2, "{spans:?}");
}
