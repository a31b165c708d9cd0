//! Answers under a grammar, on a model whose weights are random: nothing but the grammar makes them well-formed.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use pajamas_plugin_api::{
    Cancel, Constraint, FinishReason, GenerateRequest, Grammar, PluginError, Session, codes,
};
use serde_json::{Value, json};
use support::{Collected, greedy, load, run, tiny};

const PROMPT: [u32; 3] = [1, 300, 301];

fn constrained(grammar: Grammar, seed: Option<u64>) -> GenerateRequest {
    let mut request = greedy(&PROMPT, 400);
    request.ignore_eos = false;
    if let Some(seed) = seed {
        request.sampling.temperature = 1.5;
        request.sampling.seed = Some(seed);
    }
    request.constraint = Some(Constraint { grammar, after: Vec::new(), begun: false, lenient: false });
    request
}

fn gbnf(text: &str) -> Grammar {
    Grammar::Gbnf(text.into())
}

fn refuse(session: &dyn Session, grammar: Grammar) -> PluginError {
    session.generate(&constrained(grammar, None), &mut Collected::default(), &Cancel::new()).unwrap_err()
}

#[test]
fn json_follows_its_schema() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 512 }));
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 8 },
            "size": { "enum": ["small", "large"] },
            "counts": { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 99 },
                        "minItems": 1, "maxItems": 3 },
        },
        "required": ["name", "size", "counts"],
        "additionalProperties": false,
    });
    for seed in [None, Some(1), Some(2), Some(3)] {
        let (got, summary) = run(&*session, &constrained(Grammar::JsonSchema(schema.clone()), seed));
        assert_eq!(summary.finish_reason, FinishReason::Stop, "{}", got.text);
        let value: Value = serde_json::from_str(&got.text).unwrap_or_else(|e| panic!("{e}: {}", got.text));
        assert!(value["name"].as_str().unwrap().chars().count() <= 8);
        assert!(value["size"] == "small" || value["size"] == "large");
        let counts = value["counts"].as_array().unwrap();
        assert!((1..=3).contains(&counts.len()) && counts.iter().all(|c| c.as_u64().unwrap() <= 99));
        assert_eq!(got.text, value.to_string(), "no blanks between the parts");
    }
}

#[test]
fn gbnf_is_followed_with_and_without_recursion() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 512 }));
    let text = |grammar: &str, seed| run(&*session, &constrained(gbnf(grammar), seed)).0.text;
    assert_eq!(text("root ::= \"yes\"", None), "yes");
    for seed in [None, Some(7), Some(8)] {
        let word = text("root ::= [a-c]{2,4} \"-\" (\"x\" | \"yy\")? [^\\x00-\\x7f] # comment", seed);
        let (head, tail) = word.split_once('-').unwrap();
        assert!((2..=4).contains(&head.len()) && head.chars().all(|c| ('a'..='c').contains(&c)), "{word}");
        assert!(!tail.chars().last().unwrap().is_ascii(), "{word}");
        // Words that begin alike, and one that ends where another goes on.
        let word = text("root ::= a | \"(\" root \")\"\na ::= \"ab\" \"c\"? | \"a\" \"bd\"", seed);
        let inner = word.trim_start_matches('(').trim_end_matches(')');
        assert!(["ab", "abc", "abd"].contains(&inner), "{word}");
        assert_eq!(word.matches('(').count(), word.matches(')').count(), "{word}");
    }
    // What is forced by a bias against the greedy cut still comes out.
    let mut request = constrained(gbnf("root ::= a\na ::= \"a\" a | \"ab\" \"c\" | \"a\" \"bd\""), None);
    request.sampling.logit_bias = vec![(3 + u32::from(b'b'), 50.0), (3 + u32::from(b'd'), 50.0)];
    assert_eq!(run(&*session, &request).0.text, "abd");
}

#[test]
fn a_grammar_can_wait_for_its_trigger() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 512 }));
    let byte = |b: u8| 3 + u32::from(b);
    let mut request = constrained(gbnf("root ::= \"(\" [0-9]{2} \")\""), None);
    // The free part is all `#`; that switches the grammar on; its end sets the answer free again.
    request.constraint.as_mut().unwrap().after = vec!["##".into()];
    request.sampling.logit_bias = vec![(byte(b'#'), 1e4)];
    request.max_tokens = Some(14);
    let (got, summary) = run(&*session, &request);
    assert_eq!(summary.finish_reason, FinishReason::Length);
    let parts: Vec<&str> = got.text.split("##").collect();
    assert_eq!(got.text.len(), 14, "{}", got.text);
    for part in &parts[1..] {
        let shape: String = part.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!("(00)".starts_with(&shape), "{}", got.text);
    }
    request.constraint.as_mut().unwrap().begun = true;
    assert!(run(&*session, &request).0.text.starts_with('('));
}

#[test]
fn log_probabilities_are_the_models_own() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "prompt_cache": "off" }));
    let mut free = greedy(&PROMPT, 1);
    free.logprobs = Some(400);
    let free = run(&*session, &free).0;
    let mut request = constrained(gbnf("root ::= \"q\""), None);
    request.logprobs = Some(400);
    let (got, _) = run(&*session, &request);
    assert_eq!((got.text.as_str(), got.extras[0].as_str()), ("q", free.extras[0].as_str()));
    let all: Value = serde_json::from_str(&free.extras[0]).unwrap();
    let own = all["top_logprobs"].as_array().unwrap().iter().find(|t| t["id"] == got.ids[0]).unwrap();
    assert!((own["logprob"].as_f64().unwrap() - f64::from(got.logprobs[0])).abs() < 1e-5);
}

#[test]
fn answers_under_grammars_together_are_those_given_alone() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 4 }));
    let requests: Vec<_> = (1..9)
        .map(|i| constrained(gbnf(&format!("root ::= [a-z]{{{i}}} | \"<\" root \">\"")), Some(i)))
        .collect();
    let alone: Vec<_> = requests.iter().map(|r| run(&*session, r).0.text).collect();
    let together: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = requests.iter().map(|r| scope.spawn(|| run(&*session, r).0.text)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn what_cannot_be_followed_is_refused_and_harms_nobody() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let error = refuse(&*session, gbnf("root ::= \"a\"\nb = \"c\""));
    assert_eq!(error.code, codes::INVALID_INPUT);
    assert!(error.message.contains("line 2, column 3"), "{error}");
    for grammar in [
        Grammar::JsonSchema(json!({ "type": "strin" })),
        Grammar::JsonSchema(json!({ "type": "object", "dependentSchemas": { "a": {} } })),
        Grammar::JsonSchema(json!({ "$ref": "#/nowhere" })),
        Grammar::JsonSchema(json!({ "type": "string", "pattern": "(" })),
        Grammar::JsonSchema(json!("no schema")),
    ] {
        let error = refuse(&*session, grammar.clone());
        assert_eq!(error.code, codes::INVALID_INPUT, "{grammar:?}: {error}");
        assert!(!error.message.contains("panic"), "{error}");
    }
    let deep = json!({ "type": "object", "properties": { "a": { "items": { "type": "strin" } } } });
    let error = refuse(&*session, Grammar::JsonSchema(deep));
    assert!(error.message.contains("#/properties/a/items"), "{error}");
    // What explodes ends, one way or the other.
    for grammar in [
        (0..40).fold("root ::= r0\nr40 ::= \"a\"\n".to_owned(), |text, i| {
            text + &format!("r{i} ::= (r{0} | \"b\" r{0}){{1,2000}}\n", i + 1)
        }),
        "root ::= ([a-z]{0,2000} [0-9]{0,2000}){1,2000} | \"(\" root \")\"".to_owned(),
        "root ::= a a\na ::= ([a-z] | \"(\" a \")\" | a a | )".to_owned(),
        "root ::= x\nx ::= [a-z]* [a-z]* [a-z]* [a-z]* (\"(\" x \")\")* [a-z]* [a-z]*".to_owned(),
    ] {
        let result =
            session.generate(&constrained(gbnf(&grammar), None), &mut Collected::default(), &Cancel::new());
        assert!(result.as_ref().err().is_none_or(|e| e.code == codes::INVALID_INPUT), "{result:?}");
    }
    assert_eq!(run(&*session, &constrained(gbnf("root ::= \"ok\""), None)).0.text, "ok");
}
