//! From a conversation to a prompt, and to what its answer may be and how to read it.

use pajamas_plugin_api::{Constraint, Grammar, TextSignature};

use super::conversation::{Conversation, Message, Tool, ToolChoice};
use super::learn::{Learnt, learn};
use super::reader::Reader;
use super::syntax::{Marks, Syntax, THINKING};
use super::{schema, template};
use crate::error::{Error, Result};

/// What an answer is made with.
#[derive(Debug)]
pub struct Answer {
    /// The prompt, which may end with the beginning of the answer.
    pub prompt: String,
    /// What calls must look like.
    pub constraint: Option<Constraint>,
    /// Whether the reader needs control tokens.
    pub special: bool,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Reads the answer.
    pub reader: Reader,
}

/// Begins the answer of a conversation. `shaped` says that the whole answer follows a grammar of the caller's.
///
/// # Errors
/// `invalid-input` for a choice of a function that is not among the tools; those of [`template::render`].
pub fn begin(text: &TextSignature, conversation: &Conversation, shaped: bool) -> Result<Answer> {
    let tools = chosen(conversation)?;
    let source = text.chat_template.as_deref().unwrap_or_default();
    let native = source.contains("tools");
    let prompt = match native || conversation.tools.is_empty() {
        true => template::render(text, conversation, true)?,
        false => template::render(text, &told(conversation), true)?,
    };
    let channels = source.contains("<|channel|>");
    let thinking = THINKING.into_iter().find(|(open, _)| source.contains(open));
    let learnt = match (&*tools, native) {
        ([], _) if channels => Some(Learnt::of(Syntax::Channels)),
        ([], _) => None,
        (_, false) => Some(generic()),
        (_, true) => {
            let write = |conversation: &Conversation, open| template::render(text, conversation, open);
            Some(learn(source, &write).unwrap_or_else(generic))
        }
    };
    let reader = Reader::new(thinking, learnt.as_ref().map(|l| l.syntax.clone()), &tools);
    let special = learnt.is_some() || thinking.is_some();
    let mut answer = Answer { prompt, constraint: None, special, stop: Vec::new(), reader };
    let thinks = thinking.filter(|(open, _)| answer.prompt.trim_end().ends_with(open));
    let must = matches!(conversation.choice, ToolChoice::Required | ToolChoice::Named(_));
    if let Some((_, close)) = thinks {
        if shaped || (must && !tools.is_empty()) {
            // What must begin at once cannot be thought about first.
            answer.prompt += &format!("\n{close}\n\n");
        } else {
            answer.reader.begin_reasoning();
        }
    }
    if shaped && channels {
        answer.prompt += "<|channel|>final<|message|>";
        answer.reader.begin_call("<|channel|>final<|message|>");
    }
    if let Some(learnt) = learnt.filter(|_| !tools.is_empty()) {
        // One call is the whole answer where no other may follow, and where the model would not know how to go on.
        let one = matches!(conversation.choice, ToolChoice::Named(_)) || !conversation.parallel || !native;
        answer.call(&learnt, &tools, must, one);
        if !conversation.parallel
            && let Syntax::Object(marks) | Syntax::Named(marks) = &learnt.syntax
        {
            answer.stop.extend(Some(marks.between.trim().to_owned()).filter(|mark| mark.len() > 1));
        }
    }
    Ok(answer)
}

impl Answer {
    /// Makes the answer call, or be right when it does.
    fn call(&mut self, learnt: &Learnt, tools: &[Tool], must: bool, one: bool) {
        let lenient = !tools.iter().any(|tool| tool.strict);
        let constraint = |schema, after: Vec<String>| {
            let (after, begun) = if must && one { (Vec::new(), false) } else { (after, must) };
            let begun = begun && !after.is_empty();
            Some(Constraint { grammar: Grammar::JsonSchema(schema), after, begun, lenient })
        };
        let only = match tools {
            [tool] => Some(tool),
            _ => None,
        };
        match &learnt.syntax {
            Syntax::Object(marks) => {
                let after: Vec<String> =
                    Some(marks.open.trim_start().to_owned()).filter(|o| !o.is_empty()).into_iter().collect();
                // A call without a mark cannot be told from words before it is there.
                if must || !after.is_empty() {
                    let (name, arguments) = &learnt.keys;
                    self.constraint = constraint(schema::call(tools, name, arguments), after);
                }
                self.begin_with(must, &marks.open, "");
            }
            Syntax::Named(marks) => match only {
                Some(tool) => {
                    let open = format!("{}{}{}", marks.open, tool.name, marks.middle);
                    self.constraint =
                        constraint(schema::parameters(tool), vec![open.trim_start().to_owned()]);
                    self.begin_with(must, &open, &tool.name);
                }
                None => self.begin_with(must, &marks.open, ""),
            },
            Syntax::Tags(tags) => {
                let last = tags.last();
                let name = only.map_or(String::new(), |tool| format!("{}{}", tool.name, tags.name_close));
                let read = if tags.first() == last { name.clone() } else { format!("{last}{name}") };
                self.begin_with(must, &format!("{}{name}", tags.open), &read);
            }
            Syntax::Channels => {
                let begun = match only {
                    Some(tool) => {
                        let open = format!(
                            "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>",
                            tool.name
                        );
                        if must {
                            self.constraint = constraint(schema::parameters(tool), vec![open.clone()]);
                        }
                        open
                    }
                    None => "<|channel|>commentary to=functions.".to_owned(),
                };
                self.begin_with(must, &begun, &begun);
            }
        }
    }

    /// Puts the beginning of a call into the prompt; the reader is told what of it it has to read.
    fn begin_with(&mut self, must: bool, open: &str, read: &str) {
        if must {
            // A template may have written the white space that the mark begins with.
            let open = if self.prompt.ends_with(char::is_whitespace) { open.trim_start() } else { open };
            self.prompt += open;
            self.reader.begin_call(read);
        }
    }
}

/// The functions that the answer may call.
fn chosen(conversation: &Conversation) -> Result<Vec<Tool>> {
    let ToolChoice::Named(name) = &conversation.choice else { return Ok(conversation.callable().to_vec()) };
    let tool = conversation.tools.iter().find(|tool| tool.name == *name);
    let tool = tool.ok_or_else(|| {
        Error::new("invalid-input", format!("`tool_choice` names `{name}`, which is not among `tools`"))
    })?;
    Ok(vec![tool.clone()])
}

impl Learnt {
    fn of(syntax: Syntax) -> Self {
        Self { syntax, keys: ("name".into(), "arguments".into()) }
    }
}

/// For templates that do not know calls: as Hermes and Qwen write them, which other models may have seen.
fn generic() -> Learnt {
    Learnt::of(Syntax::Object(Marks {
        open: "<tool_call>\n".into(),
        middle: String::new(),
        between: "\n</tool_call>\n<tool_call>\n".into(),
        close: "\n</tool_call>".into(),
    }))
}

/// A conversation for a template that does not know calls: all in words.
fn told(conversation: &Conversation) -> Conversation {
    let mut messages: Vec<Message> = Vec::new();
    for message in &conversation.messages {
        let mut content = message.content.clone();
        for call in &message.calls {
            let call = template::json(&serde_json::json!({ "name": call.name, "arguments": call.arguments }));
            content += &format!("\n<tool_call>\n{call}\n</tool_call>");
        }
        let content = content.trim_start_matches('\n').to_owned();
        match (message.role.as_str(), messages.last_mut()) {
            ("tool", Some(last)) if last.role == "user" && last.content.starts_with("<tool_response>") => {
                last.content += &format!("\n<tool_response>\n{content}\n</tool_response>");
            }
            ("tool", _) => {
                messages.push(Message::new("user", format!("<tool_response>\n{content}\n</tool_response>")))
            }
            (role, _) => messages.push(Message::new(role, content)),
        }
    }
    let tools = conversation.callable();
    if !tools.is_empty() {
        let lines: Vec<String> = tools.iter().map(template::json).collect();
        let words = format!(
            "You may call functions. They are, each as JSON:\n<tools>\n{}\n</tools>\n\
             To call one, write a JSON object with its name and arguments within tags:\n\
             <tool_call>\n{{\"name\": <name>, \"arguments\": <object>}}\n</tool_call>",
            lines.join("\n")
        );
        match messages.first_mut().filter(|first| first.role == "system") {
            Some(system) => system.content += &format!("\n\n{words}"),
            None => messages.insert(0, Message::new("system", words)),
        }
    }
    Conversation { messages, tools: Vec::new(), ..conversation.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::{Call, Part};

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    const THINKS: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant><think>\n{% endif %}";

    fn text(template: &str) -> TextSignature {
        TextSignature { chat_template: Some(template.to_owned()), ..TextSignature::default() }
    }

    fn asking(choice: ToolChoice) -> Conversation {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: None,
            parameters: json!({ "type": "object" }),
            strict: false,
        };
        let tools = vec![tool("f"), tool("g")];
        Conversation { tools, choice, ..Conversation::from(vec![Message::new("user", "Call.")]) }
    }

    #[test]
    fn a_template_without_tools_is_told_of_them_in_words() {
        let mut conversation = asking(ToolChoice::Auto);
        let call = Call { id: "1".into(), name: "f".into(), arguments: json!({ "a": 1 }) };
        conversation.messages.push(Message { calls: vec![call], ..Message::new("assistant", "") });
        conversation.messages.push(Message::new("tool", "one"));
        conversation.messages.push(Message::new("tool", "two"));
        let answer = begin(&text(PLAIN), &conversation, false).unwrap();
        assert!(answer.prompt.starts_with("<system>You may call functions."), "{}", answer.prompt);
        assert!(
            answer.prompt.contains("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>")
        );
        assert!(answer.prompt.contains("<user><tool_response>\none\n</tool_response>\n<tool_response>\ntwo"));
        let constraint = answer.constraint.unwrap();
        assert_eq!((constraint.after, constraint.begun), (vec!["<tool_call>\n".to_owned()], false));
    }

    #[test]
    fn a_call_that_must_be_is_begun_in_the_prompt() {
        let mut answer = begin(&text(PLAIN), &asking(ToolChoice::Required), false).unwrap();
        assert!(answer.prompt.ends_with("<assistant><tool_call>\n"), "{}", answer.prompt);
        assert_eq!(answer.constraint.unwrap().after, [""; 0]);
        let parts = answer.reader.push(r#"{"name":"g","arguments":{}}"#);
        assert_eq!(parts[0], Part::Call { index: 0, name: "g".into() });
        let error = begin(&text(PLAIN), &asking(ToolChoice::Named("h".into())), false).unwrap_err();
        assert_eq!(error.code(), "invalid-input");
    }

    #[test]
    fn none_means_that_the_model_does_not_hear_of_tools() {
        let answer = begin(&text(PLAIN), &asking(ToolChoice::None), false).unwrap();
        assert_eq!((answer.prompt.as_str(), answer.constraint), ("<user>Call.\n<assistant>", None));
    }

    #[test]
    fn what_must_begin_at_once_is_not_thought_about() {
        let conversation = Conversation::from(vec![Message::new("user", "Think.")]);
        let mut free = begin(&text(THINKS), &conversation, false).unwrap();
        assert_eq!(free.reader.push("Hm"), [Part::Reasoning("Hm".into())]);
        let mut shaped = begin(&text(THINKS), &conversation, true).unwrap();
        assert!(shaped.prompt.ends_with("<think>\n\n</think>\n\n"), "{}", shaped.prompt);
        assert_eq!(shaped.reader.push("{}"), [Part::Content("{}".into())]);
    }
}
