//! Rules, names and defaults lead to models, and each refusal says how to fix it.

use super::*;

#[test]
fn every_decision_has_its_reason() {
    let said = |toml, task, asked| said(&rules(toml), &Ask::new(task, asked), &snapshot());
    assert_eq!(said("", Task::Detect, Some("yolo")), "yolo: asked for");
    let defaults =
        "[defaults]\ndetect = \"shapes\"\nchat = \"any\"\n[aliases]\nany = \"small\"\ngpt-4o = \"large\"";
    assert_eq!(said(defaults, Task::Detect, None), "shapes: the default for detect (defaults.detect)");
    assert_eq!(
        said(defaults, Task::Detect, Some("auto")),
        "shapes: the default for detect (defaults.detect)"
    );
    assert_eq!(said(defaults, Task::Chat, None), "small: the default for chat (defaults.chat), `any`");
    assert_eq!(said(defaults, Task::Chat, Some("gpt-4o")), "large: `gpt-4o` was asked for");
    let rule = "[[routes]]\nid = \"all\"\nuse = \"medium\"\n[[routes]]\nid = \"virtual\"\nwhen.model = \"team\"\nuse = \"small\"";
    assert_eq!(said(rule, Task::Chat, None), "medium: the rule `all`");
    assert_eq!(said(rule, Task::Chat, Some("team")), "small: the rule `virtual`");
    assert_eq!(
        said(rule, Task::Chat, Some("large")),
        "large: asked for",
        "no rule overrides who names a model"
    );
}

#[test]
fn the_only_model_needs_no_name() {
    let mut snapshot = snapshot();
    for other in ["medium", "small", "yolo"] {
        snapshot.models.remove(other);
    }
    let said = |task| said(&rules(""), &Ask::new(task, None), &snapshot);
    assert_eq!(said(Task::Chat), "large: the only model for chat");
    assert_eq!(said(Task::Generate), "large: the only model for generate");
    let mut vectors = snapshot.models["large"].clone();
    vectors.task = Some(Task::Embed);
    snapshot.models.insert("vectors".into(), vectors);
    let said = |task| self::said(&rules(""), &Ask::new(task, None), &snapshot);
    assert_eq!(said(Task::Generate), "large: the only model for generate", "beside one for vectors");
    assert_eq!(said(Task::Embed), "vectors: the only model for embed");
}

#[test]
fn every_refusal_says_how_to_fix_it() {
    let refused = |toml, task, asked, words: &str| {
        let said = said(&rules(toml), &Ask::new(task, asked), &snapshot());
        assert!(said.starts_with(words), "{said}");
    };
    refused("", Task::Detect, None, "model-not-chosen: several models do `detect`: shapes, yolo");
    refused("", Task::Detect, Some("shape"), "model-not-found: no model `shape`");
    refused("", Task::Chat, Some("yolo"), "task-mismatch: `yolo` is a model for detect, not for chat");
    refused("", Task::Speak, None, "model-not-chosen: no configured model does `speak`");
    let both = "[[ladders]]\nid = \"eyes\"\nsteps = [\"shapes\", \"yolo\"]";
    refused(
        both,
        Task::Chat,
        Some("eyes"),
        "no-candidate: no model takes this request: `shapes`: it was made for detect",
    );
}

#[test]
fn the_first_rule_that_applies_decides_and_each_says_what_it_lacks() {
    let rules = rules(
        "[[server.keys]]\nname = \"app\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n\
         [[routes]]\nid = \"r\"\nuse = \"small\"\n\
         when = { task = [\"chat\", \"generate\"], keywords = [\"sql\", \"from where\"], regex = \"[0-9]+\", min_tokens = 50, \
         max_tokens = 200, has = \"tools\", language = \"de\", key = \"app\", metadata = { team = \"red\" }, \
         hours = \"22:00-06:00\", header = { X-Tier = [\"gold\", \"silver\"] } }",
    );
    let good = Ask {
        has: vec![Feature::Tools, Feature::Schema],
        language: Some("DE".to_owned()),
        key: Some("app".to_owned()),
        metadata: [("team".to_owned(), "red".to_owned())].into(),
        headers: [("x-tier".to_owned(), "silver".to_owned())].into(),
        minute: 23 * 60,
        ..chat("Some SQL for 7 rows")
    };
    let failed = |ask: &Ask| decide(&rules, ask, &snapshot()).steps.iter().next().unwrap().failed;
    assert_eq!(failed(&good), None);
    let change = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        failed(&ask).map(|failed| failed.to_string()).unwrap_or_default()
    };
    assert_eq!(change(&|ask| ask.model = Some("large".to_owned())), "model");
    assert_eq!(change(&|ask| ask.task = Task::Embed), "task");
    assert_eq!(change(&|ask| ask.tokens = 49), "min_tokens");
    assert_eq!(change(&|ask| ask.tokens = 201), "max_tokens");
    assert_eq!(change(&|ask| ask.has.clear()), "has");
    assert_eq!(change(&|ask| ask.language = None), "language");
    assert_eq!(change(&|ask| ask.key = None), "key");
    assert_eq!(change(&|ask| ask.metadata.clear()), "metadata");
    assert_eq!(change(&|ask| ask.minute = 12 * 60), "hours");
    assert_eq!(change(&|ask| drop(ask.headers.insert("x-tier".to_owned(), "tin".to_owned()))), "header");
    assert_eq!(change(&|ask| ask.text = Some("mysql 7".to_owned())), "keywords");
    assert_eq!(change(&|ask| ask.text = Some("sql".to_owned())), "regex");
    assert_eq!(change(&|ask| ask.text = None), "keywords");
}
