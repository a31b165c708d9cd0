//! Clients that leave or do not read, and a model that breaks: nobody else notices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first trouble")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use pajamas_journeys::fixtures::{Packed, plugin, repository};
use pajamas_journeys::product::{House, Server, chat_entry, model_entry, never_end};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn question(more: Value) -> Value {
    let mut body = json!({
        "model": "chat", "messages": [{ "role": "user", "content": "What is 2 plus 3?" }], "temperature": 0,
    });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    body
}

fn request(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    (head + &body).into_bytes()
}

/// Waits until no model has a request any more.
fn quiet(server: &Server) {
    let busy = |line: &&str| line.starts_with("pajamas_requests_in_flight{") && !line.ends_with(" 0");
    while server.get("/metrics").unwrap().body.lines().find(busy).is_some() {}
}

#[test]
fn a_client_may_leave_at_any_moment() {
    let server = Server::start(House::new(&chat_entry("chat")).unwrap()).unwrap();
    for stream in [true, false] {
        let sent = request(&question(json!({ "stream": stream })));
        // In the head, between head and body, in the body.
        for cut in (0..sent.len()).step_by(17) {
            let mut client = TcpStream::connect(server.authority()).unwrap();
            client.write_all(&sent[..cut]).unwrap();
        }
        // In the answer.
        for read in [0, 1, 40, 200, 500, 900] {
            let mut client = TcpStream::connect(server.authority()).unwrap();
            client.write_all(&sent).unwrap();
            let mut buffer = vec![0; read];
            // A short answer ends sooner.
            let _ = client.take(read as u64).read(&mut buffer).unwrap();
        }
    }
    quiet(&server);
    let answer = server.post_json(CHAT, &question(json!({}))).unwrap().json().unwrap();
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains('5'), "{answer}");
}

#[test]
fn a_client_that_takes_nothing_of_its_stream_is_cut_and_others_are_served() {
    // An answer of some 40 MB: more than the kernel keeps for a connection.
    let model = repository().join("models/chat/model.gguf");
    let entry =
        model_entry("chat", &model, "task = \"chat\"\noptions = { threads = 1, context_length = 65536 }");
    let toml = format!("[server]\nclient_timeout = \"200ms\"\n{entry}");
    let server = Server::start(House::new(&toml).unwrap()).unwrap();
    let more = json!({
        "stream": true, "max_tokens": 20_000, "logprobs": true, "top_logprobs": 20,
        "logit_bias": never_end(&server).unwrap(),
    });
    // Little room for what was not read: the rest has to wait at the server.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.authority().parse::<SocketAddr>().unwrap().into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(&request(&question(more))).unwrap();
    let mut first = [0; 12];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // The answer is given up without a read, and what came until then is no whole answer.
    quiet(&server);
    let mut rest = String::new();
    // The connection may be reset rather than closed.
    let _ = client.read_to_string(&mut rest);
    assert!(!rest.contains("[DONE]"), "the whole answer came: {} bytes", rest.len());
    assert_eq!(server.post_json(CHAT, &question(json!({}))).unwrap().status, 200);
}

#[test]
fn a_model_that_breaks_does_so_alone() {
    let library = plugin("tests/plugins/misbehaving").unwrap();
    let packed = Packed::new(&library, "misbehaving", "0.1.0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.trouble");
    std::fs::write(&broken, "generate-panic").unwrap();
    let entry = model_entry(
        "broken",
        &broken,
        "task = \"generate\"\nformat = \"trouble\"\nbackend = \"misbehaving/trouble\"",
    );
    let search = packed.folder().display();
    let plugins = repository().join("target/release/plugins");
    let toml =
        format!("[plugins]\nsearch = ['{search}', '{}']\n{}{entry}", plugins.display(), chat_entry("chat"));
    let server = Server::start(House::new(&toml).unwrap()).unwrap();
    let body =
        question(json!({ "stream": true, "max_tokens": 60, "logit_bias": never_end(&server).unwrap() }));
    let mut client = TcpStream::connect(server.authority()).unwrap();
    client.write_all(&request(&body)).unwrap();
    let mut lines = BufReader::new(client).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"delta\"")), "the answer began");
    let refused =
        server.post_json("/v1/completions", &json!({ "model": "broken", "prompt": [1, 2] })).unwrap();
    let (status, error) = refused.refusal().unwrap();
    assert_eq!((status, error["code"].as_str()), (500, Some("panicked")), "{error}");
    let rest: Vec<String> = lines.take_while(|line| !line.contains("[DONE]")).collect();
    assert!(rest.iter().any(|line| line.contains("\"finish_reason\":\"length\"")), "{rest:?}");
}

/// A server with a model of the plugin `misbehaving`, which does as the word says, in the host's own process.
fn trouble(folder: &Path, word: &str, server: &str) -> (Server, Packed) {
    let packed = Packed::new(&plugin("tests/plugins/misbehaving").unwrap(), "misbehaving", "0.1.0").unwrap();
    let model = folder.join("model.trouble");
    std::fs::write(&model, word).unwrap();
    let entry = model_entry("model", &model, "task = \"generate\"\nformat = \"trouble\"");
    let toml = format!("[server]\n{server}\n[plugins]\nsearch = ['{}']\n{entry}", packed.folder().display());
    (Server::start(House::new(&toml).unwrap()).unwrap(), packed)
}

#[test]
fn who_writes_without_end_is_not_listened_to() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "generate-babble", "");
    let ask = |stream: bool| {
        let body = json!({ "model": "model", "prompt": [97, 98], "max_tokens": 8, "stream": stream });
        server.post_json("/v1/completions", &body).unwrap()
    };
    let (status, error) = ask(false).refusal().unwrap();
    assert_eq!((status, error["code"].as_str()), (500, Some("plugin-protocol")), "{error}");
    let events = ask(true).events().unwrap();
    let written = events.iter().filter(|event| event["choices"][0]["text"] != Value::Null).count();
    assert!((8..=9).contains(&written), "{written} tokens were passed on");
    assert_eq!(events.last().unwrap()["error"]["code"], "plugin-protocol");
}

#[test]
fn who_waits_for_a_load_hears_that_somebody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _packed) = trouble(folder.path(), "load-hang", "request_timeout = \"4s\"");
    let ask = |stream: bool| {
        let body = json!({ "model": "model", "prompt": [1, 2], "stream": stream });
        server.post_json("/v1/completions", &body).unwrap()
    };
    // The status is out by then: what went wrong is the last event.
    let answer = ask(true);
    assert_eq!((answer.status, answer.body.lines().next()), (200, Some(": waiting")), "{}", answer.body);
    let events = answer.events().unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["error"]["code"], "request-timeout");
    // Without a stream nothing is sent before the end, and the end has its status.
    assert_eq!(ask(false).refusal().unwrap().1["code"], "request-timeout");
}
