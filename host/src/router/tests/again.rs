//! What was decided is decided again, with words and without.

use proptest::prelude::*;

use super::*;

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
            device: device.into(),
            elsewhere: broken.then(|| ("cuda:0".into(), Share { memory: cost, gave_back: load.map_or(0, |l| l.mean) })).into_iter().collect(),
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
        devices in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), prop::option::of(0..200u32), any::<bool>()), 2),
        affinity in prop::option::of(prop::sample::select(vec!["large", "small", "gone"])),
    ) -> Snapshot {
        let device = |(budget, held, idle, temperature, throttled)| Device { budget, held, idle, temperature, throttled };
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
