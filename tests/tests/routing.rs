//! The choice of a model through the built product: rules, ladders, policies; each decision told, kept and made again.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Answer, House, Server, chat_entry, model_entry, never_end, part};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn question(model: Option<&str>, words: &str) -> Value {
    let mut body =
        json!({ "temperature": 0, "max_tokens": 8, "messages": [{ "role": "user", "content": words }] });
    if let Some(model) = model {
        body["model"] = json!(model);
    }
    body
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").unwrap().body;
    text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()))
}

/// Two models of one file, rules by words, a ladder, an alias, a default.
fn house() -> String {
    format!(
        "[aliases]\ngpt-4o = \"answers\"\n[defaults]\nchat = \"small\"\n\
         [[ladders]]\nid = \"answers\"\nsteps = [\"large\", \"small\"]\n\
         [[routes]]\nid = \"sums\"\nwhen = {{ task = \"chat\", keywords = [\"plus\", \"minus\"] }}\nuse = \"large\"\n\
         [[routes]]\nid = \"team\"\nwhen = {{ model = \"team\", metadata = {{ tier = \"gold\" }}, header = {{ x-team = \"red\" }} }}\n\
         use = \"large\"\n{}{}",
        chat_entry("large"),
        chat_entry("small")
    )
}

#[test]
fn rules_names_and_defaults_lead_to_models_and_each_answer_says_how() {
    let server = server(&house());
    let ask = |body: &Value| server.post_json(CHAT, body).unwrap();
    let way = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let part = |name| part(answer, name).unwrap_or_default().to_owned();
        [part("model"), part("by"), part("rule")]
    };
    assert_eq!(way(&ask(&question(None, "What is 2 plus 3?"))), ["large", "rule", "sums"]);
    assert_eq!(way(&ask(&question(Some("auto"), "What is 2 plus 3?"))), ["large", "rule", "sums"]);
    assert_eq!(way(&ask(&question(Some("small"), "What is 2 plus 3?"))), ["small", "asked", ""]);
    assert_eq!(way(&ask(&question(None, "Hello"))), ["small", "default", ""]);
    assert_eq!(way(&ask(&question(Some("gpt-4o"), "Hello"))), ["large", "asked", ""]);
    let mut team = question(Some("team"), "Hello");
    // A name that only a rule knows, whose other conditions do not hold.
    assert_eq!(ask(&team).refusal().unwrap().1["code"], "model-not-found");
    team["metadata"] = json!({ "tier": "gold" });
    let answer = server.post_with(CHAT, &[("x-team", "red")], &team).unwrap();
    assert_eq!(way(&answer), ["large", "rule", "team"]);
    assert_eq!(answer.json().unwrap()["model"], "large");
    assert_eq!(ask(&question(Some("smal"), "Hello")).refusal().unwrap().0, 404);

    let listed = server.get("/v1/models").unwrap().json().unwrap();
    let listed: Vec<&str> =
        listed["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(listed, ["large", "small", "answers", "gpt-4o"]);
    let decided = |labels: &str| metric(&server, &format!("pajamas_route_decisions_total{{{labels}}}"));
    assert_eq!(decided("target=\"large\",rule=\"sums\",degraded=\"false\""), Some(2.0));
    assert_eq!(decided("target=\"small\",rule=\"default\",degraded=\"false\""), Some(1.0));
    // What needs a model but is no request finds it in the same way.
    let tokens = server.post_json("/tokenize", &json!({ "model": "gpt-4o", "content": "Hello" })).unwrap();
    assert!(!tokens.json().unwrap()["tokens"].as_array().unwrap().is_empty());
}

#[test]
fn the_decision_is_in_the_answer_of_who_asks_for_it() {
    let server = server(&house());
    let mut body = question(None, "What is 2 plus 3?");
    assert!(server.post_json(CHAT, &body).unwrap().json().unwrap().get("route_trace").is_none());
    body["route_trace"] = json!(true);
    let trace = server.post_json(CHAT, &body).unwrap().json().unwrap()["route_trace"].clone();
    assert_eq!((&trace["chosen"], &trace["rule"]), (&json!("large"), &json!("sums")));
    assert_eq!(trace["steps"], json!([{ "rule": "sums", "failed": null }]));
    assert_eq!(trace["candidates"][0]["predicted"]["load"], 0, "it was loaded before: {trace}");
    body["messages"][0]["content"] = json!("Hello");
    body["stream"] = json!(true);
    let events = server.post_json(CHAT, &body).unwrap();
    let (first, _) = events.body.split_once("\n\n").unwrap();
    assert!(first.starts_with("data: {\"route_trace\":") && first.contains("event: route"), "{first}");
    let first = &events.events().unwrap()[0]["route_trace"];
    let failed: Vec<&Value> = first["steps"].as_array().unwrap().iter().map(|step| &step["failed"]).collect();
    assert_eq!(failed, ["keywords", "model"]);
}

#[test]
fn a_step_that_cannot_is_passed_over_and_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    let whole = std::fs::read(repository().join("models/chat/model.gguf")).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let toml = format!(
        "[[ladders]]\nid = \"answers\"\nsteps = [\"broken\", \"chat\"]\n{}{}",
        model_entry("broken", &broken, "task = \"chat\""),
        chat_entry("chat")
    );
    let server = server(&toml);
    let answer = server.post_json(CHAT, &question(Some("answers"), "Hello")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(part(&answer, "in-place-of"), Some("broken"));
    assert_eq!((part(&answer, "model"), part(&answer, "degraded")), (Some("chat"), Some("model")));
    assert_eq!(metric(&server, "pajamas_route_degraded_total{from=\"broken\",to=\"chat\"}"), Some(1.0));
    // Who asks for that very model gets its own refusal, and nothing in its place.
    let refused = server.post_json(CHAT, &question(Some("broken"), "Hello")).unwrap().refusal().unwrap();
    assert_eq!(refused.1["code"], "model-invalid", "{refused:?}");
    // Where it could be read, it is first again.
    std::fs::write(&broken, &whole).unwrap();
    let reloaded = server.post("/admin/reload", "application/json", b"").unwrap();
    assert_eq!(reloaded.status, 200);
    assert_eq!(server.post("/admin/models/broken/load", "application/json", b"").unwrap().status, 200);
    let answer = server.post_json(CHAT, &question(Some("answers"), "Hello")).unwrap();
    assert_eq!((part(&answer, "model"), part(&answer, "in-place-of")), (Some("broken"), None));
}

#[test]
fn a_full_model_spills_over_to_the_next_step() {
    let toml = format!(
        "[server]\nmax_queue = 1\n[[ladders]]\nid = \"answers\"\nsteps = [\"chat\", \"more\"]\n{}{}",
        chat_entry("chat").replace("threads = 1", "threads = 1, context_length = 4096"),
        chat_entry("more")
    );
    let server = server(&toml);
    let mut body = question(Some("chat"), "Hello");
    body["logit_bias"] = never_end(&server).unwrap();
    body["max_tokens"] = json!(4000);
    body["stream"] = json!(true);
    let body = body.to_string();
    let mut running = TcpStream::connect(server.authority()).unwrap();
    write!(
        running,
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut first = [0; 16];
    running.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    let answer = server.post_json(CHAT, &question(Some("answers"), "Hello")).unwrap();
    assert_eq!(
        (part(&answer, "model"), part(&answer, "in-place-of")),
        (Some("more"), Some("chat")),
        "{answer:?}"
    );
    let alone = server.post_json(CHAT, &question(Some("chat"), "Hello")).unwrap();
    assert_eq!(alone.refusal().unwrap().1["code"], "queue-full");
}

#[test]
fn what_no_model_may_take_is_refused_with_the_reasons() {
    let toml = format!(
        "[[routes]]\nid = \"warm\"\nuse = \"chat\"\nwarm_only = true\notherwise = \"refuse\"\n{}preload = true\n",
        chat_entry("chat")
    );
    let server = server(&toml);
    while server.get("/readyz").unwrap().status != 200 {}
    assert_eq!(server.post_json(CHAT, &question(None, "Hello")).unwrap().status, 200);
    assert_eq!(server.post("/admin/models/chat/unload", "application/json", b"").unwrap().status, 200);
    let (status, error) = server.post_json(CHAT, &question(None, "Hello")).unwrap().refusal().unwrap();
    assert_eq!((status, &error["code"]), (503, &json!("route-policy")));
    assert!(
        error["message"].as_str().unwrap().contains("`chat`: it is unloaded, and warm_only is set"),
        "{error}"
    );
    let latest =
        server.get("/admin/routes").unwrap().json().unwrap()["decisions"].as_array().unwrap().clone();
    assert_eq!(latest.last().unwrap()["decision"]["refused"]["code"], "route-policy");
}

#[test]
fn what_was_decided_is_kept_without_words_and_decided_again() {
    let server = server(&house());
    for words in ["What is 2 plus 3?", "Hello", "A secret word", "7 minus 2"] {
        assert_eq!(server.post_json(CHAT, &question(None, words)).unwrap().status, 200);
    }
    server.post_with(CHAT, &[("x-request-id", "mine")], &question(Some("answers"), "Hello")).unwrap();
    let kept = server.get("/admin/routes").unwrap();
    assert!(!kept.body.contains("secret") && !kept.body.contains("2 plus 3"), "{}", kept.body);
    let log = server.house().folder().join("decisions.json");
    std::fs::write(&log, &kept.body).unwrap();
    let all = kept.json().unwrap();
    let decisions = all["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 5);
    assert!(decisions.iter().all(|decision| decision["outcome"]["code"] == "ok"));
    // What was observed is in the next snapshot.
    let observed = &all["snapshot"]["models"]["small"]["observed"];
    assert!(observed["load"]["count"] == 1 && observed["service"]["count"] == 2, "{observed}");
    assert!(observed["between_tokens"]["mean"].as_u64().unwrap() > 0, "{observed}");
    assert!(all["snapshot"]["models"]["small"]["slots"].as_u64().unwrap() >= 1);

    // Each alone, made again by the command line.
    let one = server.house().folder().join("one.json");
    for decision in decisions {
        std::fs::write(&one, decision.to_string()).unwrap();
        let again =
            server.house().run(["route", "explain", "--json", "--request", one.to_str().unwrap()]).unwrap();
        let again = again.json().unwrap().remove(0);
        assert_eq!((&again["as_recorded"], &again["same_rules"]), (&json!(true), &json!(true)), "{decision}");
        assert_eq!(again["decision"], decision["decision"]);
    }
    let log = log.to_str().unwrap();
    let words = server.house().run(["route", "explain", "--request", log, "--id", "mine"]).unwrap().stdout;
    assert!(words.contains("large: `answers` was asked for\nas recorded"), "{words}");

    // Under other rules, some would have gone elsewhere.
    let other = house().replace("use = \"large\"", "use = \"small\"").replace("\"minus\"", "\"times\"");
    server.house().write(&other).unwrap();
    let explained = server.house().run(["route", "explain", "--json", "--request", log]).unwrap();
    assert_eq!(explained.json().unwrap()[0]["same_rules"], false);
    let replayed = server.house().run(["route", "replay", "--json", log]).unwrap().json().unwrap().remove(0);
    assert_eq!((&replayed["decisions"], &replayed["same"]), (&json!(5), &json!(3)));
    let moved = replayed["moved"].as_array().unwrap();
    assert!(moved.iter().all(|moved| moved["from"] == "large" && moved["to"] == "small"), "{replayed}");
    assert_eq!(moved.len(), 2, "{replayed}");
    // Those that named no model, and whose words are gone.
    assert_eq!(replayed["unsure"], 4, "{replayed}");
}

#[test]
fn decisions_on_disk_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("decisions.jsonl");
    let toml = house() + &format!("[routing]\nlog = '{}'\n", log.display());
    for words in ["What is 2 plus 3?", "Hello"] {
        let server = server(&toml);
        assert_eq!(server.post_json(CHAT, &question(None, words)).unwrap().status, 200);
        assert_eq!(server.post_json(CHAT, &question(Some("nobody"), words)).unwrap().status, 404);
    }
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("2 plus 3"), "{text}");
    let kept: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<_> = kept.iter().map(|one| (&one["decision"]["chosen"], &one["outcome"]["code"])).collect();
    assert_eq!(ends, [(&json!("large"), &json!("ok")), (&json!("small"), &json!("ok"))]);
    let house = House::new(&toml).unwrap();
    let replayed = house.run(["route", "replay", "--json", log.to_str().unwrap()]).unwrap();
    let replayed = replayed.json().unwrap().remove(0);
    assert_eq!((&replayed["decisions"], &replayed["same"]), (&json!(2), &json!(2)), "{replayed}");
}

#[test]
fn a_request_is_explained_before_it_is_sent() {
    let server = server(&house());
    let file = server.house().folder().join("body.json");
    std::fs::write(&file, question(None, "What is 7 minus 2?").to_string()).unwrap();
    let file = file.to_str().unwrap();
    let explain = |more: &[&str]| {
        let arguments = [&["route", "explain", "--json", "--request", file], more].concat();
        server.house().run(arguments).unwrap()
    };
    let url = format!("http://{}", server.authority());
    let cold = explain(&["--url", &url]).json().unwrap().remove(0)["decision"].clone();
    assert_eq!((&cold["chosen"], &cold["rule"]), (&json!("large"), &json!("sums")));
    assert!(cold["predicted"]["load"].as_u64().unwrap() > 0);
    server.post_json(CHAT, &question(None, "What is 7 minus 2?")).unwrap();
    let warm = explain(&["--url", &url]).json().unwrap().remove(0)["decision"].clone();
    assert_eq!(warm["predicted"]["load"], 0);
    let here = explain(&[]).json().unwrap().remove(0);
    assert_eq!((&here["decision"]["chosen"], &here["as_recorded"]), (&json!("large"), &Value::Null));
    assert_eq!(explain(&["--url", "https://example"]).refusal().unwrap().0, "invalid-option");
    assert_eq!(explain(&["--snapshot", file]).refusal().unwrap().0, "invalid-input", "a body is no snapshot");
    std::fs::write(file, "{}").unwrap();
    assert_eq!(explain(&[]).refusal().unwrap().0, "invalid-input");
}

#[test]
fn what_can_never_fit_is_found_before_it_runs() {
    let check = |toml: &str| House::new(toml).unwrap().run(["config", "check"]).unwrap();
    let ladder = "[[ladders]]\nid = \"answers\"\nsteps = [\"large\", \"small\"]\n";
    let models = [chat_entry("large"), chat_entry("small")].concat();
    let tight = check(&format!("[memory]\nlimit = \"64KiB\"\n{ladder}{models}"));
    assert_eq!(tight.refusal().unwrap().0, "config-too-large");
    assert!(tight.stderr.contains("pajamas.toml:5:9: the ladder `answers`"), "{}", tight.stderr);
    assert!(tight.stderr.contains("where models may hold 1 MiB"), "{}", tight.stderr);
    assert!(check(&format!("{ladder}{models}")).status.success());
    // Only the file says what this model is for.
    let shapes = model_entry("shapes", &repository().join("models/detect"), "");
    let mixed = check(&format!("[[routes]]\nid = \"r\"\nwhen.task = \"chat\"\nuse = \"shapes\"\n{shapes}"));
    assert_eq!(mixed.refusal().unwrap().0, "config-conflict");
}

/// An artifact with two precisions of one model.
fn artifact(folder: &Path) {
    let model = repository().join("models/chat/model.gguf");
    let formats = ["f16", "q8_0"].map(|precision| {
        std::fs::copy(&model, folder.join(format!("{precision}.gguf"))).unwrap();
        json!({ "type": "gguf", "path": format!("{precision}.gguf"), "method": precision, "size_mb": 4.2, "compression": 1.0 })
    });
    let manifest = std::fs::read(repository().join("models/chat/manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["formats"] = json!(formats);
    manifest["files"] = json!([]);
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

#[test]
fn each_way_to_run_a_model_is_a_candidate() {
    let folder = tempfile::tempdir().unwrap();
    artifact(folder.path());
    let entry = format!(
        "[[models]]\nid = \"chat\"\nartifact = '{}'\noptions = {{ threads = 1 }}\n\
         precision = [\"bf16\", \"f16\", \"q8_0\"]\ndevice = [\"cuda:7\", \"cpu\"]\npreload = false\n",
        folder.path().display()
    );
    let server = server(&format!("{entry}[defaults]\nchat = \"chat\"\n"));
    let mut body = question(Some("chat"), "Hello");
    body["route_trace"] = json!(true);
    let answer = server.post_json(CHAT, &body).unwrap();
    // Of the first precision there is nothing, and the first device is not here: the answer says what it is in place of.
    assert_eq!(part(&answer, "model"), Some("chat:f16:cpu"), "{}", answer.body);
    assert_eq!(part(&answer, "in-place-of"), Some("chat:bf16:cuda:7"), "{:?}", answer.route);
    let trace = answer.json().unwrap()["route_trace"].clone();
    let candidates = trace["candidates"].as_array().unwrap();
    let of = |model: &str| candidates.iter().find(|one| one["model"] == model).unwrap().to_string();
    assert_eq!(candidates.len(), 6);
    assert!(of("chat:bf16:cpu").contains("variant-not-found"), "{trace}");
    assert!(of("chat:f16:cuda:7").contains("no device `cuda:7`"), "{trace}");
    assert!(!of("chat:q8_0:cpu").contains("rejected\":{"), "{trace}");
    // Each is a model of its own, which can be asked for, loaded and seen.
    let other = server.post_json(CHAT, &question(Some("chat:q8_0:cpu"), "Hello")).unwrap();
    assert_eq!((part(&other, "model"), part(&other, "by")), (Some("chat:q8_0:cpu"), Some("asked")));
    let listed = server.get("/v1/models").unwrap().json().unwrap();
    let listed: Vec<&str> =
        listed["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!((listed.len(), listed[0]), (7, "chat"), "what people look for comes first: {listed:?}");
    let replayed = server.house().folder().join("decisions.json");
    std::fs::write(&replayed, server.get("/admin/routes").unwrap().body).unwrap();
    let again = server.house().run(["route", "replay", "--json", replayed.to_str().unwrap()]).unwrap();
    assert!(again.status.success(), "{}", again.stderr);
    let again = again.json().unwrap();
    assert_eq!(again.last().unwrap()["same"], 2, "{again:?}");
}

#[test]
fn a_pinned_model_does_not_give_way() {
    let toml = format!(
        "[memory]\nlimit = \"30MiB\"\nreserve = \"0B\"\n{}pin = true\n{}",
        chat_entry("kept").replace("threads = 1", "threads = 1, context_length = 256"),
        chat_entry("other").replace("threads = 1", "threads = 1, context_length = 256")
    );
    let server = server(&toml);
    let ask = |model| server.post_json(CHAT, &question(Some(model), "Hello")).unwrap();
    assert_eq!(ask("kept").status, 200);
    let refused = ask("other");
    assert_eq!(refused.refusal().unwrap().1["code"], "out-of-memory", "{}", refused.body);
    assert!(refused.body.contains("pinned"), "{}", refused.body);
    // A configuration without it lets the other one in.
    server.house().write(&toml.replace("pin = true", "")).unwrap();
    assert_eq!(server.post_json("/admin/reload", &json!({})).unwrap().status, 200);
    let served = ask("other");
    assert_eq!(served.status, 200, "{}", served.body);
}
