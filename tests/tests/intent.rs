//! Rules by what a prompt wants: as a classifier says, with weights of the program's own or others, or as stages say.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, chat_entry, part};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

fn question(words: &str) -> Value {
    json!({ "temperature": 0, "max_tokens": 8, "messages": [{ "role": "user", "content": words }] })
}

#[test]
fn what_the_user_wants_leads_to_a_model_and_is_kept_without_the_words() {
    let toml = format!(
        "[defaults]\nchat = \"small\"\n[[routes]]\nid = \"programs\"\nuse = \"large\"\nwhen = {{ intent = \"code\", min_confidence = 0.3 }}\n{}{}",
        chat_entry("large"),
        chat_entry("small")
    );
    let server = server(&toml);
    let mut body = question("Write a Python function that merges two sorted lists without using sort().");
    body["route_trace"] = json!(true);
    let answer = server.post_json(CHAT, &body).unwrap();
    assert_eq!(
        (part(&answer, "model"), part(&answer, "rule")),
        (Some("large"), Some("programs")),
        "{}",
        answer.body
    );
    let intent = answer.json().unwrap()["route_trace"]["intent"].clone();
    assert_eq!(intent["label"], "code", "{intent}");
    assert!((300..=1000).contains(&intent["share"].as_u64().unwrap()) && intent["took"].is_u64(), "{intent}");
    body["messages"][0]["content"] = json!("Übersetze bitte ins Englische: Der Zug hat Verspätung.");
    let other = server.post_json(CHAT, &body).unwrap();
    assert_eq!(
        (part(&other, "model"), part(&other, "by")),
        (Some("small"), Some("default")),
        "{}",
        other.body
    );
    // Who names a model is asked nothing.
    body["model"] = json!("small");
    let named = server.post_json(CHAT, &body).unwrap().json().unwrap();
    assert!(named["route_trace"].get("intent").is_none(), "{named}");

    let kept = server.get("/admin/routes").unwrap();
    assert!(!kept.body.contains("merges") && !kept.body.contains("Verspätung"), "{}", kept.body);
    let one = server.house().folder().join("one.json");
    for decision in kept.json().unwrap()["decisions"].as_array().unwrap() {
        std::fs::write(&one, decision.to_string()).unwrap();
        let again =
            server.house().run(["route", "explain", "--json", "--request", one.to_str().unwrap()]).unwrap();
        let again = again.json().unwrap().remove(0);
        assert_eq!((&again["as_recorded"], &again["same_rules"]), (&json!(true), &json!(true)), "{decision}");
    }
    // A body is explained with its intent, too.
    std::fs::write(&one, question("Why does my Rust code not compile?").to_string()).unwrap();
    let words = server.house().run(["route", "explain", "--request", one.to_str().unwrap()]).unwrap().stdout;
    assert!(words.starts_with("intent code, "), "{words}");
}

#[test]
fn weights_of_an_own_classifier_are_read_or_refused_with_their_path() {
    let toml = format!(
        "[routing.intent]\nmodel = \"own.safetensors\"\n[[routes]]\nid = \"programs\"\nuse = \"chat\"\nwhen.intent = \"code\"\n{}",
        chat_entry("chat")
    );
    let house = House::new("").unwrap();
    let own = house.folder().join("own.safetensors");
    let whole = std::fs::read(repository().join("models/intent/model.safetensors")).unwrap();
    std::fs::write(&own, &whole[..whole.len() / 2]).unwrap();
    house.write(&toml).unwrap();
    let cut = house.run(["config", "check"]).unwrap();
    assert_eq!(cut.refusal().unwrap().0, "intent-model-invalid");
    assert!(cut.stderr.contains("own.safetensors") && cut.stderr.contains("not all there"), "{}", cut.stderr);
    std::fs::write(&own, &whole).unwrap();
    assert!(house.run(["config", "check"]).unwrap().status.success());
    house.write(&toml.replace("\"code\"", "\"cod\"")).unwrap();
    let unknown = house.run(["config", "check"]).unwrap();
    assert_eq!(unknown.refusal().unwrap().0, "config-unknown-reference");
    assert!(unknown.stderr.contains("did you mean `code`"), "{}", unknown.stderr);
}

/// Rules by what stages say a prompt wants.
fn by_stages(words: &str) -> String {
    format!(
        "[defaults]\nchat = \"small\"\n[stages]\nsearch = ['{}']\n\
         [routing.intent]\nsteps = [{{ stage = \"test-intent\", options = {{ words = {{ {words} }} }} }}]\n\
         [[routes]]\nid = \"recipes\"\nuse = \"large\"\nwhen.intent = \"cooking\"\n{}{}",
        repository().join("wasm-stages/built").display(),
        chat_entry("large"),
        chat_entry("small")
    )
}

#[test]
fn stages_may_say_what_the_user_wants() {
    let server = server(&by_stages("cooking = [\"bake\", \"boil\"], travel = [\"train\"]"));
    let ask = |words: &str| {
        let mut body = question(words);
        body["route_trace"] = json!(true);
        let answer = server.post_json(CHAT, &body).unwrap();
        let model = part(&answer, "model").unwrap_or_default().to_owned();
        (model, answer.json().unwrap()["route_trace"]["intent"].clone())
    };
    let (model, intent) = ask("Do I bake or boil it?");
    assert_eq!(
        (model.as_str(), &intent["label"], &intent["share"]),
        ("large", &json!("cooking"), &json!(1000))
    );
    let (model, intent) = ask("Can I bake on a train?");
    assert_eq!((model.as_str(), &intent["share"]), ("small", &json!(500)), "it is not sure enough");
    // A stage that breaks is contained: the rule is passed over, and the decision says why.
    let (model, intent) = ask("Please break the stage and bake");
    assert_eq!((model.as_str(), &intent["code"]), ("small", &json!("stage-trapped")), "{intent}");
    let kept = server.get("/admin/routes").unwrap();
    assert!(!kept.body.contains("boil it"), "{}", kept.body);
    let log = server.house().folder().join("decisions.json");
    std::fs::write(&log, &kept.body).unwrap();
    let again = server.house().run(["route", "replay", "--json", log.to_str().unwrap()]).unwrap();
    assert_eq!(again.json().unwrap().last().unwrap()["same"], 3, "{}{}", again.stdout, again.stderr);
    let one = server.house().folder().join("one.json");
    std::fs::write(&one, question("How long do I boil an egg?").to_string()).unwrap();
    let words = server.house().run(["route", "explain", "--request", one.to_str().unwrap()]).unwrap().stdout;
    assert!(words.starts_with("intent cooking, 100.0 % sure"), "{words}");
}

#[test]
fn stages_that_cannot_say_it_are_refused_before_anything_runs() {
    let house = House::new("").unwrap();
    let check = |toml: &str| {
        house.write(toml).unwrap();
        house.run(["config", "check"]).unwrap()
    };
    let good = by_stages("cooking = [\"bake\"]");
    assert!(check(&good).status.success());
    let unknown = check(&good.replace("test-intent", "test-intend"));
    assert_eq!(unknown.refusal().unwrap().0, "config-unknown-reference");
    assert!(unknown.stderr.contains("did you mean `test-intent`"), "{}", unknown.stderr);
    let model = check(&good.replace("steps = [", "steps = [{ model = true }, "));
    assert_eq!(model.refusal().unwrap().0, "config-conflict");
}
