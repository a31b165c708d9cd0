//! A conversation, in the words that chat templates know.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// All that a model is told before it answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The turns, the oldest first.
    pub messages: Vec<Message>,
    /// The functions that the answer may call.
    pub tools: Vec<Tool>,
    /// Whether it may, or must.
    pub choice: ToolChoice,
    /// Whether it may call several at once.
    pub parallel: bool,
    /// Variables for the model's template beside the usual ones, for example `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, parallel: true, ..Self::default() }
    }
}

impl Conversation {
    /// The functions that the answer may call.
    pub fn callable(&self) -> &[Tool] {
        if self.choice == ToolChoice::None { &[] } else { &self.tools }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`, or what else the model's template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// What the assistant thought before it said that.
    #[serde(rename = "reasoning_content", skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// What the assistant called.
    #[serde(rename = "tool_calls", skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// Which call a tool answers.
    #[serde(rename = "tool_call_id", skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Which tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A turn of words only.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What the tool's answer will refer to.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: an object, or the text that was meant to be one.
    pub arguments: Value,
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let function = json!({ "name": self.name, "arguments": self.arguments });
        json!({ "id": self.id, "type": "function", "function": function }).serialize(serializer)
    }
}

/// A function that a model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
    /// Whether a schema that cannot be enforced to the letter is refused.
    pub strict: bool,
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut function = json!({ "name": self.name });
        if let Some(description) = &self.description {
            function["description"] = json!(description);
        }
        function["parameters"] = self.parameters.clone();
        json!({ "type": "function", "function": function }).serialize(serializer)
    }
}

/// Whether an answer calls functions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// No.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}
