//! What is asked of the router.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::intent::Intent;
use super::similar::Similar;
use crate::config::{Feature, Task};

/// A request, as far as a decision looks at it. Its JSON can be decided on again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What is asked for.
    pub task: Task,
    /// The name that was asked for: of a model, a ladder, an alias, or one that a rule knows.
    #[serde(default)]
    pub model: Option<String>,
    /// Tokens of all that is sent, as estimated.
    #[serde(default)]
    pub tokens: u32,
    /// The most tokens of the answer, where somebody said.
    #[serde(default)]
    pub answer: Option<u32>,
    /// Microseconds that the answer may take, where the client said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// What it comes with.
    #[serde(default)]
    pub has: Vec<Feature>,
    /// The language that the client prefers, for example `de`.
    #[serde(default)]
    pub language: Option<String>,
    /// The name of the key that it was sent with.
    #[serde(default)]
    pub key: Option<String>,
    /// Its metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The headers that rules look at, by their names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// When it came: minutes since midnight, in UTC.
    #[serde(default)]
    pub minute: u16,
    /// What the user said last. In its place a record may have [`words`](Self::words) alone.
    #[serde(default)]
    pub text: Option<String>,
    /// What that text wants, where somebody found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// How near that text is to examples, where somebody found out, by the names of the comparisons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub similar: BTreeMap<String, Similar>,
    /// Whether the words of conditions were in the text, by condition.
    #[serde(default)]
    pub words: BTreeMap<String, bool>,
}

impl Ask {
    /// An ask for a task, of which nothing else is known.
    pub fn new(task: Task, model: Option<&str>) -> Self {
        Self {
            task,
            model: model.map(str::to_owned),
            tokens: 0,
            answer: None,
            deadline: None,
            has: Vec::new(),
            language: None,
            key: None,
            metadata: BTreeMap::new(),
            headers: BTreeMap::new(),
            minute: 0,
            text: None,
            intent: None,
            similar: BTreeMap::new(),
            words: BTreeMap::new(),
        }
    }
}
