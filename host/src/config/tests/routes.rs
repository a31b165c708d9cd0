//! Rules, ladders and aliases: what is read, and what is refused.

use super::super::*;
use super::House;

/// Three models for text and one for pictures.
fn models() -> String {
    let model =
        |id: &str, file: &str, rest: &str| format!("[[models]]\nid = \"{id}\"\npath = \"{file}\"\n{rest}\n");
    [
        model("large", "chat.gguf", "task = \"chat\""),
        model("medium", "chat.gguf", "task = \"chat\""),
        model("small", "chat.gguf", "task = \"chat\""),
        model("boxes", "yolo.onnx", "task = \"detect\""),
    ]
    .concat()
}

fn house(toml: &str) -> House {
    House::new(&format!("{toml}\n{}", models()))
}

#[test]
fn a_name_leads_to_its_models_step_by_step() {
    let config = house(
        r#"
        [aliases]
        gpt-4o = "chat"
        tiny = "small"
        [[ladders]]
        id = "chat"
        steps = ["large", "rest"]
        [[ladders]]
        id = "rest"
        steps = [["medium", "tiny"], "small"]
        "#,
    )
    .load()
    .unwrap();
    let steps = |name| {
        let steps = config.steps(name).unwrap();
        steps
            .into_iter()
            .map(|s| s.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join("|"))
            .collect::<Vec<_>>()
    };
    assert_eq!(steps("gpt-4o"), ["large", "medium|small", "small"]);
    assert_eq!(steps("tiny"), ["small"]);
    assert_eq!(config.steps("huge"), Err(Astray::Unknown("huge")));
}

#[test]
fn every_condition_and_policy_is_read() {
    let key = format!("[[server.keys]]\nname = \"app\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let config = house(&format!(
        r#"
        {key}
        [routing]
        latency_budget = "20s"
        record = "text"
        [[routes]]
        id = "everything"
        use = ["large", "small"]
        latency_budget = "2s"
        vram_headroom = "1GiB"
        warm_only = true
        max_temperature = 85
        affinity = "session"
        max_cost = 0.5
        spill = 4
        when.model = ["gpt-4o", "large"]
        when.task = "chat"
        when.keywords = ["select", "from where"]
        when.regex = "(?i)sql"
        when.min_tokens = 10
        when.max_tokens = 1000
        when.has = ["tools", "schema"]
        when.language = ["de", "fr"]
        when.key = "app"
        when.metadata.team = ["red", "blue"]
        when.hours = "22:00-06:00"
        when.header.x-tier = "gold"
        when.intent = ["code", "maths"]
        when.min_confidence = 0.75
        when.similar = {{ model = "small", examples = "money back", min = 0.8 }}
        priority = "low"
        [routing.similar]
        wait = "2s"
        [routing.intent]
        min_confidence = 1
        "#
    ))
    .load()
    .unwrap();
    let rule = &config.routes[0];
    let policies = rule.policies(&config.routing);
    assert_eq!(policies.latency_budget, Some(Period::seconds(2)));
    assert_eq!((policies.affinity, policies.otherwise), (Some(Affinity::Session), Otherwise::Best));
    assert_eq!(policies.record, Record::Text);
    assert_eq!((policies.max_cost, policies.spill), (Some(Cost::millionths(500_000)), Some(4)));
    assert_eq!(rule.when.metadata["team"].as_slice(), ["red", "blue"]);
    assert_eq!(rule.when.has.as_ref().unwrap().as_slice(), [Feature::Tools, Feature::Schema]);
    assert_eq!(config.steps_of(&rule.targets).unwrap()[0].len(), 2);
    // What is explained can be read again.
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["routes"][0]["when"]["hours"], "22:00-06:00");
    assert_eq!(written["routes"][0]["when"]["key"], "app");
    assert_eq!(rule.when.min_confidence, Some(Share::thousandths(750)));
    assert_eq!(written["routes"][0]["when"]["min_confidence"], 0.75);
    assert_eq!(config.routing.intent.min_confidence.get(), 1000);
    let similar = rule.when.similar.as_ref().unwrap();
    assert_eq!((&*similar.model, similar.min), ("small", Some(Share::thousandths(800))));
    assert_eq!(written["routes"][0]["when"]["similar"]["examples"], "money back");
    assert_eq!((config.routing.similar.min.get(), config.routing.similar.wait), (750, Period::seconds(2)));
    assert_eq!(rule.priority, Some(Priority(-10)));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    let problems = |toml: &str| house(toml).problems();
    insta::assert_snapshot!(problems("[[ladders]]\nid = \"a\"\nsteps = [\"large\", \"b\"]\n[[ladders]]\nid = \"b\"\nsteps = [\"a\"]\n"), @r#"
    pajamas.toml:3:9: the ladder `a` leads back to itself: a > b > a
      |
    3 | steps = ["large", "b"]
      |         ^^^^^^^^^^^^^^
      = help: end each ladder with a model

    pajamas.toml:6:9: the ladder `b` leads back to itself: b > a > b
      |
    6 | steps = ["a"]
      |         ^^^^^
      = help: end each ladder with a model
    "#);
    insta::assert_snapshot!(problems("[[routes]]\nid = \"r\"\nuse = [\"large\", \"smal\"]\nwhen.regex = \"a(b\"\n"), @r#"
    pajamas.toml:3:17: the rule `r`: there is no model or ladder `smal`
      |
    3 | use = ["large", "smal"]
      |                 ^^^^^^
      = help: did you mean `small`?

    pajamas.toml:4:14: `routes.r.when.regex`: `a(b` is no regular expression: unclosed group
      |
    4 | when.regex = "a(b"
      |              ^^^^^
    "#);
    insta::assert_snapshot!(problems("[[routes]]\nid = \"r\"\nuse = \"boxes\"\nwhen.task = \"chat\"\n"), @r#"
    pajamas.toml:3:7: the rule `r`: the model `boxes` is for the task `detect`, not for chat
      |
    3 | use = "boxes"
      |       ^^^^^^^
      = help: name models whose task is `chat`
    "#);
}

#[test]
fn a_remote_model_is_read_and_what_only_models_here_have_is_refused() {
    let remote = |remote: &str, rest: &str| {
        let remote = format!("url = \"http://10.0.0.5:8000/v1/\", model = \"Qwen/Qwen3-32B\"{remote}");
        House::new(&format!("[[models]]\nid = \"big\"\nremote = {{ {remote} }}\n{rest}\n"))
    };
    let config =
        remote(", key_env = \"BIG_KEY\", silence = \"9s\"", "cost = 0.4\ntask = \"chat\"").load().unwrap();
    let model = config.model("big").unwrap();
    let big = model.remote.as_ref().unwrap();
    assert_eq!((big.url.to_string().as_str(), big.parallel), ("http://10.0.0.5:8000/v1", 32));
    assert_eq!((big.silence, big.connect), (Period::seconds(9), Period::seconds(5)));
    assert_eq!((model.cost, model.location()), (Cost::millionths(400_000), None));
    // What is explained names the variable, which is no secret, and can be read again.
    assert_eq!(serde_json::to_value(&config).unwrap()["models"][0]["remote"]["key_env"], "BIG_KEY");
    for (more, rest, code) in [
        ("", "path = \"chat.gguf\"", "config-conflict"),
        ("", "device = \"cpu\"", "config-conflict"),
        ("", "options = { threads = 1 }", "config-conflict"),
        ("", "task = \"detect\"", "config-conflict"),
        ("", "cost = -1", "config-invalid-value"),
        (", parallel = 0", "", "config-invalid-value"),
        (", rest = \"2m\"", "", "config-invalid-value"),
        (", key = \"sk-1\"", "", "config-unknown-key"),
    ] {
        assert_eq!(remote(more, rest).codes(), [code], "{more} {rest}");
    }
    let named = House::new(
        "[[models]]\nid = \"big\"\nremote = { url = \"https://me:secret@x/v1\", model = \"m\" }\n",
    );
    assert_eq!(named.codes(), ["config-invalid-value"]);
}

#[test]
fn every_contradiction_has_its_code() {
    let similar = |model: &str, examples: &str| {
        format!("when.similar = {{ model = \"{model}\", examples = {examples} }}\n")
    };
    let rule = |rest: &str| format!("[[routes]]\nid = \"r\"\nuse = \"large\"\n{rest}\n");
    for (toml, code) in [
        (rule("when.min_tokens = 9\nwhen.max_tokens = 3"), "config-conflict"),
        (rule("warm_only = true\notherwise = \"refuse\""), "config-conflict"),
        (rule("vram_headroom = \"2GiB\"\n[memory]\nlimit = \"1GiB\""), "config-conflict"),
        (rule("latency_budget = \"0s\""), "config-invalid-value"),
        (rule("when.key = \"nobody\""), "config-unknown-reference"),
        (rule("when.header.Authorization = \"x\""), "config-invalid-value"),
        (rule("when.keywords = [\"a\", \" \"]"), "config-invalid-value"),
        (rule("when.keywords = []"), "config-invalid-value"),
        (rule("when.keyword = \"a\""), "config-unknown-key"),
        (rule("when.intent = \"cod\""), "config-unknown-reference"),
        (rule("when.intent = []"), "config-invalid-value"),
        (rule("when.min_confidence = 0.5"), "config-conflict"),
        (rule("when.intent = \"code\"\nwhen.min_confidence = 60"), "config-invalid-value"),
        (rule("when.intent = \"code\"\nwhen.min_confidence = nan"), "config-invalid-value"),
        (rule(&similar("smal", "\"a\"")), "config-unknown-reference"),
        (rule(&similar("boxes", "\"a\"")), "config-conflict"),
        (rule(&(similar("any", "\"a\"") + "[aliases]\nany = \"small\"")), "config-conflict"),
        (rule(&similar("small", "[]")), "config-invalid-value"),
        (rule(&similar("small", "[\"a\", \" \"]")), "config-invalid-value"),
        (rule(&similar("small", &format!("{:?}", vec!["a"; 65]))), "config-invalid-value"),
        (rule(&similar("small", &format!("{:?}", "é".repeat(2001)))), "config-invalid-value"),
        (rule("when.similar = { model = \"small\" }"), "config-missing-key"),
        (rule("when.similar = { model = \"small\", examples = \"a\", min = 2 }"), "config-invalid-value"),
        (rule("[routing.similar]\nwait = \"0s\""), "config-invalid-value"),
        (rule("priority = \"urgent\""), "config-invalid-value"),
        (rule("[routing.intent]\nmodel = \"nowhere.safetensors\""), "config-file-missing"),
        ("[routing]\nwarm_only = true\notherwise = \"refuse\"\n[defaults]\nchat = \"small\"".to_owned(), "config-conflict"),
        (
            "[routing]\nwarm_only = true\notherwise = \"refuse\"\n[[ladders]]\nid = \"l\"\nsteps = [\"large\", \"small\"]".to_owned(),
            "config-conflict",
        ),
        (rule("[[routes]]\nid = \"late\"\nuse = \"small\"\nwhen.min_tokens = 3"), "config-conflict"),
        (rule("[[routes]]\nid = \"r\"\nuse = \"small\"\nwhen.model = \"x\""), "config-duplicate-id"),
        ("[[ladders]]\nid = \"l\"\nsteps = [\"large\", \"boxes\"]".to_owned(), "config-conflict"),
        ("[[ladders]]\nid = \"l\"\nsteps = []".to_owned(), "config-missing-key"),
        ("[[ladders]]\nid = \"large\"\nsteps = [\"small\"]".to_owned(), "config-duplicate-id"),
        ("[aliases]\nx = \"y\"".to_owned(), "config-unknown-reference"),
        ("[aliases]\nx = \"y\"\ny = \"large\"".to_owned(), "config-conflict"),
        ("[aliases]\nlarge = \"small\"".to_owned(), "config-duplicate-id"),
    ] {
        assert_eq!(house(&toml).codes(), [code], "{toml}");
    }
    // The same with what is meant is fine.
    for toml in [
        rule("when.min_tokens = 3\nwhen.max_tokens = 9"),
        rule("[[routes]]\nid = \"late\"\nuse = \"small\"\nwhen.model = \"x\""),
        rule("when.intent = \"code\""),
        rule(&similar("small", &format!("{:?}", vec!["é".repeat(2000); 64]))),
        // Another rule loads what the default then finds.
        "[routing]\nwarm_only = true\notherwise = \"refuse\"\n[defaults]\nchat = \"small\"\n[[routes]]\nid = \"r\"\nuse = \"small\"\n\
         when.model = \"x\"\nwarm_only = false"
            .to_owned(),
        "[defaults]\nchat = \"l\"\n[[ladders]]\nid = \"l\"\nsteps = [\"large\", \"small\"]".to_owned(),
    ] {
        house(&toml).load().unwrap_or_else(|problems| panic!("{toml}: {problems}"));
    }
}

#[test]
fn a_model_that_cannot_compare_texts_is_refused_once_it_was_looked_at() {
    let config = House::new(
        "[[models]]\nid = \"m\"\npath = \"chat.gguf\"\n[[models]]\nid = \"near\"\npath = \"yolo.onnx\"\n\
         [[routes]]\nid = \"r\"\nuse = \"m\"\nwhen.similar = { model = \"near\", examples = \"a\" }",
    )
    .load()
    .unwrap();
    let known = |task, too_large: Option<&str>| {
        config.check_known(&|id| match id {
            "near" => Known { task: Some(task), too_large: too_large.map(str::to_owned), ..Known::default() },
            _ => Known::default(),
        })
    };
    let said = known(Task::Detect, None).unwrap_err().to_string();
    assert!(
        said.contains("the rule `r`: the model `near` is for the task `detect`, not for embed"),
        "{said}"
    );
    let said = known(Task::Embed, Some("it needs 9 GiB")).unwrap_err().to_string();
    assert!(said.contains("the rule `r` can never apply: it needs 9 GiB"), "{said}");
    assert!(known(Task::Embed, None).is_ok() && known(Task::Chat, None).is_ok());
}

#[test]
fn a_headroom_that_no_model_leaves_is_refused() {
    let config = house(
        "[[routes]]\nid = \"r\"\nuse = [\"large\", \"small\"]\nvram_headroom = \"3GiB\"\notherwise = \"refuse\"\nwhen.task = \"chat\"\n\
         [[routes]]\nid = \"mild\"\nuse = [\"large\", \"small\"]\nvram_headroom = \"3GiB\"",
    )
    .load()
    .unwrap();
    let leaving = |large: Option<u64>, small: Option<u64>| {
        let leaves = |id: &str| if id == "large" { large } else { small };
        config.check_known(&|id| Known { leaves: leaves(id), ..Known::default() })
    };
    let problems = leaving(Some(1 << 30), Some(2 << 30)).unwrap_err().to_string();
    assert!(problems.contains("the rule `r`") && problems.contains("leave 2048 MiB at most"), "{problems}");
    assert!(!problems.contains("mild"), "one that takes the best then is never in vain: {problems}");
    for fine in [leaving(Some(1 << 30), Some(3 << 30)), leaving(Some(1 << 30), None), leaving(None, None)] {
        fine.unwrap_or_else(|problems| panic!("{problems}"));
    }
}
