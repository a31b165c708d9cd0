//! What a prompt wants is found out once, and only where a rule asks for it.

use super::*;

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
    let failed: Vec<_> = steps.iter().map(|step| step.failed.unwrap()).collect();
    assert_eq!(failed, [Condition::MinTokens, Condition::Intent, Condition::Intent]);
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
