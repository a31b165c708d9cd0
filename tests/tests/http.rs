//! Journeys over HTTP: the server and the command line are two ends of one way.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Answer, House, Server, chat_entry, keys, model_entry, never_end, run};
use serde_json::{Value, json};

/// The repository's own models for conversation and for pictures.
fn house() -> House {
    let detector = model_entry("shapes", &repository().join("models/detect/model.onnx"), "task = \"detect\"");
    House::new(&format!("[server]\nmax_body = \"256KiB\"\n{}{detector}", chat_entry("chat"))).unwrap()
}

fn server() -> Server {
    Server::start(house()).unwrap()
}

const CHAT: &str = "/v1/chat/completions";
const DETECT: &str = "/v1/images/detect";

/// A request for a conversation of one turn at temperature 0, with more fields.
fn ask(question: &str, more: Value) -> Value {
    let mut body =
        json!({ "model": "chat", "temperature": 0, "messages": [{ "role": "user", "content": question }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// The text of a stream, piece by piece.
fn pieces(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn a_conversation_is_the_same_over_http_streamed_and_on_the_command_line() {
    let server = server();
    let question = "What is 2 plus 3?";
    let answer = server.post_json(CHAT, &ask(question, json!({}))).unwrap();
    let whole = answer.json().unwrap();
    assert_eq!(keys(&whole), ["choices", "created", "id", "model", "object", "timings", "usage"]);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(keys(&whole["choices"][0]), ["finish_reason", "index", "logprobs", "message"]);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let route = "model=chat; backend=gguf/gguf; device=cpu; format=gguf; by=asked";
    assert_eq!(answer.route.as_deref(), Some(route));

    let streamed = ask(question, json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let answer = server.post_json(CHAT, &streamed).unwrap();
    assert_eq!(answer.route.as_deref(), Some(route));
    let events = answer.events().unwrap();
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk" && event["id"] == events[0]["id"])
    );
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(pieces(&events).len() > 3, "it comes in pieces: {events:?}");
    assert_eq!(pieces(&events).concat(), content(&whole));
    let [.., finish, usage] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
        assert_eq!(usage["usage"][count], whole["usage"][count]);
    }

    let cli = server.house().run(["chat", "--json", "-t", "0", question]).unwrap().json().unwrap();
    assert_eq!(cli[0]["text"], content(&whole));
    assert_eq!(cli[0]["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert_eq!(cli[0]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
}

#[test]
fn limits_and_stop_strings_end_an_answer() {
    let server = server();
    let question = "Can you count to 9?";
    let limited = |more: Value| {
        let mut body = ask(question, json!({ "max_tokens": 40 }));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post_json(CHAT, &body).unwrap()
    };
    let whole = limited(json!({})).json().unwrap();
    let short = limited(json!({ "max_tokens": 3 })).json().unwrap();
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 3);
    assert!(content(&whole).starts_with(content(&short)));

    let text = content(&whole);
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop: String = text[middle..].chars().take(2).collect();
    for stream in [false, true] {
        let answer = limited(json!({ "stop": [stop], "stream": stream }));
        let stopped = match stream {
            false => content(&answer.json().unwrap()).to_owned(),
            true => pieces(&answer.events().unwrap()).concat(),
        };
        assert_eq!(Some(stopped.as_str()), text.split(&stop).next());
    }
}

/// A form with one picture.
fn form(picture: &[u8], fields: &[(&str, &str)]) -> (String, Vec<u8>) {
    const BOUNDARY: &str = "a-boundary-that-no-picture-holds";
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    let head =
        "content-disposition: form-data; name=\"image\"; filename=\"sample.png\"\r\ncontent-type: image/png";
    body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").into_bytes());
    body.extend(picture);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

#[test]
fn a_detection_is_the_same_in_every_form_and_on_the_command_line() {
    let server = server();
    let picture = fs::read(repository().join("models/sample.png")).unwrap();
    let cli =
        server.house().run(["detect", "--json", "models/sample.png"]).unwrap().json().unwrap().remove(0);
    assert!(!cli["detections"].as_array().unwrap().is_empty());

    let encoded = STANDARD.encode(&picture);
    let (kind, body) = form(&picture, &[("model", "shapes")]);
    let answers = [
        server.post(DETECT, "image/png", &picture),
        server.post(DETECT, &kind, &body),
        server.post_json(DETECT, &json!({ "image": encoded })),
        server.post_json(
            DETECT,
            &json!({ "image": format!("data:image/png;base64,{encoded}"), "model": "shapes" }),
        ),
    ];
    for answer in answers {
        let answer = answer.unwrap();
        assert!(
            answer.route.as_deref().unwrap().starts_with("model=shapes; backend=onnx/"),
            "{:?}",
            answer.route
        );
        let found = answer.json().unwrap();
        assert_eq!(keys(&found), ["detections", "height", "image", "model", "width"]);
        for key in ["detections", "height", "width"] {
            assert_eq!(found[key], cli[key], "{key}");
        }
    }
    // Options reach the stages that know them, in both forms, as the flags do.
    let flags = ["detect", "--json", "--confidence", "0.9", "--max-detections", "1", "models/sample.png"];
    let fewer = server.house().run(flags).unwrap().json().unwrap().remove(0)["detections"].clone();
    let (kind, body) = form(&picture, &[("confidence", "0.9"), ("max_detections", "1")]);
    let by_form = server.post(DETECT, &kind, &body).unwrap().json().unwrap();
    let by_json = json!({ "image": encoded, "confidence": 0.9, "max_detections": 1 });
    let by_json = server.post_json(DETECT, &by_json).unwrap().json().unwrap();
    assert_eq!((&by_form["detections"], &by_json["detections"]), (&fewer, &fewer));
    assert!(fewer.as_array().unwrap().len() <= 1);
}

#[test]
fn what_is_served_can_be_asked() {
    let server = server();
    assert_eq!(server.get("/healthz").unwrap().json().unwrap()["status"], "ok");
    let models = server.get("/v1/models").unwrap().json().unwrap();
    assert_eq!(models["object"], "list");
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["chat", "shapes"]);
    assert!(models["data"].as_array().unwrap().iter().all(|m| m["object"] == "model"));
}

/// Status, code and message of a refusal.
fn refused(answer: Answer) -> (u16, String, String) {
    let (status, error) = answer.refusal().unwrap();
    assert_eq!(keys(&error), ["code", "message", "param", "type"]);
    let text = |key: &str| error[key].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

#[test]
fn every_refusal_has_a_status_a_code_and_the_place() {
    let server = server();
    let post = |path: &str, body: &Value| refused(server.post_json(path, body).unwrap());
    let turn =
        |content: Value| json!({ "model": "chat", "messages": [{ "role": "user", "content": content }] });

    let (status, code, message) = refused(server.post(CHAT, "application/json", b"{\"model\": ").unwrap());
    assert_eq!((status, code.as_str()), (400, "invalid-input"));
    assert!(message.contains("line 1"), "{message}");
    for (body, place) in [
        (json!({ "messages": [] }), "messages"),
        (json!({ "model": 7, "messages": [{ "role": "user", "content": "a" }] }), "model"),
        (json!({ "messages": [{ "role": 7, "content": "a" }] }), "`messages[0].role`"),
        (ask("a", json!({ "max_tokens": "many" })), "`max_tokens`"),
        (ask("a", json!({ "temperature": [] })), "temperature"),
        (turn(json!([{ "type": "image_url" }])), "messages[0].content"),
    ] {
        let (status, code, message) = post(CHAT, &body);
        assert_eq!(status, 400, "{body}: {code}: {message}");
        assert!(message.contains(place), "{body}: the message names {place}: {message}");
    }
    for stream in [false, true] {
        let unknown =
            json!({ "model": "chta", "stream": stream, "messages": [{ "role": "user", "content": "a" }] });
        let (status, code, message) = post(CHAT, &unknown);
        assert_eq!((status, code.as_str()), (404, "model-not-found"));
        assert!(message.contains("did you mean `chat`?"), "{message}");
        // Refused before the stream begins, so that the status tells.
        let mut long = ask(&"llama ".repeat(5000), json!({ "stream": stream }));
        long["max_tokens"] = 1.into();
        let (status, code, _) = post(CHAT, &long);
        assert_eq!((status, code.as_str()), (400, "context-length-exceeded"));
    }
    let (status, code, _) =
        post(CHAT, &json!({ "model": "shapes", "messages": [{ "role": "user", "content": "a" }] }));
    assert_eq!((status, code.as_str()), (400, "task-mismatch"));

    let (status, code, _) = post(DETECT, &json!({ "image": "no base64!" }));
    assert_eq!((status, code.as_str()), (400, "invalid-input"));
    let (status, code, _) = refused(server.post(DETECT, "image/png", b"no picture").unwrap());
    assert_eq!((status, code.as_str()), (400, "image-unsupported"));
    let (kind, body) = form(b"", &[("confidence", "high")]);
    let (status, code, message) = refused(server.post(DETECT, &kind, &body).unwrap());
    assert_eq!((status, code.as_str()), (400, "invalid-input"));
    assert!(message.contains("confidence"), "{message}");

    // A little over the limit of 256 KiB.
    let huge = vec![b'x'; 257 << 10];
    let (kind, form) = form(&huge, &[]);
    for (path, kind) in [(CHAT, "application/json"), (DETECT, "image/png"), (DETECT, &kind)] {
        let body = if kind.starts_with("multipart") { &form } else { &huge };
        let (status, code, _) = refused(server.post(path, kind, body).unwrap());
        assert_eq!((status, code.as_str()), (413, "body-too-large"), "{path} {kind}");
    }
    let (status, code, _) = refused(server.get("/v1/nothing").unwrap());
    assert_eq!((status, code.as_str()), (404, "route-not-found"));
    let (status, code, _) = refused(server.get(CHAT).unwrap());
    assert_eq!((status, code.as_str()), (405, "method-not-allowed"));
    // After all that it still answers.
    assert_eq!(server.post_json(CHAT, &ask("Hello", json!({}))).unwrap().status, 200);
}

/// The answer of a client that goes away is given up: the model serves one request at a time, and its context is so
/// long that the next would run into its own time limit behind an answer that goes on.
#[test]
fn a_client_that_goes_away_stops_its_answer() {
    let model = repository().join("models/chat/model.gguf");
    let entry =
        model_entry("chat", &model, "task = \"chat\"\noptions = { threads = 1, context_length = 65536 }");
    let server =
        Server::start(House::new(&format!("[server]\nrequest_timeout = \"60s\"\n{entry}")).unwrap()).unwrap();
    let endless = json!({ "temperature": 2.0, "logit_bias": never_end(&server).unwrap() });
    for stream in [true, false] {
        let mut body = ask("Hello", endless.clone());
        body["stream"] = stream.into();
        let mut client = begin(server.authority(), &body);
        if stream {
            let mut lines = client.by_ref().lines();
            assert!(lines.any(|line| line.unwrap().contains("delta")), "the answer began");
        }
        drop(client);
        let next = ask("What is 2 plus 3?", json!({ "max_tokens": 8 }));
        let next = server.post_json(CHAT, &next).unwrap().json().unwrap();
        assert_ne!(content(&next), "");
    }
}

/// Sends a request without waiting for its answer, which can be read from what is returned; dropping that hangs up.
fn begin(authority: &str, body: &Value) -> BufReader<TcpStream> {
    let mut client = TcpStream::connect(authority).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).unwrap();
    BufReader::new(client)
}

#[test]
fn the_page_is_sent_once_and_may_do_little() {
    let server = server();
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let request = ureq::get(format!("http://{}{path}", server.authority()));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call().unwrap()
    };
    for path in ["/", "/page/app.js", "/page/style.css", "/page/icon.svg"] {
        let mut first = ask(path, &[]);
        let header = |name| first.headers().get(name).unwrap().to_str().unwrap().to_owned();
        let (policy, etag) = (header("content-security-policy"), header("etag"));
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-cache");
        assert!(!first.body_mut().read_to_string().unwrap().is_empty());
        assert_eq!(ask(path, &[("if-none-match", &etag)]).status(), 304);
    }
}

#[test]
fn a_picture_is_classified_over_http_as_on_the_command_line() {
    let folder = repository().join("models/classify");
    let entry = format!("[[models]]\nid = \"colours\"\nartifact = '{}'\n", folder.display());
    let server = Server::start(House::new(&entry).unwrap()).unwrap();
    let file = repository().join("models/sample.png");
    let picture = std::fs::read(&file).unwrap();
    let cli = run(["classify", "--json", file.to_str().unwrap()]).unwrap().json().unwrap().remove(0);
    let path = "/v1/images/classify";
    let whole = server.post(path, "image/png", &picture).unwrap().json().unwrap();
    assert_eq!(keys(&whole), ["classes", "image", "model"]);
    assert_eq!(whole["classes"], cli["classes"]);
    let encoded = STANDARD.encode(&picture);
    let fewer = server.post_json(path, &json!({ "image": encoded, "top_k": 2 })).unwrap().json().unwrap();
    assert_eq!(fewer["classes"].as_array().unwrap()[..], cli["classes"].as_array().unwrap()[..2]);
    let refused = server.post_json(path, &json!({ "image": encoded, "top_k": "two" })).unwrap();
    assert_eq!(refused.refusal().unwrap().1["code"], "invalid-input");
}

#[test]
fn only_this_machine_may_be_served() {
    for address in ["0.0.0.0:0", "[::]:0", "192.168.1.1:80"] {
        let refused = run(["serve", "--listen", address]).unwrap();
        assert_eq!(refused.refusal().unwrap(), ("listen-not-loopback".into(), 2), "{address}");
    }
    let server = server();
    let taken = run(["serve", "--listen", server.authority()]).unwrap();
    assert_eq!(taken.refusal().unwrap().0, "listen-failed");
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_server_when_its_answers_are_given() {
    let server = server();
    let long = ask(
        "Hello",
        json!({ "stream": true, "max_tokens": 300, "temperature": 2.0, "logit_bias": never_end(&server).unwrap() }),
    );
    let mut answer = begin(server.authority(), &long).lines();
    assert!(answer.any(|line| line.unwrap().contains("delta")), "the answer began");
    let rest = std::thread::spawn(move || answer.map(Result::unwrap).collect::<Vec<_>>().join("\n"));
    let (status, said) = server.stop().unwrap();
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("stopping") && !said.contains("panicked"), "{said}");
    assert!(rest.join().unwrap().contains("[DONE]"), "what was begun is finished");
}
