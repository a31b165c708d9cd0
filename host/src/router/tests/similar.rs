//! How near a text is to examples is asked once, and only where a rule that may apply asks for it.

use super::*;

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
    let said: Vec<_> = steps.iter().map(|step| (step.failed, step.similar)).collect();
    let score = scored(600);
    assert_eq!(
        said,
        [(Some(Condition::Keywords), None), (Some(Condition::Similar), Some(&score)), (None, Some(&score))]
    );
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
        decision.steps.iter().map(|step| step.similar.and_then(|s| s.code.as_deref())).collect();
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
