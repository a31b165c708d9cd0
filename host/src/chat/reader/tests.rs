use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::Tool;
use crate::chat::syntax::{THINKING, Tags};

/// What came of a text, cut into pieces of so many characters: content, reasoning and calls.
fn read(mut reader: Reader, text: &str, step: usize) -> (String, String, Vec<(String, String)>) {
    let characters: Vec<char> = text.chars().collect();
    let mut parts = Vec::new();
    for piece in characters.chunks(step) {
        parts.extend(reader.push(&piece.iter().collect::<String>()));
    }
    parts.extend(reader.finish());
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for part in parts {
        match part {
            Part::Content(text) => content += &text,
            Part::Reasoning(text) => reasoning += &text,
            Part::Call { index, name } => {
                assert_eq!(index, calls.len());
                calls.push((name, String::new()));
            }
            Part::Arguments { index, text } => calls[index].1 += &text,
        }
    }
    (content, reasoning, calls)
}

fn every_step(reader: impl Fn() -> Reader, text: &str) -> (String, String, Vec<(String, String)>) {
    let whole = read(reader(), text, usize::MAX);
    for step in [1, 2, 3, 7] {
        assert_eq!(read(reader(), text, step), whole, "in steps of {step}");
    }
    whole
}

fn calls(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect()
}

fn marks(open: &str, between: &str, close: &str) -> Marks {
    Marks { open: open.into(), middle: String::new(), between: between.into(), close: close.into() }
}

fn hermes() -> Reader {
    let marks = marks("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>");
    Reader::new(Some(THINKING[0]), Some(Syntax::Object(marks)), &[])
}

#[test]
fn plain_answers_are_content() {
    let plain = every_step(Reader::plain, " a < b <tool_call> {}");
    assert_eq!(plain, (" a < b <tool_call> {}".into(), String::new(), vec![]));
}

#[test]
fn thoughts_and_calls_are_told_apart() {
    let text = "<think>\nHm, 1 < 2.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
    let (content, reasoning, called) = every_step(hermes, text);
    assert_eq!((content.as_str(), reasoning.as_str()), ("I look.", "Hm, 1 < 2."));
    assert_eq!(called, calls(&[("f", r#"{"a": "</tool_call>"}"#), ("g", "{}")]));
}

#[test]
fn a_thought_may_have_begun_in_the_prompt_and_never_end() {
    let begun = || {
        let mut reader = hermes();
        reader.begin_reasoning();
        reader
    };
    assert_eq!(every_step(begun, "Yes.</think>No."), ("No.".into(), "Yes.".into(), vec![]));
    assert_eq!(every_step(begun, "Yes. </thi"), (String::new(), "Yes. </thi".into(), vec![]));
}

#[test]
fn what_only_looks_like_a_call_is_content() {
    let (content, _, called) = every_step(hermes, "Use <tool_calls> as in [1, 2] <tool");
    assert_eq!((content.as_str(), called.len()), ("Use <tool_calls> as in [1, 2] <tool", 0));
}

#[test]
fn lists_of_calls() {
    let mistral = || Reader::new(None, Some(Syntax::Object(marks("[TOOL_CALLS] [", ", ", "]"))), &[]);
    let text =
        r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": [2]}}]"#;
    let (content, _, called) = every_step(mistral, text);
    assert_eq!(content, "");
    assert_eq!(called, calls(&[("f", r#"{"a": 1}"#), ("g", r#"{"b": [2]}"#)]));
}

#[test]
fn a_whole_answer_can_be_a_call() {
    let llama = || Reader::new(None, Some(Syntax::Object(marks("", "", ""))), &[]);
    let (content, _, called) = every_step(llama, "\n{\"name\": \"f\", \"parameters\": {\"a\": 1}}");
    assert_eq!((content.as_str(), called), ("", calls(&[("f", r#"{"a": 1}"#)])));
    let (content, _, called) = every_step(llama, "It is {\"name\": 1}");
    assert_eq!((content.as_str(), called.len()), ("It is {\"name\": 1}", 0));
}

#[test]
fn names_before_arguments() {
    let named = || {
        let marks = Marks { middle: "[ARGS]".into(), ..marks("[TOOL_CALLS]", "[TOOL_CALLS]", "") };
        Reader::new(None, Some(Syntax::Named(marks)), &[])
    };
    let (content, _, called) = every_step(named, "Well.[TOOL_CALLS]f[ARGS]{\"a\": {}}[TOOL_CALLS]g[ARGS]{}");
    assert_eq!((content.as_str(), called), ("Well.", calls(&[("f", r#"{"a": {}}"#), ("g", "{}")])));
}

#[test]
fn tags() {
    let schema = json!({ "properties": { "n": { "type": "integer" } } });
    let tool = Tool { name: "f".into(), description: None, parameters: schema, strict: false };
    let tags = Tags {
        open: "<tool_call>\n<function=".into(),
        name_close: ">\n".into(),
        key_open: "<parameter=".into(),
        key_close: ">\n".into(),
        value_close: "\n</parameter>\n".into(),
        close: "</function>\n</tool_call>".into(),
    };
    let coder = || Reader::new(None, Some(Syntax::Tags(tags.clone())), std::slice::from_ref(&tool));
    let text = "Now.\n<tool_call>\n<function=f>\n<parameter=n>\n7\n</parameter>\n</function>\n</tool_call>";
    let (content, _, called) = every_step(coder, text);
    assert_eq!((content.as_str(), called), ("Now.", calls(&[("f", r#"{"n":7}"#)])));
}

#[test]
fn channels() {
    let channels = || Reader::new(None, Some(Syntax::Channels), &[]);
    let text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>";
    let (content, reasoning, called) = every_step(channels, text);
    assert_eq!((content.as_str(), reasoning.as_str(), called), ("", "Hm.", calls(&[("f", r#"{"a":1}"#)])));
    let text =
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes < no.";
    assert_eq!(every_step(channels, text), ("Yes < no.".into(), "Hm.".into(), vec![]));
}

#[test]
fn a_call_that_the_prompt_began() {
    let begun = || {
        let mut reader = hermes();
        reader.begin_call("");
        reader
    };
    let (content, _, called) = every_step(begun, "{\"name\":\"f\",\"arguments\":{}}\n</tool_call>");
    assert_eq!((content.as_str(), called), ("", calls(&[("f", "{}")])));
}

proptest! {
    /// Whatever a model writes: nothing panics, and how it is cut does not matter.
    #[test]
    fn cuts_do_not_matter(pieces in prop::collection::vec("<think>|</think>|<tool_call>|</tool_call>|\\{\"name\":|\"f\"|,\"arguments\":|\\{\\}|\\}|\n| |é|<|x", 0..12)) {
        let text = pieces.concat();
        let whole = read(hermes(), &text, usize::MAX);
        prop_assert_eq!(read(hermes(), &text, 1), whole);
    }
}
