//! Conversations that a session answers by itself, because the template is its own: the extension `pajamas.chat/1`.

use pajamas_plugin_api::GenerateRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::{Conversation, Message, Tool, ToolChoice};

/// What a session that answers conversations has among its capabilities.
pub const CAPABILITY: &str = "chat";
/// The name of the extension that does it.
pub const EXTENSION: &str = "pajamas.chat/1";
/// The event that tells a token: [`Said`].
pub const TOKEN: &str = "token";
/// The event that tells a [`Part`](super::Part) of the answer.
pub const PART: &str = "part";

/// What the extension is given. Messages and functions are as OpenAI's API has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The turns, the oldest first.
    pub messages: Vec<Value>,
    /// The functions that the answer may call.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// `auto`, `none`, `required`, or the object that names one.
    pub tool_choice: Value,
    /// Whether it may call several at once.
    pub parallel: bool,
    /// Variables for the template.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// How the answer is made; its prompt is empty.
    pub generate: GenerateRequest,
}

/// A token of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The text it adds.
    pub text: String,
    /// Natural logarithm of its probability, when asked for.
    pub logprob: Option<f32>,
    /// JSON with more; usually empty.
    #[serde(default)]
    pub extras: String,
}

impl Question {
    /// A conversation that is to be answered so.
    pub fn new(conversation: &Conversation, generate: GenerateRequest) -> Self {
        let Conversation { messages, tools, choice, parallel, variables } = conversation;
        Self {
            messages: messages.iter().map(turn).collect(),
            tools: tools.iter().map(function).collect(),
            tool_choice: match choice {
                ToolChoice::Auto => json!("auto"),
                ToolChoice::None => json!("none"),
                ToolChoice::Required => json!("required"),
                ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
            },
            parallel: *parallel,
            variables: variables.clone(),
            generate,
        }
    }
}

/// Templates want the arguments of a call as an object, and OpenAI's API as a text.
fn turn(message: &Message) -> Value {
    let mut turn = json!(message);
    let calls = turn.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        let arguments = call["function"]["arguments"].take();
        call["function"]["arguments"] = match arguments {
            Value::String(text) => Value::String(text),
            object => Value::String(object.to_string()),
        };
    }
    turn
}

fn function(tool: &Tool) -> Value {
    let mut function = json!(tool);
    if tool.strict {
        function["function"]["strict"] = json!(true);
    }
    function
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Prompt;

    use super::super::conversation::Call;
    use super::*;

    #[test]
    fn a_conversation_is_written_as_openais_api_has_it() {
        let call = Call { id: "1".into(), name: "f".into(), arguments: json!({ "a": 1 }) };
        let tool = Tool { name: "f".into(), description: None, parameters: json!({}), strict: true };
        let conversation = Conversation {
            messages: vec![
                Message::new("user", "Call."),
                Message { calls: vec![call], ..Message::new("assistant", "") },
                Message { call_id: Some("1".into()), ..Message::new("tool", "2") },
            ],
            tools: vec![tool],
            choice: ToolChoice::Named("f".into()),
            ..Conversation::default()
        };
        let question = Question::new(&conversation, GenerateRequest::new(Prompt::text("")));
        assert_eq!(
            json!(question.messages),
            json!([
                { "role": "user", "content": "Call." },
                { "role": "assistant", "content": "", "tool_calls": [
                    { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
                ] },
                { "role": "tool", "content": "2", "tool_call_id": "1" },
            ])
        );
        assert_eq!(question.tools[0]["function"]["strict"], true);
        assert_eq!(question.tool_choice["function"]["name"], "f");
        let again: Question = serde_json::from_slice(&serde_json::to_vec(&question).unwrap()).unwrap();
        assert_eq!(again, question);
    }
}
