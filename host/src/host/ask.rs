//! What the router is asked about a request, and what tells where a request like it went before.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::Prompt;

use crate::chat::Conversation;
use crate::config::{Affinity, Feature, Task};
use crate::pipeline::{Input, Request};
use crate::router::Ask;

/// Bytes of the user's words that rules look at.
const MOST_WORDS: usize = 16 << 10;
/// Bytes of the beginning that requests with one prefix share.
const PREFIX: usize = 4 << 10;

/// What the router is asked about a request.
pub fn ask(request: &Request) -> Ask {
    let Request { task, model, input, params } = request;
    let hints = &params.hints;
    let mut ask = Ask {
        answer: params.max_tokens,
        deadline: hints.deadline.map(|deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX)),
        language: hints.language.clone(),
        key: hints.key.clone(),
        metadata: hints.metadata.clone(),
        headers: hints.headers.clone(),
        minute: minute(),
        ..Ask::new(*task, model.as_deref())
    };
    match input {
        Input::Conversation(conversation) => {
            ask.tokens = of_conversation(conversation);
            let last = conversation.messages.iter().rev().find(|message| message.role == "user");
            ask.text = last.map(|message| beginning(&message.content, MOST_WORDS).to_owned());
            if !conversation.callable().is_empty() {
                ask.has.push(Feature::Tools);
            }
        }
        Input::Prompt(prompt) => {
            ask.tokens = of_prompt(prompt);
            ask.text = words(prompt).map(|text| beginning(text, MOST_WORDS).to_owned());
        }
        Input::Texts(prompts) => {
            ask.tokens = prompts.iter().map(of_prompt).fold(0, u32::saturating_add);
            ask.text = prompts.first().and_then(words).map(|text| beginning(text, MOST_WORDS).to_owned());
        }
        Input::Values(_) => ask.has.push(match task {
            Task::Transcribe => Feature::Audio,
            _ => Feature::Images,
        }),
    }
    if params.constraint.is_some() {
        ask.has.push(Feature::Schema);
    }
    ask
}

/// Minutes since midnight, in UTC.
fn minute() -> u16 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u16::try_from(now / 60 % (24 * 60)).unwrap_or(0)
}

/// Tokens of a text, as nearly as can be said without the model's tokenizer: one for four letters of ASCII, and one for
/// each other character.
fn estimate(text: &str) -> u32 {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let others = text.chars().count() - ascii;
    u32::try_from(ascii.div_ceil(4) + others).unwrap_or(u32::MAX)
}

fn of_conversation(conversation: &Conversation) -> u32 {
    let turns = conversation.messages.iter().map(|message| {
        let calls = message.calls.iter().map(|call| estimate(&call.arguments.to_string()));
        calls.fold(estimate(&message.content), u32::saturating_add)
    });
    let tools = conversation.callable().iter().map(|tool| {
        let words = tool.description.as_deref().unwrap_or_default();
        estimate(&tool.parameters.to_string()).saturating_add(estimate(words))
    });
    turns.chain(tools).fold(0, u32::saturating_add)
}

fn of_prompt(prompt: &Prompt) -> u32 {
    match prompt {
        Prompt::Text { text, .. } => estimate(text),
        Prompt::Tokens(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
        Prompt::Infill { prefix, suffix } => estimate(prefix).saturating_add(estimate(suffix)),
        Prompt::Pair { query, document } => estimate(query).saturating_add(estimate(document)),
        _ => 0,
    }
}

fn words(prompt: &Prompt) -> Option<&str> {
    match prompt {
        Prompt::Text { text, .. } => Some(text),
        Prompt::Infill { prefix, .. } => Some(prefix),
        Prompt::Pair { query, .. } => Some(query),
        _ => None,
    }
}

pub(super) fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// What requests that should go to one model have in common: their session, or what they begin with.
pub(super) fn common(request: &Request, affinity: Affinity) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    request.task.hash(&mut hasher);
    match (affinity, &request.input) {
        (Affinity::Session, _) => request.params.hints.session.as_ref()?.hash(&mut hasher),
        (Affinity::Prefix, Input::Conversation(conversation)) => {
            let first = conversation.messages.iter().position(|message| message.role == "user")?;
            for message in &conversation.messages[..=first] {
                message.role.hash(&mut hasher);
                beginning(&message.content, PREFIX).hash(&mut hasher);
            }
        }
        (Affinity::Prefix, Input::Prompt(Prompt::Text { text, .. })) => {
            beginning(text, PREFIX).hash(&mut hasher);
        }
        (Affinity::Prefix, _) => return None,
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::pipeline::Params;

    fn request(messages: &[(&str, &str)]) -> Request {
        let messages: Vec<Message> =
            messages.iter().map(|(role, words)| Message::new(*role, *words)).collect();
        let input = Input::Conversation(Conversation::from(messages));
        Request { task: Task::Chat, model: None, input, params: Params::default() }
    }

    #[test]
    fn rules_look_at_what_the_user_said_last() {
        let ask = ask(&request(&[
            ("system", "Be brief."),
            ("user", "one"),
            ("assistant", "two"),
            ("user", "three"),
        ]));
        assert_eq!(ask.text.as_deref(), Some("three"));
        assert_eq!(ask.tokens, 3 + 1 + 1 + 2);
        assert!(ask.has.is_empty());
    }

    #[test]
    fn tokens_are_estimated_by_script() {
        assert_eq!((estimate(""), estimate("four"), estimate("fives")), (0, 1, 2));
        assert_eq!(estimate("你好"), 2);
    }

    #[test]
    fn a_cut_is_never_inside_a_character() {
        assert_eq!(beginning("aé", 2), "a");
        assert_eq!(beginning("aé", 9), "aé");
    }

    #[test]
    fn what_goes_on_begins_as_before() {
        let first = request(&[("system", "s"), ("user", "u")]);
        let later = request(&[("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v")]);
        let other = request(&[("system", "s"), ("user", "v")]);
        let prefix = |request| common(request, Affinity::Prefix);
        assert_eq!(prefix(&first), prefix(&later));
        assert_ne!(prefix(&first), prefix(&other));
        assert_eq!(common(&first, Affinity::Session), None);
    }
}
