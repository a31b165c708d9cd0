//! Models of other servers: the same answers as from a model here, and nothing worse than a code when the other server is
//! slow, half-dead, or talks nonsense.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

#[cfg(target_os = "linux")]
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, chat_entry, never_end, part};
use pajamas_journeys::upstream::{Does, Upstream, answer, entry, events};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn question(model: &str) -> Value {
    json!({ "model": model, "temperature": 0, "max_tokens": 16, "messages": [{ "role": "user", "content": "What is 2 plus 3?" }] })
}

fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What an answer says, without what differs from one answer to the next.
fn said(mut value: Value) -> Value {
    for key in ["id", "created", "model", "timings"] {
        value.as_object_mut().unwrap().remove(key);
    }
    // Of a prompt that was asked before, more may be in the cache.
    if let Some(usage) = value.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("prompt_tokens_details");
    }
    for choice in value["choices"].as_array_mut().into_iter().flatten() {
        for call in choice["message"]["tool_calls"].as_array_mut().into_iter().flatten() {
            call.as_object_mut().unwrap().remove("id");
        }
    }
    value
}

fn condition(server: &Server, model: &str) -> Value {
    let models = server.get("/admin/models").unwrap().json().unwrap();
    models["remotes"].as_array().unwrap().iter().find(|one| one["model"] == model).unwrap().clone()
}

#[test]
fn a_remote_answers_as_the_model_does_here() {
    let there = server(&chat_entry("chat"));
    let here = server(&(entry("far", there.authority(), "chat", "") + &chat_entry("chat")));
    let both = |path: &str, body: &Value| {
        let ask =
            |model: &str| here.post_json(path, &with(body.clone(), &json!({ "model": model }))).unwrap();
        let (near, far) = (ask("chat"), ask("far"));
        assert_eq!(near.status, 200, "{}", near.body);
        assert_eq!(far.status, 200, "{}", far.body);
        assert_eq!((part(&far, "remote"), part(&far, "device")), (Some("chat"), Some("remote")));
        (near, far)
    };
    let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": {
        "type": "object", "properties": { "sum": { "type": "integer" } }, "required": ["sum"],
    } } });
    let tools = json!([{ "type": "function", "function": { "name": "sum", "parameters": {
        "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"],
    } } }]);
    for more in [
        json!({}),
        json!({ "logprobs": true, "top_logprobs": 2 }),
        json!({ "stop": ["a", "e"] }),
        json!({ "temperature": 1, "seed": 7, "top_k": 5, "min_p": 0.01, "repeat_penalty": 1.3 }),
        json!({ "response_format": format }),
        json!({ "tools": tools, "tool_choice": "required", "max_tokens": 64 }),
        json!({ "n": 2, "temperature": 1, "seed": 7 }),
    ] {
        let (near, far) = both(CHAT, &with(question(""), &more));
        assert_eq!(said(near.json().unwrap()), said(far.json().unwrap()), "{more}");
    }
    for body in [
        json!({ "prompt": "Llamas", "max_tokens": 8, "temperature": 0, "logprobs": 1 }),
        json!({ "prompt": [[1, 20, 21]], "max_tokens": 4, "temperature": 0 }),
    ] {
        let (near, far) = both("/v1/completions", &body);
        assert_eq!(said(near.json().unwrap()), said(far.json().unwrap()), "{body}");
    }
    let (near, far) = both("/v1/embeddings", &json!({ "input": ["A llama", "Pajamas"] }));
    let (near, far) = (near.json().unwrap(), far.json().unwrap());
    assert_eq!(near["usage"], far["usage"]);
    let row = |answer: &Value, n: usize| -> Vec<f64> {
        answer["data"][n]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for n in 0..2 {
        let far_off = row(&near, n).iter().zip(row(&far, n)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far_off < 1e-6, "row {n}: {far_off}");
    }
}

#[test]
fn a_stream_comes_through_token_by_token_and_the_command_line_goes_the_same_way() {
    let there = server(&chat_entry("chat"));
    let here = server(&(entry("far", there.authority(), "chat", "") + &chat_entry("chat")));
    let more = json!({ "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 24 });
    let pieces = |model: &str| -> (Vec<String>, Value) {
        let answer = here.post_json(CHAT, &with(question(model), &more)).unwrap();
        let events = answer.events().unwrap();
        let text = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        let usage = events.last().unwrap()["usage"]["completion_tokens"].clone();
        (events.iter().filter_map(text).collect(), usage)
    };
    let (near, far) = (pieces("chat"), pieces("far"));
    assert!(far.0.len() > 3, "{far:?}");
    // What a part is, is decided here by the reader and there by theirs: the text is the same.
    assert_eq!((near.0.concat(), near.1), (far.0.concat(), far.1));
    let run = |model: &str| {
        let run = here.house().run(["chat", "--json", "-t", "0", "--model", model, "What is 2 plus 3?"]);
        run.unwrap().json().unwrap().remove(0)["text"].clone()
    };
    assert_eq!(run("chat"), run("far"));
}

/// What an OpenAI-compatible server says when all goes well.
fn hello() -> Vec<u8> {
    events(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        "[DONE]",
    ])
}

#[test]
fn conversations_are_sent_as_messages_with_the_key_which_is_shown_nowhere() {
    const KEY: &str = "sk-very-secret-indeed";
    let upstream = Upstream::start(Does::Say(hello())).unwrap();
    let toml = upstream.entry("far", ", key_env = \"FAR_KEY\"");
    let house = House::new(&toml).unwrap();
    let server = Server::start_as(house, &["--listen", "127.0.0.1:0"], &[("FAR_KEY", KEY)]).unwrap();
    let mut body = question("far");
    body["messages"] =
        json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]);
    let answer = server.post_json(CHAT, &body).unwrap().json().unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["usage"]["total_tokens"], 5);
    let heard = upstream.heard().remove(0);
    assert!(heard.head.starts_with("POST /v1/chat/completions HTTP/1.1\n"), "{}", heard.head);
    assert!(heard.head.contains(&format!("authorization: Bearer {KEY}\n")), "{}", heard.head);
    let sent: Value = serde_json::from_str(&heard.body).unwrap();
    assert_eq!((&sent["messages"], &sent["model"]), (&body["messages"], &json!("m")));
    // A server that repeats the key in its refusal.
    let echo = json!({ "error": { "message": format!("no such key: {KEY}") } }).to_string();
    upstream.now_does(Does::Say(self::answer("401 Unauthorized", "application/json", &echo)));
    let refused = server.post_json(CHAT, &body).unwrap();
    assert_eq!(refused.refusal().unwrap().1["code"], "remote-denied");
    let explained = server.house().run(["config", "explain"]).unwrap().stdout;
    assert!(explained.contains("FAR_KEY"), "{explained}");
    let places = [
        refused.body,
        explained,
        server.get("/admin/models").unwrap().body,
        server.get("/admin/routes").unwrap().body,
    ];
    assert!(places.iter().all(|place| !place.contains(KEY)), "{places:?}");
    #[cfg(unix)]
    assert!(!server.stop().unwrap().1.contains(KEY));
}

#[test]
#[cfg(target_os = "linux")]
fn over_tls_only_a_server_that_the_system_trusts_is_asked() {
    let upstream = Upstream::start_tls(Does::Say(hello())).unwrap();
    let toml = entry("far", &upstream.authority(), "m", "").replace("http://", "https://");
    let flags = ["--listen", "127.0.0.1:0"];
    let authority = repository().join("tests/fixtures/tls/authority.pem");
    let trusting = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let server = Server::start_as(House::new(&toml).unwrap(), &flags, &trusting).unwrap();
    let answer = server.post_json(CHAT, &question("far")).unwrap().json().unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    let server = Server::start_as(House::new(&toml).unwrap(), &flags, &[]).unwrap();
    let (_, error) = server.post_json(CHAT, &question("far")).unwrap().refusal().unwrap();
    assert_eq!(error["code"], "remote-unavailable");
    assert!(error["message"].as_str().unwrap().contains("certificate"), "{error}");
    assert_eq!(upstream.heard().len(), 1, "nothing is sent to who is not trusted");
}

#[test]
fn each_trouble_with_a_remote_has_its_code() {
    let chunk = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let html = answer("200 OK", "text/html", "<html>It works!</html>\n");
    let long = "x".repeat(3 << 20);
    let refusal = |status: &str, words: &str| answer(status, "application/json", words);
    let too_long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    for (does, status, code) in [
        (Does::Say(Vec::new()), 503, "remote-unavailable"),
        (Does::Hold(Vec::new()), 503, "remote-timeout"),
        (Does::Hold(events(&[chunk])), 503, "remote-timeout"),
        (Does::Say(events(&[chunk])), 503, "remote-interrupted"),
        (Does::Say(events(&[chunk, "[DONE]"])), 503, "remote-interrupted"),
        (Does::Say(events(&[chunk, "{\"error\":{\"message\":\"oops\"}}"])), 503, "remote-unavailable"),
        (Does::Say(events(&["{\"choices\":7}"])), 503, "remote-invalid"),
        (Does::Say(events(&["nonsense"])), 503, "remote-invalid"),
        (Does::Say(events(&[&long])), 503, "remote-invalid"),
        (Does::Say(events(&vec![chunk; 9000])), 503, "remote-invalid"),
        (Does::Say(html), 503, "remote-invalid"),
        (Does::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), 503, "remote-invalid"),
        (Does::Say(refusal("307 Temporary Redirect", "")), 503, "remote-denied"),
        (
            Does::Say(refusal("404 Not Found", "{\"error\":{\"message\":\"no such model\"}}")),
            503,
            "remote-denied",
        ),
        (Does::Say(refusal("400 Bad Request", "{\"error\":{\"message\":\"no\"}}")), 400, "remote-refused"),
        (Does::Say(refusal("400 Bad Request", too_long)), 400, "context-length-exceeded"),
        (Does::Say(refusal("429 Too Many Requests", "")), 429, "remote-busy"),
        (Does::Say(refusal("500 Internal Server Error", "oops")), 503, "remote-unavailable"),
    ] {
        let upstream = Upstream::start(does.clone()).unwrap();
        let server =
            server(&upstream.entry("far", ", silence = \"300ms\", max_answer = \"256KiB\", failures = 99"));
        let refused = server.post_json(CHAT, &question("far")).unwrap().refusal().unwrap();
        let what = match &does {
            Does::Say(answer) | Does::Hold(answer) => {
                String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned()
            }
        };
        assert_eq!((refused.0, refused.1["code"].as_str().unwrap()), (status, code), "{what}: {refused:?}");
        // It is still there for the next one.
        upstream.now_does(Does::Say(hello()));
        assert_eq!(server.post_json(CHAT, &question("far")).unwrap().status, 200, "{what}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let toml = entry("nobody", &nobody, "m", "")
        + &entry("keyless", &nobody, "m", ", key_env = \"NO_SUCH_VARIABLE\"");
    let server = server(&toml);
    let code =
        |model: &str| server.post_json(CHAT, &question(model)).unwrap().refusal().unwrap().1["code"].clone();
    assert_eq!((code("nobody"), code("keyless")), (json!("remote-unavailable"), json!("remote-key-missing")));
}

#[test]
fn embeddings_that_are_none_are_refused() {
    let wrong = r#"{"data":[{"index":0,"embedding":[0.5]},{"index":0,"embedding":[0.5]}]}"#;
    let upstream = Upstream::start(Does::Say(answer("200 OK", "application/json", wrong))).unwrap();
    let server = server(&upstream.entry("far", ""));
    let ask = || server.post_json("/v1/embeddings", &json!({ "model": "far", "input": ["a", "b"] })).unwrap();
    assert_eq!(ask().refusal().unwrap().1["code"], "remote-invalid");
    let right = r#"{"data":[{"index":1,"embedding":[3,4]},{"index":0,"embedding":[0,2]}]}"#;
    upstream.now_does(Does::Say(answer("200 OK", "application/json", right)));
    let data = ask().json().unwrap()["data"].clone();
    assert_eq!(
        (&data[0]["embedding"], &data[1]["embedding"][0]),
        (&json!([0.0, 1.0]), &json!(0.6000000238418579))
    );
}

#[test]
fn a_remote_that_fails_is_left_alone_while_the_next_step_answers() {
    let fails = Does::Say(answer("500 Internal Server Error", "application/json", "{}"));
    let upstream = Upstream::start(fails).unwrap();
    let far = upstream.entry("far", ", failures = 2, rest = \"1h\", max_rest = \"1h\"");
    let server = server(&format!(
        "[[ladders]]\nid = \"answers\"\nsteps = [\"far\", \"chat\"]\n{far}{}",
        chat_entry("chat")
    ));
    assert_eq!(condition(&server, "far")["state"], "closed");
    for _ in 0..4 {
        let answer = server.post_json(CHAT, &question("answers")).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!((part(&answer, "model"), part(&answer, "in-place-of")), (Some("chat"), Some("far")));
    }
    assert_eq!(upstream.heard().len(), 2, "after two failures nothing goes there");
    let far = condition(&server, "far");
    assert_eq!(
        (&far["state"], &far["failures"], &far["code"]),
        (&json!("open"), &json!(2), &json!("remote-unavailable"))
    );
    let metrics = server.get("/metrics").unwrap().body;
    assert!(metrics.contains("pajamas_remote_state{model=\"far\",state=\"open\"} 1"), "{metrics}");
    assert!(
        metrics.contains("pajamas_requests_total{task=\"chat\",model=\"far\",code=\"remote-unavailable\"} 2"),
        "{metrics}"
    );
    // Who names it hears at once that it is left alone, and for how long.
    let refused = server.post_json(CHAT, &question("far")).unwrap();
    assert_eq!(
        (refused.refusal().unwrap().1["code"].clone(), refused.status),
        (json!("remote-unavailable"), 503)
    );
    assert!(refused.retry_after.unwrap().parse::<u64>().unwrap() > 60);
    // An operator who knows better has it tried again.
    upstream.now_does(Does::Say(hello()));
    assert_eq!(server.post("/admin/models/far/load", "application/json", b"").unwrap().status, 200);
    let answer = server.post_json(CHAT, &question("answers")).unwrap();
    assert_eq!((part(&answer, "model"), part(&answer, "in-place-of")), (Some("far"), None));
}

#[test]
fn a_remote_that_is_there_again_is_seen_and_tried() {
    let upstream = Upstream::start(Does::Say(Vec::new())).unwrap();
    upstream.is_there(false);
    let server = server(&upstream.entry("far", ", failures = 1, rest = \"1ms\", max_rest = \"50ms\""));
    assert_eq!(server.post_json(CHAT, &question("far")).unwrap().status, 503);
    // It does not say that it is there: nobody is let through but who asks in its place, and fails.
    upstream.now_does(Does::Say(hello()));
    upstream.is_there(true);
    while condition(&server, "far")["state"] == "open" {}
    let answer = server.post_json(CHAT, &question("far")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(condition(&server, "far")["state"], "closed");
}

#[test]
fn nothing_is_asked_twice_once_a_part_of_it_was_answered() {
    let chunk = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let upstream = Upstream::start(Does::Say(events(&[chunk]))).unwrap();
    let ladder = "[[ladders]]\nid = \"answers\"\nsteps = [\"far\", \"chat\"]\n";
    let server =
        server(&(ladder.to_owned() + &upstream.entry("far", ", failures = 99") + &chat_entry("chat")));
    let body = with(question("answers"), &json!({ "stream": true }));
    let streamed = server.post_json(CHAT, &body).unwrap();
    assert_eq!(part(&streamed, "model"), Some("far"));
    assert!(
        streamed.body.contains("\"Hel\"") && streamed.body.contains("remote-interrupted"),
        "{}",
        streamed.body
    );
    // Before the first part another one is asked, and the client does not notice but for the header.
    upstream.now_does(Does::Say(events(&[])));
    let streamed = server.post_json(CHAT, &body).unwrap();
    assert_eq!((part(&streamed, "model"), part(&streamed, "in-place-of")), (Some("chat"), Some("far")));
    assert!(streamed.events().is_ok(), "{}", streamed.body);
}

#[test]
fn a_client_that_goes_away_closes_the_connection_to_the_remote() {
    let chunk = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let upstream = Upstream::start(Does::Hold(events(&[chunk]))).unwrap();
    let server = server(&upstream.entry("far", ""));
    let body = with(question("far"), &json!({ "stream": true })).to_string();
    let mut client = TcpStream::connect(server.authority()).unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + &body).as_bytes()).unwrap();
    let mut first = [0; 16];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    drop(client);
    upstream.left.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn who_would_wait_too_long_here_is_answered_elsewhere() {
    let upstream = Upstream::start(Does::Say(hello())).unwrap();
    let toml = format!(
        "[routing]\nspill = 0\n[[ladders]]\nid = \"answers\"\nsteps = [\"chat\", \"far\"]\n{}{}",
        chat_entry("chat").replace("threads = 1", "threads = 1, parallel = 1, context_length = 4096"),
        upstream.entry("far", ""),
    );
    let server = server(&toml);
    let mut body = with(question("chat"), &json!({ "stream": true, "max_tokens": 4000 }));
    body["logit_bias"] = never_end(&server).unwrap();
    let body = body.to_string();
    let mut running = TcpStream::connect(server.authority()).unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    running.write_all((head + &body).as_bytes()).unwrap();
    let mut first = [0; 16];
    running.read_exact(&mut first).unwrap();
    let spilled = server.post_json(CHAT, &question("answers")).unwrap();
    assert_eq!(
        (part(&spilled, "model"), part(&spilled, "in-place-of")),
        (Some("far"), Some("chat")),
        "{spilled:?}"
    );
    drop(running);
    // A place is free again as soon as the model noticed.
    while part(&server.post_json(CHAT, &question("answers")).unwrap(), "model") == Some("far") {}
}
