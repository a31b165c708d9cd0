//! A response as an object, and what it is made of.

use pajamas_plugin_api::{FinishReason, GenerateSummary, Usage};
use serde_json::{Value, json};

use crate::server::openai::identity;
use crate::server::stream::Said;

/// The fields that every object of one answer shares.
pub struct Answer {
    pub id: String,
    pub created: u64,
    pub model: String,
    /// What was said, thought and called so far; the last may not be whole.
    pub items: Vec<Item>,
}

/// One item of the answer.
pub struct Item {
    pub id: String,
    pub kind: Kind,
    /// The text, the thought or the arguments.
    pub text: String,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    Message,
    Reasoning,
    /// A call of this function, with the id that its result will name.
    Call(String, String),
}

impl Item {
    pub fn new(kind: Kind) -> Self {
        let prefix = match &kind {
            Kind::Message => "msg_",
            Kind::Reasoning => "rs_",
            Kind::Call(..) => "fc_",
        };
        Self { id: identity(prefix).0, kind, text: String::new() }
    }

    pub fn call(name: &str) -> Self {
        Self::new(Kind::Call(name.to_owned(), identity("call_").0))
    }

    /// The item with its text, or as it begins.
    pub fn object(&self, status: &str) -> Value {
        let begun = status == "in_progress";
        match &self.kind {
            Kind::Message => {
                let content = if begun { json!([]) } else { json!([part(&self.text)]) };
                json!({ "id": self.id, "type": "message", "role": "assistant", "status": status, "content": content })
            }
            Kind::Reasoning => {
                let content =
                    if begun { json!([]) } else { json!([{ "type": "reasoning_text", "text": self.text }]) };
                json!({ "id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status })
            }
            Kind::Call(name, call_id) => {
                let arguments = if begun { "" } else { &*self.text };
                json!({ "id": self.id, "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, "status": status })
            }
        }
    }
}

/// The items of a whole answer.
pub fn items(said: &Said) -> Vec<Item> {
    let mut items = Vec::new();
    if !said.reasoning.is_empty() {
        items.push(Item { text: said.reasoning.clone(), ..Item::new(Kind::Reasoning) });
    }
    if !said.content.is_empty() || said.calls.is_empty() {
        items.push(Item { text: said.content.clone(), ..Item::new(Kind::Message) });
    }
    items.extend(said.calls.iter().map(|(name, text)| Item { text: text.clone(), ..Item::call(name) }));
    items
}

impl Answer {
    pub fn new() -> Self {
        let (id, created) = identity("resp_");
        Self { id, created, model: String::new(), items: Vec::new() }
    }

    pub fn object(&self, status: &str, output: Value) -> Value {
        json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": output,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "parallel_tool_calls": true,
            "tool_choice": "auto",
            "tools": [],
            "temperature": null,
            "top_p": null,
            "usage": null,
        })
    }

    pub fn whole(&self, summary: &GenerateSummary) -> Value {
        let cut = summary.finish_reason == FinishReason::Length;
        let status = if cut { "incomplete" } else { "completed" };
        let last = self.items.len().saturating_sub(1);
        let item =
            |(index, item): (usize, &Item)| item.object(if index == last { status } else { "completed" });
        let mut object = self.object(status, self.items.iter().enumerate().map(item).collect());
        if cut {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        object["usage"] = usage(summary.usage);
        object
    }
}

/// The one part of a message.
pub fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens.saturating_add(usage.completion_tokens),
    })
}
