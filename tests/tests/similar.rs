//! Rules for what means about the same as a few examples: a real model says so before the router decides, and no request
//! fails for want of it.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Answer, House, Server, chat_entry, model_entry};
use pajamas_journeys::upstream::{Does, Upstream, entry};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// How often something is looked for that comes by itself.
const LOOKS: usize = 60_000;

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

/// A question whose answer says how it was routed.
fn question(words: &str) -> Value {
    json!({ "temperature": 0, "max_tokens": 4, "route_trace": true, "messages": [{ "role": "user", "content": words }] })
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").unwrap().body;
    text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()))
}

/// The model that answered, and how near the first rule's examples were.
fn routed(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let trace = answer.json().unwrap()["route_trace"].clone();
    (trace["chosen"].as_str().unwrap().to_owned(), trace["steps"][0]["similar"].clone())
}

/// A rule for what is near to squares and circles, as `vectors` says.
fn rule(min: f64) -> String {
    format!(
        "[defaults]\nchat = \"small\"\n[[routes]]\nid = \"shapes\"\nuse = \"large\"\n\
         when.similar = {{ model = \"vectors\", examples = [\"twelve people\", \"a red circle above a blue square\"], min = {min} }}\n"
    )
}

fn chats() -> String {
    chat_entry("large") + &chat_entry("small")
}

/// The embedder of the fixtures: its vectors are those that a peer makes of the same file.
fn vectors() -> String {
    model_entry(
        "vectors",
        &repository().join("tests/fixtures/vectors/clip/text_model.onnx"),
        "task = \"embed\"",
    )
}

const NEAR: &str = "A blue square and a red circle";
const FAR: &str = "Two numbers";

/// Makes every decision of the server again, and says whether all are the same.
fn again(server: &Server) {
    let kept = server.get("/admin/routes").unwrap();
    assert!(!kept.body.contains("square") && !kept.body.contains("numbers"), "{}", kept.body);
    let one = server.house().folder().join("one.json");
    let kept = kept.json().unwrap();
    let decisions = kept["decisions"].as_array().unwrap();
    assert!(!decisions.is_empty());
    for decision in decisions {
        std::fs::write(&one, decision.to_string()).unwrap();
        let again = server.house().run(["route", "explain", "--json", "--request", one.to_str().unwrap()]);
        let again = again.unwrap().json().unwrap().remove(0);
        assert_eq!((&again["as_recorded"], &again["same_rules"]), (&json!(true), &json!(true)), "{decision}");
    }
}

#[test]
fn what_means_the_same_goes_to_one_model_and_the_rest_to_the_other() {
    let server = server(&(rule(0.75) + &chats() + &vectors()));
    let ask = |words: &str| routed(&server.post_json(CHAT, &question(words)).unwrap());
    let (model, near) = ask(NEAR);
    assert_eq!(model, "large", "{near}");
    assert_eq!(
        (&near["model"], &near["nearest"], near["cut"].is_null()),
        (&json!("vectors"), &json!(1), true)
    );
    assert!((900..1000).contains(&near["score"].as_i64().unwrap()) && near["took"].is_u64(), "{near}");
    let (model, far) = ask(FAR);
    assert_eq!(model, "small", "{far}");
    assert!(far["score"].as_i64().unwrap() < 500, "{far}");
    // The examples and two texts were embedded, once; what comes again is known.
    let embedded = || metric(&server, "pajamas_requests_total{task=\"embed\",model=\"vectors\",code=\"ok\"}");
    assert_eq!(embedded(), Some(3.0));
    assert_eq!(ask(NEAR).1["score"], near["score"]);
    assert_eq!(embedded(), Some(3.0));
    assert_eq!(
        metric(
            &server,
            "pajamas_route_decisions_total{target=\"vectors\",rule=\"similar\",degraded=\"false\"}"
        ),
        Some(3.0)
    );
    // Who names a model is compared with nothing.
    let mut named = question("A green triangle");
    named["model"] = json!("small");
    assert_eq!(routed(&server.post_json(CHAT, &named).unwrap()).1, Value::Null);
    assert_eq!(embedded(), Some(3.0));
    again(&server);

    // A body is explained with its score, before it is sent; the same number, from another process.
    let body = server.house().folder().join("body.json");
    std::fs::write(&body, question(NEAR).to_string()).unwrap();
    let words = server.house().run(["route", "explain", "--request", body.to_str().unwrap()]).unwrap().stdout;
    let score = near["score"].as_f64().unwrap() / 1000.0;
    assert!(words.contains(&format!("applies, {score:.3} near example 2 by `vectors`")), "{words}");
    // Under another threshold the recorded score decides, without the words; under other examples nobody knows.
    let log = server.house().folder().join("log.json");
    std::fs::write(&log, server.get("/admin/routes").unwrap().body).unwrap();
    let replay = |toml: &str| {
        server.house().write(&(toml.to_owned() + &chats() + &vectors())).unwrap();
        let replayed = server.house().run(["route", "replay", "--json", log.to_str().unwrap()]).unwrap();
        replayed.json().unwrap().remove(0)
    };
    let stricter = replay(&rule(1.0));
    assert_eq!(
        (stricter["moved"].as_array().unwrap().len(), &stricter["unsure"]),
        (2, &json!(0)),
        "{stricter}"
    );
    assert_eq!(replay(&rule(0.75).replace("twelve", "two"))["unsure"], 3);
}

#[test]
fn a_text_longer_than_the_model_takes_is_cut_and_that_is_said() {
    let model = repository().join("models/chat/model.gguf");
    let short =
        model_entry("vectors", &model, "options = { threads = 1, context_length = 32, parallel = 1 }");
    let server = server(&(rule(0.0) + &chats() + &short));
    let ask = |words: &str| routed(&server.post_json(CHAT, &question(words)).unwrap()).1;
    let (brief, long) = (ask("Hello"), ask(&"What is two plus three? ".repeat(40)));
    assert!(brief["score"].is_i64() && brief["cut"].is_null(), "{brief}");
    assert!(long["score"].is_i64() && long["cut"] == true, "{long}");
    again(&server);
}

#[test]
fn a_rule_whose_model_cannot_be_asked_is_passed_over_and_the_request_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let whole = std::fs::read(repository().join("models/chat/model.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    // It holds the connection, and never answers.
    let silent = Upstream::start(Does::Hold(Vec::new())).unwrap();
    let slow = format!("[routing.similar]\nwait = \"50ms\"\n{}", silent.entry("vectors", ""));
    for (embedder, code) in [
        (model_entry("vectors", &path, "task = \"embed\""), "model-invalid"),
        (entry("vectors", "127.0.0.1:1", "m", ""), "remote-unavailable"),
        (slow, "deadline-unmet"),
    ] {
        let server = server(&(rule(0.0) + &chats() + &embedder));
        let (model, near) = routed(&server.post_json(CHAT, &question(NEAR)).unwrap());
        assert_eq!((model.as_str(), &near["code"]), ("small", &json!(code)), "{near}");
        assert!(near["score"].is_null(), "{near}");
        let counted = format!("pajamas_route_not_compared_total{{model=\"vectors\",code=\"{code}\"}}");
        assert_eq!(metric(&server, &counted), Some(1.0));
        again(&server);
    }
}

#[test]
fn who_may_not_wait_for_a_load_does_not_wait_for_that_of_the_embedder() {
    let refuse = "[server]\nwhile_loading = \"refuse\"\n";
    let server = server(&(refuse.to_owned() + &rule(0.0) + &chats() + &vectors()));
    let mut codes = Vec::new();
    let near = (0..LOOKS).find_map(|_| {
        let answer = server.post_json(CHAT, &question(NEAR)).unwrap();
        if answer.status == 503 {
            assert!(answer.retry_after.as_deref().unwrap().parse::<u64>().unwrap() >= 1);
            return None;
        }
        let (model, near) = routed(&answer);
        codes.extend(near["code"].as_str().map(str::to_owned));
        near["score"].is_i64().then_some((model, near))
    });
    assert_eq!(near.unwrap().0, "large");
    assert!(codes.iter().all(|code| code == "model-loading"), "{codes:?}");
    assert_eq!(metric(&server, "pajamas_model_loads_total{model=\"vectors\"}"), Some(1.0));
}

#[test]
fn a_rule_for_the_model_that_compares_leads_in_no_circle() {
    let rule = "[[routes]]\nid = \"again\"\nuse = \"other\"\n\
                when = { model = \"vectors\", similar = { model = \"vectors\", examples = \"a red circle above a blue square\", min = 0 } }\n";
    let other = vectors().replace("id = \"vectors\"", "id = \"other\"");
    let server = server(&(rule.to_owned() + &vectors() + &other));
    let body = json!({ "model": "vectors", "input": NEAR });
    let answer = server.post_json("/v1/embeddings", &body).unwrap();
    assert_eq!((answer.status, &answer.json().unwrap()["model"]), (200, &json!("other")), "{}", answer.body);
    let asked = |model: &str| {
        metric(&server, &format!("pajamas_requests_total{{task=\"embed\",model=\"{model}\",code=\"ok\"}}"))
    };
    assert_eq!(
        (asked("vectors"), asked("other")),
        (Some(2.0), Some(1.0)),
        "examples and text, then the request"
    );
}

#[test]
fn a_model_that_cannot_embed_texts_is_found_before_it_runs() {
    let check = |model: &str| {
        let entry = model_entry("vectors", &repository().join(model), "");
        House::new(&(rule(0.5) + &chats() + &entry)).unwrap().run(["config", "check"]).unwrap()
    };
    assert_eq!(check("models/detect").refusal().unwrap().0, "config-conflict");
    assert!(check("models/chat").status.success());
}
