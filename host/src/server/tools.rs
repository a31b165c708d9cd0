//! Functions that an answer may call, in the shapes of all three families.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::chat::{Conversation, Tool, ToolChoice};
use crate::error::{Error, Result};

/// The most functions: OpenAI's limit.
const MOST_TOOLS: usize = 128;
/// The longest name.
const LONGEST_NAME: usize = 128;

/// The fields about calls and about the model's template, read from the same body as those of the family.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tools {
    /// The functions that may be called.
    tools: Option<Vec<Written>>,
    /// Whether one has to be called, and which.
    tool_choice: Option<Choice>,
    parallel_tool_calls: Option<bool>,
    /// Variables for the model's template, as llama-server and vLLM take them.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// OpenAI's: `low`, `medium`, `high`.
    reasoning_effort: Option<String>,
    /// Where OpenAI's responses have it.
    reasoning: Option<Reasoning>,
    /// Anthropic's.
    thinking: Option<Thinking>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
}

/// A function: OpenAI's with `function`, OpenAI's newer one without, or Anthropic's with `input_schema`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Tool")]
struct Written {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Box<Self>>,
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    input_schema: Option<Map<String, Value>>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "auto, none, required, or an object with the name of a function")]
#[schemars(rename = "ToolChoice")]
enum Choice {
    Word(Kind),
    Object(ChosenTool),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ToolChoiceKind")]
enum Kind {
    Auto,
    None,
    Required,
    Any,
    Function,
    Tool,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ChosenTool {
    #[serde(rename = "type")]
    kind: Kind,
    name: Option<String>,
    function: Option<ChosenFunction>,
    /// Anthropic's.
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct ChosenFunction {
    name: String,
}

impl Tools {
    /// Adds what was asked for to a conversation.
    ///
    /// # Errors
    /// `invalid-input` with the place; `unsupported` for tools that a server would have to carry out itself.
    pub fn apply(self, conversation: &mut Conversation) -> Result<()> {
        let tools = self.tools.unwrap_or_default();
        if tools.len() > MOST_TOOLS {
            return Err(invalid(format!("`tools`: {} are more than {MOST_TOOLS}", tools.len())));
        }
        conversation.tools = tools
            .into_iter()
            .enumerate()
            .map(|(index, written)| written.tool(index))
            .collect::<Result<_>>()?;
        let alone = self.tool_choice.as_ref().and_then(Choice::alone);
        conversation.choice = self.tool_choice.map_or(Ok(ToolChoice::Auto), Choice::read)?;
        if conversation.tools.is_empty()
            && matches!(conversation.choice, ToolChoice::Required | ToolChoice::Named(_))
        {
            return Err(invalid("`tool_choice` wants a call, and there are no `tools`".into()));
        }
        conversation.parallel = self.parallel_tool_calls.or(alone.map(|alone| !alone)).unwrap_or(true);
        let effort = self.reasoning_effort.or_else(|| self.reasoning.and_then(|r| r.effort));
        if let Some(effort) = effort {
            conversation.variables.insert("enable_thinking".into(), json!(effort != "none"));
            conversation.variables.insert("reasoning_effort".into(), json!(effort));
        }
        if let Some(thinking) = self.thinking {
            conversation.variables.insert("enable_thinking".into(), json!(thinking.kind != "disabled"));
        }
        conversation.variables.extend(self.chat_template_kwargs.unwrap_or_default());
        Ok(())
    }
}

impl Written {
    fn tool(self, index: usize) -> Result<Tool> {
        let place = format!("tools[{index}]");
        let kind = self.kind.as_deref().unwrap_or("function");
        if !matches!(kind, "function" | "custom") || (kind == "custom" && self.input_schema.is_none()) {
            return Err(Error::new(
                "unsupported",
                format!("`{place}.type`: tools of type `{kind}` are not known"),
            )
            .help("tools of type `function`, which the client carries out"));
        }
        let (place, function) = match self.function {
            Some(function) => (format!("{place}.function"), *function),
            None => (place, self),
        };
        let name = function.name.unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
            return Err(invalid(format!(
                "`{place}.name`: 1 to {LONGEST_NAME} letters, digits, `_`, `-`, `.` or `/`"
            )));
        }
        let schema = function.parameters.or(function.input_schema).filter(|schema| !schema.is_empty());
        Ok(Tool {
            name,
            description: function.description,
            parameters: schema.map_or_else(|| json!({ "type": "object", "properties": {} }), Value::Object),
            strict: function.strict.unwrap_or(false),
        })
    }
}

impl Choice {
    /// Whether only one function may be called at a time.
    fn alone(&self) -> Option<bool> {
        match self {
            Self::Word(_) => None,
            Self::Object(chosen) => chosen.disable_parallel_tool_use,
        }
    }

    fn read(self) -> Result<ToolChoice> {
        let (kind, name) = match self {
            Self::Word(kind) => (kind, None),
            Self::Object(chosen) => (chosen.kind, chosen.function.map(|f| f.name).or(chosen.name)),
        };
        match (kind, name) {
            (Kind::Auto, _) => Ok(ToolChoice::Auto),
            (Kind::None, _) => Ok(ToolChoice::None),
            (Kind::Required | Kind::Any, _) => Ok(ToolChoice::Required),
            (Kind::Function | Kind::Tool, Some(name)) => Ok(ToolChoice::Named(name)),
            (Kind::Function | Kind::Tool, None) => {
                Err(invalid("`tool_choice` lacks the name of a function".into()))
            }
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new("invalid-input", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(body: Value) -> Result<Conversation> {
        let mut conversation = Conversation::default();
        crate::server::body::json::<Tools>(body.to_string().as_bytes())?.apply(&mut conversation)?;
        Ok(conversation)
    }

    #[test]
    fn all_families_write_the_same_function() {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        let chat = json!({ "type": "function", "function": { "name": "f", "description": "d", "parameters": schema } });
        let responses = json!({ "type": "function", "name": "f", "description": "d", "parameters": schema });
        let messages = json!({ "name": "f", "description": "d", "input_schema": schema });
        let tools = apply(json!({ "tools": [chat, responses, messages] })).unwrap().tools;
        assert_eq!(tools[0].parameters, schema);
        assert_eq!((&tools[0], &tools[0]), (&tools[1], &tools[2]));
    }

    #[test]
    fn all_families_write_the_same_choice() {
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        let choice = |choice: Value| apply(json!({ "tools": tools, "tool_choice": choice })).unwrap().choice;
        assert_eq!(choice(json!("auto")), ToolChoice::Auto);
        assert_eq!(choice(Value::Null), ToolChoice::Auto);
        assert_eq!(choice(json!("required")), ToolChoice::Required);
        assert_eq!(choice(json!({ "type": "any" })), ToolChoice::Required);
        let named = ToolChoice::Named("f".into());
        assert_eq!(choice(json!({ "type": "function", "function": { "name": "f" } })), named);
        assert_eq!(choice(json!({ "type": "tool", "name": "f" })), named);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, words) in [
            (json!({ "tools": [{ "type": "function", "function": {} }] }), "tools[0].function.name"),
            (json!({ "tools": [{ "name": "a b" }] }), "tools[0].name"),
            (json!({ "tools": [{ "name": "f", "parameters": 3 }] }), "tools[0].parameters"),
            (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
            (json!({ "tools": [{ "name": "f", "description": 3 }] }), "tools[0].description"),
            (json!({ "tools": ["f"] }), "tools[0]"),
            (json!({ "tool_choice": "sometimes" }), "tool_choice"),
            (json!({ "tool_choice": "required" }), "tool_choice"),
        ] {
            let error = apply(body.clone()).unwrap_err();
            assert!(error.message().contains(words), "{body}: {error}");
        }
    }
}
