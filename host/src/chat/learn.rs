//! How a model writes calls, learnt from its own template: it writes two calls of an invented function, and what stands
//! around their names and arguments are the marks.

use serde_json::{Map, Value, json};

use super::conversation::{Call, Conversation, Message, Tool};
use super::reader::{Marks, Syntax};
use crate::error::Result;

/// The invented function; nothing else in a template looks like it.
const NAME: &str = "qzfunction";
const KEYS: [&str; 2] = ["qzfirst", "qzsecond"];

/// What was learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learnt {
    /// How calls are written.
    pub syntax: Syntax,
    /// The keys of the name and the arguments, where they are in an object.
    pub keys: (String, String),
}

/// Learns from a template; `None` when it does not write calls in a way that can be read.
///
/// `write` writes a conversation, with or without the beginning of an answer.
pub fn learn(template: &str, write: &dyn Fn(&Conversation, bool) -> Result<String>) -> Option<Learnt> {
    let fixed = |syntax| Some(Learnt { syntax, keys: (String::new(), String::new()) });
    if template.contains("<|channel|>") && template.contains("to=functions.") {
        return fixed(Syntax::Channels);
    }
    if template.contains("<function=") && template.contains("<parameter=") {
        return fixed(Syntax::Tags);
    }
    let question = write(&conversation(None), true).ok()?;
    // Some templates know only one call at a time.
    let (calls, said) = [2, 1].into_iter().find_map(|calls| {
        let text = write(&conversation(Some(turn(calls))), false).ok()?;
        text.contains(KEYS[calls - 1]).then_some((calls, text))
    })?;
    let said = &said[common(&question, &said)..];
    let end = end_of_turn(&question, write);
    let (object, keys) = object(said);
    let first = object.or_else(|| named(said))?;
    let after = &said[first.end..];
    let mut marks = Marks {
        open: said[..first.start].to_owned(),
        middle: first.middle,
        between: String::new(),
        close: after.strip_suffix(&*end).unwrap_or(after).to_owned(),
    };
    if calls == 2 {
        let second = self::object(after).0.or_else(|| named(after))?;
        marks.between = after[..second.start].to_owned();
        let rest = &after[second.end..];
        marks.close = rest.strip_suffix(&*end).unwrap_or(rest).to_owned();
    }
    let syntax = match &keys {
        Some(_) => Syntax::Object(marks),
        None if !marks.open.trim().is_empty() => Syntax::Named(marks),
        // A name from nowhere cannot be told from words.
        None => return None,
    };
    Some(Learnt { syntax, keys: keys.unwrap_or_default() })
}

fn conversation(answer: Option<Message>) -> Conversation {
    let mut properties = Map::new();
    for key in KEYS {
        properties.insert(key.to_owned(), json!({ "type": "string", "description": "x" }));
    }
    let tool = Tool {
        name: "qztool".into(),
        description: Some("x".into()),
        parameters: json!({ "type": "object", "properties": properties, "required": [] }),
        strict: false,
    };
    let messages: Vec<Message> = [Some(Message::new("user", "x")), answer].into_iter().flatten().collect();
    Conversation { tools: vec![tool], ..Conversation::from(messages) }
}

fn turn(calls: usize) -> Message {
    let call = |index: usize| Call {
        id: format!("qzcall00{index}"),
        name: NAME.into(),
        arguments: json!({ KEYS[index]: "x" }),
    };
    Message { calls: (0..calls).map(call).collect(), ..Message::new("assistant", "") }
}

/// What a template writes after an answer.
fn end_of_turn(question: &str, write: &dyn Fn(&Conversation, bool) -> Result<String>) -> String {
    let said = write(&conversation(Some(Message::new("assistant", "qztext"))), false).unwrap_or_default();
    let from = common(question, &said);
    said[from..].split_once("qztext").map_or(String::new(), |(_, end)| end.to_owned())
}

/// How many bytes two texts begin with alike.
fn common(a: &str, b: &str) -> usize {
    let bytes = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=bytes).rev().find(|at| b.is_char_boundary(*at)).unwrap_or(0)
}

/// Where a call is.
struct Place {
    start: usize,
    end: usize,
    middle: String,
}

/// A call as a JSON object with the name in it, and its keys.
fn object(text: &str) -> (Option<Place>, Option<(String, String)>) {
    let Some(name) = text.find(NAME) else { return (None, None) };
    for (start, _) in text[..name].match_indices('{') {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let Some(Ok(Value::Object(call))) = values.next() else { continue };
        let key_of = |is: &dyn Fn(&Value) -> bool| call.iter().find(|(_, v)| is(v)).map(|(k, _)| k.clone());
        let arguments = |value: &Value| value.to_string().contains(KEYS[0]) || value.to_string().contains(KEYS[1]);
        if let (Some(name), Some(arguments)) = (key_of(&|v| v == NAME), key_of(&arguments)) {
            let end = start + values.byte_offset();
            return (Some(Place { start, end, middle: String::new() }), Some((name, arguments)));
        }
    }
    (None, None)
}

/// A call as the name, and then the arguments.
fn named(text: &str) -> Option<Place> {
    let start = text.find(NAME)?;
    let middle = start + NAME.len();
    let arguments = middle + text[middle..].find('{')?;
    let mut values = serde_json::Deserializer::from_str(&text[arguments..]).into_iter::<Value>();
    values.next()?.ok()?;
    Some(Place { start, end: arguments + values.byte_offset(), middle: text[middle..arguments].to_owned() })
}
