//! What of a model decides how much memory it needs and how fast it can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Task;

/// A model, as far as a recommendation looks at it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// The id that it would have in the configuration.
    pub id: String,
    /// Where it lies.
    pub path: String,
    /// Its format, for example `gguf`.
    pub format: String,
    /// Its precision, where that is known.
    pub precision: Option<String>,
    /// What it is for, where that is known.
    pub task: Option<Task>,
    /// Bytes of its weights.
    pub bytes: u64,
    /// How it is built, when it is a model for text that was described.
    pub text: Option<TextFacts>,
    /// Bytes that it would have in other precisions, roughly.
    pub sizes: BTreeMap<String, u64>,
}

/// How a model for text is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFacts {
    /// Layers.
    pub layers: u32,
    /// Elements of what passes from layer to layer.
    pub hidden_size: u32,
    /// Words it knows.
    pub vocabulary: u32,
    /// Heads of keys and values.
    pub key_value_heads: u32,
    /// Elements of a head.
    pub head_size: u32,
    /// How far windowed layers look.
    pub window: Option<u32>,
    /// Layers that look no further than the window.
    pub windowed_layers: u32,
    /// Tokens that it was trained to look back on.
    pub context: u32,
    /// Parameters.
    pub parameters: u64,
    /// Parameters that one token passes through.
    pub active: u64,
    /// Parameters of embeddings and output.
    pub embeddings: u64,
    /// Whether the output is the embeddings.
    pub tied: bool,
    /// Whether it reads a text at once, and keeps no cache.
    pub encoder: bool,
}

/// What `pajamas info` prints.
#[derive(Deserialize)]
struct Described {
    name: Option<String>,
    precision: Option<String>,
    task: Option<String>,
    family: String,
    attention: Attention,
    layers: u32,
    hidden_size: u32,
    context: u32,
    vocabulary: u32,
    tied_embeddings: bool,
    parameters: Parameters,
    file_bytes: u64,
    #[serde(default)]
    bytes: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Attention {
    key_value_heads: u32,
    head_size: u32,
    window: Option<u32>,
    windowed_layers: u32,
}

#[derive(Deserialize)]
struct Parameters {
    total: u64,
    active: u64,
    non_embedding: u64,
}

impl ModelFacts {
    /// A file of which only the size is known.
    pub fn of_size(id: &str, path: &str, format: &str, bytes: u64) -> Self {
        Self {
            id: id_of(id),
            path: path.to_owned(),
            format: format.to_owned(),
            precision: None,
            task: None,
            bytes,
            text: None,
            sizes: BTreeMap::new(),
        }
    }

    /// The same with what `pajamas info --json` says of it. What is not understood is left unknown.
    #[must_use]
    pub fn described(self, description: &Value) -> Self {
        let Ok(known) = Described::deserialize(description) else { return self };
        let text = TextFacts {
            layers: known.layers,
            hidden_size: known.hidden_size,
            vocabulary: known.vocabulary,
            key_value_heads: known.attention.key_value_heads,
            head_size: known.attention.head_size,
            window: known.attention.window,
            windowed_layers: known.attention.windowed_layers.min(known.layers),
            context: known.context,
            parameters: known.parameters.total,
            active: known.parameters.active.min(known.parameters.total),
            embeddings: known.parameters.total.saturating_sub(known.parameters.non_embedding),
            tied: known.tied_embeddings,
            encoder: known.family == "encoder",
        };
        let usable = text.layers > 0 && text.context > 0 && text.parameters > 0;
        Self {
            id: known.name.as_deref().map_or(self.id, id_of),
            precision: known.precision.or(self.precision),
            task: self
                .task
                .or_else(|| Task::ALL.into_iter().find(|task| Some(task.name()) == known.task.as_deref())),
            bytes: known.file_bytes.max(1),
            text: usable.then_some(text),
            sizes: known.bytes,
            ..self
        }
    }
}

/// A name made an id: of letters, digits, `.`, `_` and `-`.
fn id_of(name: &str) -> String {
    let kept =
        |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' };
    let id: String = name.trim().chars().map(kept).collect();
    let id = id.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if id.is_empty() { "model".to_owned() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_an_id() {
        for (name, id) in
            [("Meta Llama 3.1/8B", "meta-llama-3.1-8b"), ("-x-", "x"), ("", "model"), ("模型", "model")]
        {
            assert_eq!(id_of(name), id);
            assert!(id.parse::<crate::config::Id>().is_ok());
        }
    }
}
