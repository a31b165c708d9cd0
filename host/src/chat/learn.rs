//! How a model writes calls, learnt from its own template: it writes two calls of an invented function, and what stands
//! around their names and arguments are the marks.

use serde_json::{Map, Value, json};

use super::conversation::{Call, Conversation, Message, Tool};
use super::syntax::{Marks, Syntax, THINKING, Tags};
use crate::error::Result;

/// The invented function; nothing else in a template looks like it.
const NAME: &str = "qzfunction";
const KEYS: [&str; 2] = ["qzfirst", "qzsecond"];
const VALUE: &str = "qzvalue";
const CALL: &str = "qzcall00";

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
pub fn learn(template: &str, write: Write<'_>) -> Option<Learnt> {
    let fixed = |syntax| Some(Learnt { syntax, keys: (String::new(), String::new()) });
    if template.contains("<|channel|>") && template.contains("functions") {
        return fixed(Syntax::Channels);
    }
    let question = write(&conversation(None), true).ok()?;
    let end = end_of_turn(&question, write);
    // Some templates know only one call at a time.
    let two = answer(&question, &end, vec![call(0, &KEYS[..1]), call(1, &KEYS[1..])], write);
    let said = two.clone().or_else(|| answer(&question, &end, vec![call(0, &KEYS[..1])], write))?;
    let (first, keys) = match object(&said) {
        Some((place, keys)) => (place, Some(keys)),
        None => match named(&said) {
            Some(place) => (place, None),
            None => return fixed(Syntax::Tags(tags(&question, &end, write)?)),
        },
    };
    let after = &said[first.end..];
    let mut marks = Marks {
        open: said[..first.start].to_owned(),
        // Ids are the server's to make.
        middle: first.middle.split(CALL).next().unwrap_or_default().to_owned(),
        between: String::new(),
        close: after.to_owned(),
    };
    if two.is_some() {
        let second = object(after).map(|(place, _)| place).or_else(|| named(after))?;
        marks.between = after[..second.start].to_owned();
        marks.close = after[second.end..].to_owned();
    }
    let syntax = match &keys {
        _ if marks.open.contains(CALL) => return None,
        Some(_) => Syntax::Object(marks),
        None if !marks.open.trim().is_empty() => Syntax::Named(marks),
        // A name from nowhere cannot be told from words.
        None => return None,
    };
    Some(Learnt { syntax, keys: keys.unwrap_or_default() })
}

type Write<'w> = &'w dyn Fn(&Conversation, bool) -> Result<String>;

/// What a template writes for an answer that calls.
fn answer(question: &str, end: &str, calls: Vec<Call>, write: Write<'_>) -> Option<String> {
    let last = calls.last()?.arguments.as_object()?.keys().next_back()?.clone();
    let turn = Message { calls, ..Message::new("assistant", "") };
    let said = write(&conversation(Some(turn)), false).ok()?;
    let said = &said[common(question, &said)..];
    // A thought that was not had is closed before.
    let thought = THINKING
        .into_iter()
        .filter_map(|(_, close)| Some(said[..said.find(NAME)?].rfind(close)? + close.len()));
    let said = &said[thought.max().unwrap_or(0)..];
    said.contains(&*last).then(|| said.strip_suffix(end).unwrap_or(said).to_owned())
}

/// The marks of a call that is not JSON.
fn tags(question: &str, end: &str, write: Write<'_>) -> Option<Tags> {
    let said = answer(question, end, vec![call(0, &KEYS)], write)?;
    let (open, rest) = said.split_once(NAME)?;
    let (to_key, rest) = rest.split_once(KEYS[0])?;
    let (key_close, rest) = rest.split_once(VALUE)?;
    let (between, rest) = rest.split_once(KEYS[1])?;
    let (_, rest) = rest.split_once(VALUE)?;
    // What stands before the first key and before the second alike is what stands before keys.
    let alike = to_key.chars().rev().zip(between.chars().rev()).take_while(|(a, b)| a == b);
    let length: usize = alike.map(|(c, _)| c.len_utf8()).sum();
    let begin = to_key[to_key.len() - length..].find('<').unwrap_or(0);
    let (name_close, key_open) = to_key.split_at(to_key.len() - length + begin);
    let value_close = &between[..between.len() - key_open.len()];
    let close = rest.strip_prefix(value_close.trim_end())?;
    let tags = Tags {
        open: open.to_owned(),
        name_close: name_close.to_owned(),
        key_open: key_open.to_owned(),
        key_close: key_close.to_owned(),
        value_close: value_close.to_owned(),
        close: close.to_owned(),
    };
    let marks = [open, key_open, key_close, value_close, close];
    marks.iter().all(|mark| !mark.trim().is_empty() && !mark.contains(CALL)).then_some(tags)
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

fn call(index: usize, keys: &[&str]) -> Call {
    let arguments = keys.iter().map(|key| ((*key).to_owned(), json!(VALUE))).collect();
    Call { id: format!("{CALL}{index}"), name: NAME.into(), arguments: Value::Object(arguments) }
}

/// What a template writes after an answer.
fn end_of_turn(question: &str, write: Write<'_>) -> String {
    let said = write(&conversation(Some(Message::new("assistant", "qztext"))), false).unwrap_or_default();
    let from = common(question, &said);
    said[from..].split_once("qztext").map_or(String::new(), |(_, end)| end.to_owned())
}

/// How many bytes two texts begin with alike, whole tags only: `<think>` and `<tool_call>` begin alike, too.
fn common(a: &str, b: &str) -> usize {
    let bytes = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let at = (0..=bytes).rev().find(|at| b.is_char_boundary(*at)).unwrap_or(0);
    match b[..at].rfind('<') {
        Some(tag) if at < a.len() && !b[tag..at].contains('>') => tag,
        _ => at,
    }
}

/// Where a call is.
struct Place {
    start: usize,
    end: usize,
    middle: String,
}

/// A call as a JSON object with the name in it, and its keys.
fn object(text: &str) -> Option<(Place, (String, String))> {
    let name = text.find(NAME)?;
    text[..name].match_indices('{').find_map(|(start, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let Some(Ok(Value::Object(call))) = values.next() else { return None };
        let key_of = |is: &dyn Fn(&Value) -> bool| call.iter().find(|(_, v)| is(v)).map(|(k, _)| k.clone());
        let keys = (key_of(&|v| v == NAME)?, key_of(&|v| KEYS.iter().any(|k| v.to_string().contains(k)))?);
        let place = Place { start, end: start + values.byte_offset(), middle: String::new() };
        Some((place, keys))
    })
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

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::TextSignature;

    use super::*;
    use crate::chat::template;

    fn learn_from(calls: &str) -> Option<Learnt> {
        let source = format!(
            "{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}{{% if m.tool_calls %}}{calls}{{% endif %}}<end>\n{{% endfor %}}{{% if add_generation_prompt %}}<assistant>{{% endif %}}"
        );
        let text = TextSignature { chat_template: Some(source.clone()), ..TextSignature::default() };
        learn(&source, &|conversation, open| template::render(&text, conversation, open))
    }

    fn marks(open: &str, middle: &str, between: &str, close: &str) -> Marks {
        let [open, middle, between, close] = [open, middle, between, close].map(str::to_owned);
        Marks { open, middle, between, close }
    }

    #[test]
    fn objects_between_tags() {
        let learnt = learn_from(
            "{% for c in m.tool_calls %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}",
        );
        let expected = marks("<tool_call>\n", "", "\n</tool_call><tool_call>\n", "\n</tool_call>");
        let keys = ("name".to_owned(), "arguments".to_owned());
        assert_eq!(learnt, Some(Learnt { syntax: Syntax::Object(expected), keys }));
    }

    #[test]
    fn lists_of_objects() {
        let learnt = learn_from(
            "[CALLS][{% for c in m.tool_calls %}{\"fn\": \"{{ c.function.name }}\", \"parameters\": {{ c.function.arguments | tojson }}}{% if not loop.last %}, {% endif %}{% endfor %}]",
        );
        let keys = ("fn".to_owned(), "parameters".to_owned());
        assert_eq!(learnt, Some(Learnt { syntax: Syntax::Object(marks("[CALLS][", "", ", ", "]")), keys }));
    }

    #[test]
    fn one_call_at_a_time() {
        let learnt = learn_from("{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}{% endif %}{% set f = m.tool_calls[0].function %}{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}").unwrap();
        assert_eq!(learnt.syntax, Syntax::Object(Marks::default()));
    }

    #[test]
    fn names_before_arguments() {
        let learnt = learn_from("{% for c in m.tool_calls %}[CALL]{{ c.function.name }}[ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}").unwrap();
        assert_eq!(learnt.syntax, Syntax::Named(marks("[CALL]", "[ID]", "[CALL]", "")));
    }

    #[test]
    fn tags_around_each_argument() {
        let learnt = learn_from("{% for c in m.tool_calls %}<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}").unwrap();
        let Syntax::Tags(tags) = learnt.syntax else { panic!("{:?}", learnt.syntax) };
        assert_eq!((tags.first(), tags.last()), ("<tool_call>", "<function="));
        assert_eq!((&*tags.name_close, &*tags.key_open, &*tags.key_close), (">\n", "<parameter=", ">\n"));
        assert_eq!((&*tags.value_close, &*tags.close), ("\n</parameter>\n", "\n</function>\n</tool_call>"));
    }

    #[test]
    fn what_cannot_be_read_is_not_learnt() {
        assert_eq!(learn_from(""), None);
        assert_eq!(learn_from("{{ m.tool_calls[0].function.name }}"), None);
    }
}
