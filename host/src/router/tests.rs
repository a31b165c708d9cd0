//! Decisions: by rules, by names, by what is observed; and that each can be made again.

use proptest::prelude::*;

use super::*;
use crate::config::{Affinity, Config, Feature, LoadOptions};
use crate::models::State;

/// Rules of a configuration with the models `large`, `medium`, `small` for chat and `shapes`, `yolo` for detection.
fn rules(toml: &str) -> Rules {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.gguf"), "").unwrap();
    let model = |(id, task)| {
        format!("[[models]]\nid = \"{id}\"\npath = \"m.gguf\"\ntask = \"{task}\"\npreload = true\n")
    };
    let models = MODELS.map(model).concat();
    std::fs::write(folder.path().join("pajamas.toml"), format!("{toml}\n{models}")).unwrap();
    let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
    let config = Config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    Rules::new(&config).unwrap()
}

const MODELS: [(&str, &str); 5] =
    [("large", "chat"), ("medium", "chat"), ("small", "chat"), ("shapes", "detect"), ("yolo", "detect")];
const GIB: u64 = 1 << 30;

/// All of them in memory, idle, the smaller the faster.
fn snapshot() -> Snapshot {
    let average = |mean| Some(Average { mean, spread: 0, count: 5 });
    let models = MODELS.iter().zip([4, 2, 1, 1, 1]).map(|((id, task), size)| {
        let observed = Observed {
            load: average(1_000_000 * size),
            wake: average(10_000 * size),
            service: average(1_000_000 * size),
            first_token: [(1024, average(100_000 * size).unwrap())].into(),
            between_tokens: average(10_000 * size),
            answer: average(101),
        };
        let model = Model {
            task: Some(if *task == "chat" { Task::Chat } else { Task::Detect }),
            state: State::Ready,
            source: (*id).to_owned(),
            device: "cpu".to_owned(),
            memory: Some(size * GIB),
            slots: 1,
            observed,
            ..Model::default()
        };
        ((*id).to_owned(), model)
    });
    let device = Device { budget: 16 * GIB, held: 9 * GIB, idle: 9 * GIB, temperature: Some(50) };
    Snapshot { models: models.collect(), devices: [("cpu".to_owned(), device)].into(), ..Snapshot::default() }
}

fn chat(text: &str) -> Ask {
    Ask { text: Some(text.to_owned()), tokens: 100, ..Ask::new(Task::Chat, None) }
}

/// The chosen model and why, or the code and the words of the refusal.
fn said(rules: &Rules, ask: &Ask, snapshot: &Snapshot) -> String {
    let decision = decide(rules, ask, snapshot);
    match decision.model() {
        Ok(model) => format!("{model}: {}", decision.reason(ask.task)),
        Err(error) => format!("{}: {} ({})", error.code(), error.message(), error.how_to_fix()),
    }
}

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
    let failed = |ask: &Ask| decide(&rules, ask, &snapshot()).steps[0].failed.clone();
    assert_eq!(failed(&good), None);
    let change = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        failed(&ask).unwrap_or_default().into_owned()
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

/// A ladder `chat` of all three models, with policies.
fn ladder(policies: &str) -> Rules {
    rules(&format!(
        "[routing]\n{policies}\n[[ladders]]\nid = \"chat\"\nsteps = [\"large\", \"medium\", \"small\"]"
    ))
}

fn ladder_ask() -> Ask {
    Ask { model: Some("chat".to_owned()), answer: Some(11), ..chat("Hello") }
}

#[test]
fn a_step_that_cannot_or_breaks_a_policy_gives_way_and_says_why() {
    let fault = Fault { code: "io".to_owned(), message: "no such file".to_owned(), help: String::new() };
    type Change<'c> = &'c dyn Fn(&mut Snapshot);
    let large = |snapshot: &mut Snapshot, change: &dyn Fn(&mut Model)| {
        change(snapshot.models.get_mut("large").unwrap())
    };
    let unloaded = |model: &mut Model| model.state = State::Unloaded;
    let cases: [(&str, Change<'_>, &str); 9] = [
        ("", &|s| large(s, &|m| m.unusable = Some(fault.clone())), "no such file [io]"),
        ("", &|s| large(s, &|m| m.state = State::Quarantined), "it panicked again and again"),
        ("", &|s| large(s, &|m| m.context = Some(64)), "the request has about 100 tokens, and it takes 64"),
        (
            "",
            &|s| large(s, &|m| (m.state, m.memory) = (State::Unloaded, Some(20 * GIB))),
            "it needs 20480 MiB on cpu, where models may hold 16384 MiB",
        ),
        (
            "",
            &|s| {
                large(s, &unloaded);
                s.devices.get_mut("cpu").unwrap().held = 14 * GIB;
                s.devices.get_mut("cpu").unwrap().idle = GIB;
            },
            "it needs 4096 MiB on cpu, where running requests leave 3072 MiB",
        ),
        ("warm_only = true", &|s| large(s, &unloaded), "it is unloaded, and warm_only is set"),
        (
            "latency_budget = \"2s\"",
            &|s| large(s, &|m| m.inside = 1),
            "it is predicted to take 4.8 s of a latency_budget of 2.0 s",
        ),
        (
            "vram_headroom = \"12GiB\"",
            &|s| {
                large(s, &|m| m.device = "cuda:0".to_owned());
                let device = Device { budget: 8 * GIB, held: 4 * GIB, idle: 4 * GIB, temperature: None };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "it leaves 4096 MiB free on cuda:0 of a vram_headroom of 12288 MiB",
        ),
        (
            "max_temperature = 80",
            &|s| {
                large(s, &|m| m.device = "cuda:0".to_owned());
                let device = Device { budget: 8 * GIB, temperature: Some(91), ..Device::default() };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "cuda:0 has 91 °C of a max_temperature of 80 °C",
        ),
    ];
    for (policies, change, because) in cases {
        let rules = ladder(policies);
        assert_eq!(decide(&rules, &ladder_ask(), &snapshot()).chosen.as_deref(), Some("large"), "{policies}");
        let mut snapshot = snapshot();
        change(&mut snapshot);
        let decision = decide(&rules, &ladder_ask(), &snapshot);
        assert_eq!(decision.chosen.as_deref(), Some("medium"), "{because}");
        let words = decision.reason(Task::Chat);
        assert_eq!(words, format!("`chat` was asked for; in place of `large`: {because}"));
        assert_eq!(decision.degraded.unwrap().what, ["model"]);
    }
}

#[test]
fn what_a_step_is_less_is_named() {
    let mut snapshot = snapshot();
    let large = snapshot.models.get_mut("large").unwrap();
    large.state = State::Quarantined;
    (large.precision, large.context) = (Some("f16".to_owned()), Some(8192));
    let medium = snapshot.models.get_mut("medium").unwrap();
    medium.source = "large".to_owned();
    (medium.precision, medium.context) = (Some("q4_k_m".to_owned()), Some(4096));
    let decision = decide(&ladder(""), &ladder_ask(), &snapshot);
    assert_eq!(decision.degraded.unwrap().what, ["precision", "context"]);
}

#[test]
fn when_none_keeps_the_policies_the_best_is_taken_and_told_or_all_are_refused() {
    let mut snapshot = snapshot();
    for model in snapshot.models.values_mut() {
        model.state = State::Unloaded;
    }
    let decision = decide(&ladder("warm_only = true"), &ladder_ask(), &snapshot);
    assert_eq!((decision.chosen.as_deref(), decision.breaks.len()), (Some("large"), 1));
    assert_eq!(
        decision.reason(Task::Chat),
        "`chat` was asked for; although it is unloaded, and warm_only is set"
    );
    let strict = "warm_only = true\notherwise = \"refuse\"";
    let said = said(&ladder(strict), &ladder_ask(), &snapshot);
    assert!(said.starts_with("route-policy: no model takes this request: `large`: it is unloaded"), "{said}");
}

#[test]
fn a_model_that_sleeps_is_warm_and_has_lost_its_caches() {
    let mut snapshot = snapshot();
    let sleeps = |model: &mut Model| (model.state, model.gave_back) = (State::Sleeping, GIB);
    sleeps(snapshot.models.get_mut("large").unwrap());
    let decision = decide(&ladder("warm_only = true"), &ladder_ask(), &snapshot);
    assert_eq!((decision.chosen.as_deref(), decision.predicted.unwrap().load), (Some("large"), 40_000));
    // What it gave back has to be there again.
    let cpu = snapshot.devices.get_mut("cpu").unwrap();
    (cpu.held, cpu.idle) = (cpu.budget, 0);
    let decision = decide(&ladder(""), &ladder_ask(), &snapshot);
    assert_eq!(decision.chosen.as_deref(), Some("medium"));
    assert!(decision.reason(Task::Chat).contains("1024 MiB"), "{}", decision.reason(Task::Chat));
    // Nobody goes to it for what it had in its cache.
    let mut snapshot = self::snapshot();
    snapshot.affinity = [(Affinity::Session, "medium".to_owned())].into();
    let rules = rules("[[routes]]\nid = \"r\"\nuse = [\"medium\", \"small\"]\naffinity = \"session\"");
    let chosen = |snapshot: &Snapshot| decide(&rules, &chat("Hello"), snapshot).chosen.unwrap();
    assert_eq!(chosen(&snapshot), "medium");
    sleeps(snapshot.models.get_mut("medium").unwrap());
    assert_eq!(chosen(&snapshot), "small");
}

#[test]
fn a_guess_breaks_no_latency_budget() {
    let mut snapshot = snapshot();
    snapshot.models.get_mut("large").unwrap().observed = Observed::default();
    let decision =
        decide(&ladder("latency_budget = \"1ms\"\notherwise = \"refuse\""), &ladder_ask(), &snapshot);
    assert_eq!(decision.chosen.as_deref(), Some("large"));
    assert!(decision.predicted.unwrap().guessed);
}

#[test]
fn of_equals_the_fastest_is_taken_unless_one_has_the_beginning_cached() {
    let rules = |affinity: &str| {
        rules(&format!("[[routes]]\nid = \"r\"\nuse = [\"large\", \"medium\", \"small\"]\n{affinity}"))
    };
    let chosen = |affinity: &str, snapshot: &Snapshot| {
        decide(&rules(affinity), &chat("Hello"), snapshot).chosen.unwrap()
    };
    let mut snapshot = snapshot();
    assert_eq!(chosen("", &snapshot), "small");
    snapshot.affinity = [(Affinity::Session, "medium".to_owned())].into();
    assert_eq!(chosen("", &snapshot), "small");
    assert_eq!(chosen("affinity = \"prefix\"", &snapshot), "small", "only its session went there");
    assert_eq!(chosen("affinity = \"session\"", &snapshot), "medium");
    snapshot.models.get_mut("medium").unwrap().inside = 3;
    assert_eq!(chosen("affinity = \"session\"", &snapshot), "small", "at more than twice the time");
    // A full model is slower than one that has to be loaded, and who evicts others pays for it.
    snapshot.models.get_mut("small").unwrap().inside = 9;
    snapshot.models.get_mut("medium").unwrap().state = State::Unloaded;
    snapshot.models.get_mut("medium").unwrap().inside = 0;
    assert_eq!(chosen("", &snapshot), "medium");
    snapshot.devices.get_mut("cpu").unwrap().held = 16 * GIB;
    snapshot.devices.get_mut("cpu").unwrap().idle = 16 * GIB;
    assert_eq!(chosen("", &snapshot), "large");
}

#[test]
fn one_that_would_wait_with_too_many_spills_over_and_who_is_alone_waits() {
    let mut snapshot = snapshot();
    let large = snapshot.models.get_mut("large").unwrap();
    (large.slots, large.inside) = (4, 4);
    let chosen = |policies: &str, snapshot: &Snapshot| {
        let decision = decide(&ladder(policies), &ladder_ask(), snapshot);
        (decision.chosen.clone().unwrap(), decision.reason(Task::Chat))
    };
    assert_eq!(chosen("spill = 1", &snapshot).0, "large", "it would be the only one that waits");
    let (model, words) = chosen("spill = 0", &snapshot);
    assert_eq!(model, "medium");
    assert_eq!(words, "`chat` was asked for; in place of `large`: 1 would wait for it, of a spill of 0");
    snapshot.models.get_mut("large").unwrap().inside = 9;
    let alone = Ask { model: Some("large".to_owned()), ..chat("Hello") };
    let decision = decide(&ladder("spill = 0\notherwise = \"refuse\""), &alone, &snapshot);
    assert_eq!(decision.chosen.as_deref(), Some("large"), "who names it waits for it");
}

#[test]
fn what_would_be_late_is_refused_at_once_with_the_numbers_and_a_guess_makes_nothing_late() {
    let mut snapshot = snapshot();
    let ask = |seconds: f64| Ask { deadline: Some((seconds * 1e6) as u64), ..ladder_ask() };
    // 100 ms and ten tokens of 10 ms for each size.
    let decision = decide(&ladder(""), &ask(0.5), &snapshot);
    assert_eq!(decision.chosen.as_deref(), Some("medium"));
    assert_eq!(
        decision.reason(Task::Chat),
        "`chat` was asked for; in place of `large`: it is predicted to take 0.8 s, and the request may take 0.5 s"
    );
    let late = said(&ladder(""), &ask(0.1), &snapshot);
    assert!(
        late.starts_with("deadline-unmet: no model would answer in time: `large`: it is predicted"),
        "{late}"
    );
    let alone = Ask { model: Some("large".to_owned()), ..ask(0.1) };
    assert!(said(&ladder(""), &alone, &snapshot).starts_with("deadline-unmet"));
    snapshot.models.get_mut("large").unwrap().observed = Observed::default();
    assert_eq!(decide(&ladder(""), &ask(0.1), &snapshot).chosen.as_deref(), Some("large"));
}

#[test]
fn what_costs_too_much_is_passed_over_and_of_two_as_fast_the_cheaper_is_taken() {
    let mut snapshot = snapshot();
    let cost = |snapshot: &mut Snapshot, id: &str, cost| {
        snapshot.models.get_mut(id).unwrap().cost = cost;
    };
    cost(&mut snapshot, "large", 2_500_000);
    let words = decide(&ladder("max_cost = 2"), &ladder_ask(), &snapshot).reason(Task::Chat);
    assert_eq!(
        words,
        "`chat` was asked for; in place of `large`: a million tokens cost 2.5 of a max_cost of 2"
    );
    let chosen = |snapshot: &Snapshot| {
        let rules = rules("[[routes]]\nid = \"r\"\nuse = [\"medium\", \"small\"]");
        decide(&rules, &chat("Hello"), snapshot).chosen.unwrap()
    };
    cost(&mut snapshot, "small", 1);
    assert_eq!(chosen(&snapshot), "small", "it costs more, and is twice as fast");
    let as_fast = snapshot.models["medium"].observed.clone();
    snapshot.models.get_mut("small").unwrap().observed = as_fast;
    assert_eq!(chosen(&snapshot), "medium");
    cost(&mut snapshot, "medium", 2);
    assert_eq!(chosen(&snapshot), "small");
}

#[test]
fn a_record_without_words_is_decided_as_before() {
    let rules = rules(
        "[[routes]]\nid = \"a\"\nuse = \"large\"\nwhen.keywords = \"sql\"\n\
         [[routes]]\nid = \"b\"\nuse = \"medium\"\nwhen.regex = \"(?i)sum\"\n\
         [[routes]]\nid = \"c\"\nuse = \"small\"\nwhen.keywords = \"never\"",
    );
    for (text, rule) in [("SQL!", Some("a")), ("a sum", Some("b")), ("neither", None)] {
        let ask = chat(text);
        let decision = decide(&rules, &ask, &snapshot());
        assert_eq!(decision.rule.as_deref(), rule);
        let kept = rules.without_words(ask, &decision);
        assert_eq!(kept.text, None);
        assert_eq!(decide(&rules, &kept, &snapshot()), decision);
    }
}

/// A rule for what prompts want, behind one that most do not meet.
fn wanting() -> Rules {
    rules(
        "[[routes]]\nid = \"long\"\nuse = \"large\"\nwhen.min_tokens = 150\n\
         [[routes]]\nid = \"sums\"\nuse = \"large\"\nwhen = { intent = [\"maths\", \"code\"], max_tokens = 120, min_confidence = 0.3 }\n\
         [[routes]]\nid = \"sure\"\nuse = \"medium\"\nwhen = { intent = \"translation\", min_confidence = 1 }",
    )
}

#[test]
fn what_a_prompt_wants_is_found_out_once_and_only_where_a_rule_asks() {
    let rules = wanting();
    let maths = chat("Solve x^2 - 5x + 6 = 0 for x, and find the derivative of sin(x^2).");
    assert!(rules.wants_intent(&maths));
    let decision = decide(&rules, &maths, &snapshot());
    assert_eq!(decision.rule.as_deref(), Some("sums"));
    let intent = decision.intent.clone().unwrap();
    assert_eq!((intent.label.as_str(), intent.took), ("maths", None));
    assert!((300..=1000).contains(&intent.share), "{intent:?}");

    // An earlier rule applies, or another condition of the rule fails: nobody asks.
    let long = Ask { tokens: 200, ..maths.clone() };
    assert!(!rules.wants_intent(&long));
    assert_eq!(decide(&rules, &long, &snapshot()).intent, None);
    let named = Ask { model: Some("small".to_owned()), ..maths.clone() };
    assert!(!rules.wants_intent(&named));

    // What was found out is believed, whatever the words are; a share below what is asked for is not enough.
    let said = |label: &str, share| Ask {
        intent: Some(Intent { label: label.to_owned(), share, took: Some(7), ..intent.clone() }),
        ..maths.clone()
    };
    let rule = |ask: &Ask| decide(&rules, ask, &snapshot()).rule;
    assert!(!rules.wants_intent(&said("code", 300)));
    assert_eq!(rule(&said("code", 300)).as_deref(), Some("sums"));
    assert_eq!(rule(&said("code", 299)), None);
    assert_eq!(rule(&said("chat", 999)), None);
    assert_eq!(rule(&said("translation", 1000)).as_deref(), Some("sure"));
    let steps = decide(&rules, &said("chat", 999), &snapshot()).steps;
    let failed: Vec<_> = steps.iter().map(|step| step.failed.as_deref().unwrap()).collect();
    assert_eq!(failed, ["min_tokens", "intent", "intent"]);
    // What has no words wants nothing.
    let silent = Ask { text: None, ..maths };
    assert_eq!((decide(&rules, &silent, &snapshot()).intent, rule(&silent)), (None, None));
}

#[test]
fn what_a_prompt_wants_is_kept_without_its_words() {
    let rules = wanting();
    for text in ["What is 17% of 340?", "Hi, how are you today?", ""] {
        let ask = chat(text);
        let decision = decide(&rules, &ask, &snapshot());
        let kept = rules.without_words(ask, &decision);
        assert_eq!(kept.text, None);
        assert_eq!(decide(&rules, &kept, &snapshot()), decision, "{text}");
        assert!(!rules.unsure(&kept, &decision.steps));
        // Other weights might say another thing.
        let mut other = kept.clone();
        other.intent.as_mut().unwrap().by = "000000000000".to_owned();
        assert_eq!(rules.unsure(&other, &decision.steps), decision.rule.is_none());
    }
}

/// Rules for what is near to examples: two of one comparison, behind one for words, and one of another.
fn nearing() -> Rules {
    rules(
        "[[routes]]\nid = \"sql\"\nuse = \"small\"\nwhen.keywords = \"sql\"\n\
         [[routes]]\nid = \"near\"\nuse = \"large\"\npriority = \"high\"\n\
         when = { similar = { model = \"small\", examples = [\"money back\", \"return it\"] }, max_tokens = 120 }\n\
         [[routes]]\nid = \"about\"\nuse = \"medium\"\n\
         when.similar = { model = \"small\", examples = [\"money back\", \"return it\"], min = 0.5 }\n\
         [[routes]]\nid = \"other\"\nuse = \"medium\"\nwhen.similar = { model = \"medium\", examples = \"money back\" }",
    )
}

fn scored(score: i16) -> Similar {
    Similar {
        model: "small".to_owned(),
        score: Some(score),
        nearest: Some(1),
        took: Some(7),
        ..Similar::default()
    }
}

/// The names of all comparisons that are wanted one after the other, when each says this.
fn wanted(rules: &Rules, ask: &mut Ask, said: &Similar) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(comparison) = rules.wants_similar(ask) {
        all.push(format!("{} {}", comparison.model, comparison.examples.join("|")));
        ask.similar.insert(comparison.name.clone(), said.clone());
    }
    all
}

#[test]
fn a_text_is_compared_once_and_only_where_a_rule_that_may_apply_asks() {
    let rules = nearing();
    let decided = |score, ask: &Ask| {
        let mut ask = ask.clone();
        let wanted = wanted(&rules, &mut ask, &scored(score));
        let decision = decide(&rules, &ask, &snapshot());
        assert!(!rules.unsure(&ask, &decision.steps));
        (wanted.len(), decision.rule.unwrap_or_default(), decision.priority)
    };
    let ask = chat("I would like a refund");
    assert_eq!(decided(750, &ask), (1, "near".to_owned(), Some(10)));
    assert_eq!(decided(749, &ask), (1, "about".to_owned(), None), "another rule, and the same comparison");
    assert_eq!(decided(499, &ask), (2, String::new(), None));
    assert_eq!(decided(-1000, &ask).1, "");
    // An earlier rule applies, another condition fails, a model is named, there are no words: nobody asks.
    assert_eq!(decided(1000, &chat("a refund in SQL")), (0, "sql".to_owned(), None));
    assert_eq!(decided(600, &Ask { tokens: 121, ..ask.clone() }), (1, "about".to_owned(), None));
    assert_eq!(
        decided(1000, &Ask { model: Some("small".to_owned()), ..ask.clone() }),
        (0, String::new(), None)
    );
    let silent = Ask { text: None, ..ask.clone() };
    assert!(rules.wants_similar(&silent).is_none() && rules.wants_similar(&chat(" \n")).is_none());

    // The step says how near it was, and of a rule with another reason nothing.
    let mut near = ask.clone();
    wanted(&rules, &mut near, &scored(600));
    let steps = decide(&rules, &near, &snapshot()).steps;
    let said: Vec<_> = steps.iter().map(|step| (step.failed.as_deref(), step.similar.as_ref())).collect();
    let score = scored(600);
    assert_eq!(said, [(Some("keywords"), None), (Some("similar"), Some(&score)), (None, Some(&score))]);
    // A decision asks no model: what nobody found out does not hold, and other rules may be for it.
    let decision = decide(&rules, &ask, &snapshot());
    assert_eq!((decision.rule.as_deref(), rules.unsure(&ask, &decision.steps)), (None, true));
}

#[test]
fn a_rule_whose_model_cannot_be_asked_is_passed_over_and_says_why() {
    let rules = nearing();
    let mut ask = chat("I would like a refund");
    let fault =
        Similar { model: "small".to_owned(), code: Some("queue-full".to_owned()), ..Similar::default() };
    assert_eq!(wanted(&rules, &mut ask, &fault).len(), 2);
    let decision = decide(&rules, &ask, &snapshot());
    assert_eq!(decision.rule, None);
    let codes: Vec<_> =
        decision.steps.iter().map(|step| step.similar.as_ref().and_then(|s| s.code.as_deref())).collect();
    assert_eq!(codes, [None, Some("queue-full"), Some("queue-full"), Some("queue-full")]);
    assert_eq!(decide(&rules, &rules.without_words(ask, &decision), &snapshot()), decision);
}

#[test]
fn other_examples_are_another_comparison_and_another_threshold_is_not() {
    let rule = |model: &str, examples: &str, more: &str| {
        rules(&format!(
            "[[routes]]\nid = \"r\"\nuse = \"large\"\nwhen.similar = {{ model = \"{model}\", examples = [{examples}]{more} }}"
        ))
    };
    let name = |rules: &Rules| rules.wants_similar(&chat("x")).unwrap().name.clone();
    let plain = rule("small", "\"a\", \"b\"", "");
    assert_eq!(name(&plain), name(&rule("small", "\"a\", \"b\"", ", min = 0.2")));
    assert_ne!(plain.fingerprint(), rule("small", "\"a\", \"b\"", ", min = 0.2").fingerprint());
    for other in
        [rule("medium", "\"a\", \"b\"", ""), rule("small", "\"a|b\"", ""), rule("small", "\"b\", \"a\"", "")]
    {
        assert_ne!(name(&plain), name(&other));
    }
}

#[test]
fn a_rule_for_what_own_weights_do_not_know_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/intent/model.safetensors");
    std::fs::write(folder.path().join("m.gguf"), "").unwrap();
    let toml = format!(
        "[routing.intent]\nmodel = \"{weights}\"\n[[models]]\nid = \"m\"\npath = \"m.gguf\"\n\
         [[routes]]\nid = \"r\"\nuse = \"m\"\nwhen.intent = \"cod\""
    );
    std::fs::write(folder.path().join("pajamas.toml"), toml).unwrap();
    let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
    let config = Config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    let error = Rules::with_classifier(&config, Classifier::built_in().unwrap()).unwrap_err();
    assert_eq!((error.code(), error.how_to_fix()), ("config-unknown-reference", "did you mean `code`?"));
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(State::ALL.to_vec())
}

fn average() -> impl Strategy<Value = Option<Average>> {
    prop::option::of((0..u64::MAX, 0..u64::MAX, 1..9u32).prop_map(|(mean, spread, count)| Average {
        mean,
        spread,
        count,
    }))
}

prop_compose! {
    fn model()(
        task in prop::option::of(prop::sample::select(vec![Task::Chat, Task::Detect])),
        state in state(),
        context in prop::option::of(0..300u32),
        device in prop::sample::select(vec!["cpu", "cuda:0", ""]),
        memory in prop::option::of(0..40 * GIB),
        (inside, slots) in (any::<u32>(), any::<u32>()),
        (remote, cost) in (any::<bool>(), any::<u64>()),
        broken in prop::bool::weighted(0.2),
        load in average(), service in average(), first in average(), between in average(), answer in average(),
    ) -> Model {
        let fault = Fault { code: "io".to_owned(), message: String::new(), help: String::new() };
        Model {
            task, state, context, memory, inside, slots, remote, cost,
            gave_back: memory.map_or(0, |memory| memory / 2),
            device: device.to_owned(),
            unusable: broken.then_some(fault),
            observed: Observed {
                load, service, answer, wake: between,
                first_token: first.map(|first| (64, first)).into_iter().collect(),
                between_tokens: between,
            },
            ..Model::default()
        }
    }
}

prop_compose! {
    fn any_snapshot()(
        models in prop::collection::vec(model(), MODELS.len()),
        devices in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), prop::option::of(0..200u32)), 2),
        affinity in prop::option::of(prop::sample::select(vec!["large", "small", "gone"])),
    ) -> Snapshot {
        let device = |(budget, held, idle, temperature)| Device { budget, held, idle, temperature };
        Snapshot {
            time: 0,
            models: MODELS.iter().map(|(id, _)| (*id).to_owned()).zip(models).collect(),
            devices: ["cpu", "cuda:0"].map(str::to_owned).into_iter().zip(devices.into_iter().map(device)).collect(),
            affinity: affinity.map(|model| (Affinity::Prefix, model.to_owned())).into_iter().collect(),
        }
    }
}

proptest! {
    #[test]
    fn decisions_are_the_same_again_and_never_choose_what_is_rejected(
        snapshot in any_snapshot(),
        (tokens, answer, deadline) in (0..500u32, prop::option::of(any::<u32>()), prop::option::of(any::<u64>())),
        asked in prop::option::of(prop::sample::select(vec!["chat", "small", "auto", "nothing"])),
        text in ".{0,40}",
        similar in prop::option::of((prop::option::of(-1000..=1000i16), any::<bool>())),
        policies in prop::sample::select(vec![
            "", "warm_only = true", "latency_budget = \"2s\"\nvram_headroom = \"1GiB\"\nmax_temperature = 90\naffinity = \"prefix\"",
            "spill = 3\nmax_cost = 1000000",
        ]),
        refuse in any::<bool>(),
    ) {
        let otherwise = if refuse { "\notherwise = \"refuse\"\n" } else { "\n" };
        let rules = rules(&format!(
            "[routing]\n{policies}{otherwise}\
             [[routes]]\nid = \"words\"\nuse = [\"small\", \"medium\"]\nwhen.keywords = \"a\"\nwarm_only = false\n\
             [[routes]]\nid = \"wants\"\nuse = \"large\"\nwhen = {{ intent = [\"chat\", \"maths\"], min_confidence = 0.3 }}\n\
             [[routes]]\nid = \"near\"\nuse = \"medium\"\npriority = 3\nwhen.similar = {{ model = \"small\", examples = \"b\", min = 0.4 }}\n\
             [[ladders]]\nid = \"chat\"\nsteps = [\"large\", [\"medium\", \"small\"]]\n[defaults]\nchat = \"chat\"",
        ));
        let mut ask = Ask { tokens, answer, deadline, model: asked.map(str::to_owned), ..chat(&text) };
        if let (Some((score, cut)), Some(comparison)) = (similar, rules.wants_similar(&ask)) {
            let code = score.is_none().then(|| "cancelled".to_owned());
            let said = Similar { score, code, cut, ..Similar::default() };
            ask.similar.insert(comparison.name.clone(), said);
            prop_assert!(rules.wants_similar(&ask).is_none());
        }
        let decision = decide(&rules, &ask, &snapshot);
        prop_assert_eq!(&decide(&rules, &ask, &snapshot), &decision);
        let near = decision.rule.as_deref() == Some("near");
        prop_assert!(!near || similar.is_some_and(|(score, _)| score.is_some_and(|score| score >= 400)));
        prop_assert_eq!(decision.priority, near.then_some(3));
        // As JSON, too, and without the words.
        let record = Record {
            request: None,
            rules: rules.fingerprint().to_owned(),
            ask: rules.without_words(ask, &decision),
            snapshot,
            decision,
            outcome: None,
        };
        let read: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(&decide(&rules, &read.ask, &read.snapshot), &record.decision);

        let decision = record.decision;
        prop_assert_eq!(decision.chosen.is_some(), decision.refused.is_none());
        if let Some(id) = &decision.chosen {
            let chosen = decision.candidates.iter().find(|one| one.model == *id).unwrap();
            prop_assert!(chosen.rejected.is_none());
            prop_assert!(!refuse || chosen.breaks.is_empty());
            prop_assert_eq!(decision.degraded.is_some(), chosen.step > 0);
            let earlier = decision.candidates.iter().filter(|one| one.step < chosen.step);
            for one in earlier {
                prop_assert!(one.rejected.is_some() || !one.breaks.is_empty());
            }
        }
    }
}
