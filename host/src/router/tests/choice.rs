//! Of the models that may take a request, one is chosen by what is observed, and by policies.

use super::*;

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
    let cases: [(&str, Change<'_>, &str); 11] = [
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
                large(s, &|m| m.device = "cuda:0".into());
                let device = Device { budget: 8 * GIB, held: 4 * GIB, idle: 4 * GIB, ..Device::default() };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "it leaves 4096 MiB free on cuda:0 of a vram_headroom of 12288 MiB",
        ),
        (
            "max_temperature = 80",
            &|s| {
                large(s, &|m| m.device = "cuda:0".into());
                let device = Device { budget: 8 * GIB, temperature: Some(91), ..Device::default() };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "cuda:0 has 91 °C of a max_temperature of 80 °C",
        ),
        (
            "max_temperature = 80",
            &|s| {
                large(s, &|m| m.device = "cuda:0".into());
                let temperature = Some(71);
                let device = Device { budget: 8 * GIB, temperature, throttled: true, ..Device::default() };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "cuda:0 is slowed down by heat, and max_temperature is set",
        ),
        (
            "max_temperature = 80",
            &|s| {
                large(s, &|m| m.device = "cuda:0".into());
                let device = Device { budget: 8 * GIB, throttled: true, ..Device::default() };
                s.devices.insert("cuda:0".to_owned(), device);
            },
            "cuda:0 is slowed down by heat, and max_temperature is set",
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
fn heat_breaks_one_policy_once_and_none_where_none_is_set() {
    let mut snapshot = snapshot();
    let cpu = snapshot.devices.get_mut("cpu").unwrap();
    (cpu.temperature, cpu.throttled) = (Some(91), true);
    let broken = |policies: &str, snapshot: &Snapshot| {
        let decision = decide(&ladder(policies), &ladder_ask(), snapshot);
        decision.breaks.iter().map(|reason| (reason.name(), reason.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(broken("", &snapshot), []);
    let hot = ("max_temperature", "cpu has 91 °C of a max_temperature of 90 °C".to_owned());
    assert_eq!(broken("max_temperature = 90", &snapshot), [hot]);
    let slow = "cpu is slowed down by heat, and max_temperature is set".to_owned();
    assert_eq!(broken("max_temperature = 91", &snapshot), [("max_temperature", slow)]);
}

#[test]
fn what_is_nothing_of_a_devices_heat_is_not_written_and_old_records_are_read() {
    let cool = snapshot();
    let written = serde_json::to_string(&cool).unwrap();
    assert!(!written.contains("throttled"), "{written}");
    assert_eq!(serde_json::from_str::<Snapshot>(&written).unwrap(), cool);
    let mut slow = cool;
    slow.devices.get_mut("cpu").unwrap().throttled = true;
    let written = serde_json::to_string(&slow).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&written).unwrap(), slow);
    let reason = Reason::Throttled { device: "cuda:0".into() };
    assert_eq!(serde_json::json!(reason), serde_json::json!({ "why": "throttled", "device": "cuda:0" }));
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
    let decision = decide(&ladder("warm_only = true\notherwise = \"fastest\""), &ladder_ask(), &snapshot);
    assert_eq!((decision.chosen.as_deref(), decision.breaks.len()), (Some("small"), 1));
    assert_eq!(decision.degraded.unwrap().from, "large");
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
fn a_model_on_two_devices_needs_room_on_both() {
    let mut snapshot = snapshot();
    let large = snapshot.models.get_mut("large").unwrap();
    large.state = State::Unloaded;
    large.elsewhere = [("cuda:0".into(), Share { memory: 3 * GIB, gave_back: 0 })].into();
    let chosen = |snapshot: &Snapshot| decide(&ladder(""), &ladder_ask(), snapshot);
    let gpu = |held, budget| Device { budget, held, ..Device::default() };
    assert_eq!(chosen(&snapshot).chosen.as_deref(), Some("large"), "nothing is known of that device");
    snapshot.devices.insert("cuda:0".to_owned(), gpu(GIB, 4 * GIB));
    assert_eq!(chosen(&snapshot).chosen.as_deref(), Some("large"));
    snapshot.devices.insert("cuda:0".to_owned(), gpu(2 * GIB, 4 * GIB));
    let full = chosen(&snapshot);
    assert_eq!(full.chosen.as_deref(), Some("medium"));
    assert!(full.reason(Task::Chat).contains("cuda:0"), "{}", full.reason(Task::Chat));
    snapshot.devices.insert("cuda:0".to_owned(), gpu(0, 2 * GIB));
    let never = chosen(&snapshot);
    let why = &never.candidates[0].rejected;
    assert!(matches!(why, Some(Reason::TooLarge { device, .. }) if **device == *"cuda:0"), "{why:?}");
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
