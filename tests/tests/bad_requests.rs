//! Requests over HTTP that are wrong, large or malicious: each ends in an error that says where, and the server goes on.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use pajamas_journeys::product::{House, Server, chat_entry};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn server() -> Server {
    Server::start(House::new(&chat_entry("chat")).unwrap()).unwrap()
}

fn ask(more: Value) -> Value {
    let mut body =
        json!({ "model": "chat", "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 4 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The status and code of a refusal; the status and nothing for an answer.
fn outcome(server: &Server, path: &str, body: &[u8]) -> (u16, String, String) {
    let answer = server.post(path, "application/json", body).unwrap();
    if answer.status == 200 {
        return (200, String::new(), answer.body);
    }
    let (status, error) = answer.refusal().unwrap();
    (status, error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_no_request_is_refused_with_its_place() {
    let server = server();
    let messages = json!([{ "role": "user", "content": "a" }]);
    let cases: [(&str, Vec<u8>, &str, &str); 14] = [
        (CHAT, b"{\"messages\": [\"\xff\xfe\"]}".to_vec(), "invalid-input", "messages[0]"),
        (CHAT, b"[[[[".repeat(5000), "invalid-input", "the request body"),
        (CHAT, ask(json!({ "max_tokens": -1 })).to_string().into(), "invalid-input", "`max_tokens`"),
        (CHAT, ask(json!({ "max_tokens": 0 })).to_string().into(), "invalid-input", "max_tokens"),
        (CHAT, ask(json!({ "max_tokens": 1e300 })).to_string().into(), "invalid-input", "`max_tokens`"),
        (CHAT, ask(json!({ "temperature": -1 })).to_string().into(), "invalid-input", "temperature"),
        (CHAT, ask(json!({ "temperature": 1e300 })).to_string().into(), "invalid-input", "temperature"),
        (CHAT, ask(json!({ "top_p": 2 })).to_string().into(), "invalid-input", "top_p"),
        (
            CHAT,
            ask(json!({ "logit_bias": { "99999999": 1 } })).to_string().into(),
            "invalid-input",
            "99999999",
        ),
        (
            CHAT,
            ask(json!({ "logit_bias": { "-1": 1 } })).to_string().into(),
            "invalid-input",
            "logit_bias.-1",
        ),
        (
            "/v1/responses",
            json!({ "model": "chat", "input": 7 }).to_string().into(),
            "invalid-input",
            "`input`",
        ),
        (
            "/v1/completions",
            json!({ "model": "chat", "prompt": [[]] }).to_string().into(),
            "invalid-input",
            "no tokens",
        ),
        (
            "/v1/embeddings",
            json!({ "model": "chat", "input": [1, 99_999_999] }).to_string().into(),
            "invalid-input",
            "99999999",
        ),
        (
            "/apply-template",
            json!({ "model": "chat", "messages": messages, "n": 99 }).to_string().into(),
            "invalid-input",
            "`n`",
        ),
    ];
    for (path, body, code, place) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let (status, found, message) = outcome(&server, path, &body);
        assert_eq!((status, found.as_str()), (400, code), "{path} {shown}: {message}");
        assert!(message.contains(place), "{path} {shown}: {message}");
    }
    assert_eq!(outcome(&server, CHAT, ask(json!({})).to_string().as_bytes()).0, 200);
}

#[test]
fn schemas_and_grammars_that_make_no_sense_or_explode_are_refused() {
    let server = server();
    let schema = |schema: Value| {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema } });
        outcome(&server, CHAT, ask(json!({ "response_format": format })).to_string().as_bytes())
    };
    let grammar = |gbnf: &str| outcome(&server, CHAT, ask(json!({ "grammar": gbnf })).to_string().as_bytes());
    for wrong in [
        json!({ "type": 7 }),
        json!({ "$ref": "#/nowhere" }),
        json!({ "type": "string", "pattern": "(" }),
        json!(7),
    ] {
        let (status, code, message) = schema(wrong.clone());
        assert_eq!((status, code.as_str()), (400, "invalid-input"), "{wrong}: {message}");
    }
    for wrong in ["", "root ::= (", "root ::= nowhere", "root ::= root \"a\""] {
        let (status, code, message) = grammar(wrong);
        assert_eq!((status, code.as_str()), (400, "invalid-input"), "{wrong}: {message}");
    }
    // What would grow without end when written out, or has thousands of ways to read one text, is bounded or refused.
    for monster in [
        "root ::= a{1000}\na ::= b{1000}\nb ::= c{1000}\nc ::= \"x\" | \"y\"",
        "root ::= a a a a a a a a\na ::= (\"x\" | \"x\" \"x\" | a a)*",
    ] {
        let (status, code, message) = grammar(monster);
        assert!(
            (status, code.as_str()) == (400, "invalid-input") || status == 200,
            "{monster}: {status} {code}: {message}"
        );
    }
    // A schema may name itself: what it allows has no end, an answer has one.
    let tree = json!({ "$ref": "#/$defs/n", "$defs": { "n": { "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": 9 }, { "type": "array", "items": { "$ref": "#/$defs/n" } },
    ] } } });
    assert_eq!(schema(tree).0, 200);
    assert_eq!(outcome(&server, CHAT, ask(json!({})).to_string().as_bytes()).0, 200);
}

#[test]
fn ten_thousand_messages_are_too_many_for_the_context_and_no_more() {
    let server = server();
    let turns: Vec<Value> = (0..10_000)
        .map(|i| json!({ "role": if i % 2 == 0 { "user" } else { "assistant" }, "content": "a llama" }))
        .collect();
    let (status, code, message) =
        outcome(&server, CHAT, ask(json!({ "messages": turns })).to_string().as_bytes());
    assert_eq!((status, code.as_str()), (400, "context-length-exceeded"), "{message}");
    assert_eq!(outcome(&server, CHAT, ask(json!({})).to_string().as_bytes()).0, 200);
}

#[test]
fn functions_that_are_none_are_refused_with_their_place() {
    let server = server();
    let turns = json!([{ "role": "user", "content": "a" }]);
    for (path, mut body) in [
        (CHAT, json!({ "messages": turns })),
        ("/v1/responses", json!({ "input": "a" })),
        ("/v1/messages", json!({ "model": "chat", "messages": turns, "max_tokens": 4 })),
        ("/apply-template", json!({ "messages": turns })),
    ] {
        for tool in [json!([]), json!("f"), json!(7), json!(null), json!({ "name": "f", "strict": [] })] {
            body["tools"] = json!([tool]);
            let (status, code, message) = outcome(&server, path, body.to_string().as_bytes());
            assert_eq!((status, code.as_str()), (400, "invalid-input"), "{path} {tool}: {message}");
            assert!(message.contains("tools[0]"), "{path} {tool}: {message}");
        }
    }
}

#[test]
fn a_model_in_a_path_that_is_no_text_is_refused() {
    let server = server();
    for what in ["load", "unload", "pin", "unpin"] {
        let (status, code, message) = outcome(&server, &format!("/admin/models/%ff/{what}"), b"");
        assert_eq!((status, code.as_str()), (400, "invalid-input"), "{message}");
    }
}

#[test]
fn whoever_refuses_a_message_does_it_in_anthropics_shape() {
    let server =
        Server::start(House::new(&format!("[server]\nmax_body = \"1KiB\"\n{}", chat_entry("chat"))).unwrap())
            .unwrap();
    let large = server.post("/v1/messages", "application/json", &[b' '; 2000]).unwrap();
    let method = server.get("/v1/messages").unwrap();
    let nothing = server.get("/v1/messages/nothing").unwrap();
    let origin = server.get_with("/v1/messages", &[("origin", "https://elsewhere.example")]).unwrap();
    for (answer, status, kind, code) in [
        (large, 413, "request_too_large", "body-too-large"),
        (method, 405, "invalid_request_error", "method-not-allowed"),
        (nothing, 404, "not_found_error", "route-not-found"),
        (origin, 403, "permission_error", "origin-refused"),
    ] {
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &body["type"]), (status, &json!("error")), "{body}");
        assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!(kind), &json!(code)), "{body}");
    }
}
