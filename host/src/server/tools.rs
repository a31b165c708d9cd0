//! Functions that an answer may call, in the shapes of all three families.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::chat::{Conversation, Tool, ToolChoice};
use crate::error::{Error, Result};

/// The most functions: OpenAI's limit.
const MOST_TOOLS: usize = 128;
/// The longest name.
const LONGEST_NAME: usize = 128;

/// The fields about calls and about the model's template, read from the same body as those of the family.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tools {
    tools: Option<Vec<Value>>,
    tool_choice: Value,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    #[serde(rename = "type")]
    kind: String,
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
        conversation.tools =
            tools.into_iter().enumerate().map(|(index, value)| tool(index, value)).collect::<Result<_>>()?;
        conversation.choice = choice(&self.tool_choice)?;
        if conversation.tools.is_empty()
            && matches!(conversation.choice, ToolChoice::Required | ToolChoice::Named(_))
        {
            return Err(invalid("`tool_choice` wants a call, and there are no `tools`".into()));
        }
        let alone = self.tool_choice["disable_parallel_tool_use"].as_bool().map(|alone| !alone);
        conversation.parallel = self.parallel_tool_calls.or(alone).unwrap_or(true);
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

/// One function: OpenAI's with `function`, OpenAI's newer one without, or Anthropic's with `input_schema`.
fn tool(index: usize, mut value: Value) -> Result<Tool> {
    let place = format!("tools[{index}]");
    let kind = value["type"].as_str().unwrap_or("function").to_owned();
    if !matches!(&*kind, "function" | "custom") || (kind == "custom" && value["input_schema"].is_null()) {
        return Err(Error::new(
            "unsupported",
            format!("`{place}.type`: tools of type `{kind}` are not known"),
        )
        .help("tools of type `function`, which the client carries out"));
    }
    let (place, mut function) = match value["function"].take() {
        function @ Value::Object(_) => (format!("{place}.function"), function),
        _ => (place, value),
    };
    let name = function["name"].as_str().unwrap_or_default().to_owned();
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(invalid(format!(
            "`{place}.name`: 1 to {LONGEST_NAME} letters, digits, `_`, `-`, `.` or `/`"
        )));
    }
    let schema = ["parameters", "input_schema"].map(|key| function[key].take());
    let parameters = schema.into_iter().find(|schema| !schema.is_null()).unwrap_or_else(|| json!({}));
    if !parameters.is_object() {
        return Err(invalid(format!("`{place}.parameters` is no JSON Schema of an object")));
    }
    let empty = parameters.as_object().is_some_and(Map::is_empty);
    Ok(Tool {
        name,
        description: function["description"].as_str().map(str::to_owned),
        parameters: if empty { json!({ "type": "object", "properties": {} }) } else { parameters },
        strict: function["strict"].as_bool().unwrap_or(false),
    })
}

fn choice(value: &Value) -> Result<ToolChoice> {
    let kind = value.as_str().or_else(|| value["type"].as_str());
    let name = value["function"]["name"].as_str().or_else(|| value["name"].as_str());
    match (kind, name) {
        (None, _) if value.is_null() => Ok(ToolChoice::Auto),
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("required" | "any"), _) => Ok(ToolChoice::Required),
        (Some("function" | "tool"), Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(invalid(
            "`tool_choice`: auto, none, required, or an object with the name of a function".into(),
        )),
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
        serde_json::from_value::<Tools>(body).unwrap().apply(&mut conversation)?;
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
            (json!({ "tool_choice": "sometimes" }), "tool_choice"),
            (json!({ "tool_choice": "required" }), "tool_choice"),
        ] {
            let error = apply(body.clone()).unwrap_err();
            assert!(error.message().contains(words), "{body}: {error}");
        }
    }
}
