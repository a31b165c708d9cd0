//! A decision as it is kept: with all that is needed to make it again.

use serde::{Deserialize, Serialize};

use super::{Ask, Decision, Snapshot};

/// A decision with what it was made of. Made again under the same rules it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The request's id, where it has one.
    #[serde(default)]
    pub request: Option<String>,
    /// Which [`Rules`](super::Rules) it was made under: their fingerprint.
    pub rules: String,
    /// What was asked.
    pub ask: Ask,
    /// What was to choose from.
    pub snapshot: Snapshot,
    /// What was decided.
    pub decision: Decision,
    /// What became of the request; missing as long as it runs.
    #[serde(default)]
    pub outcome: Option<Ended>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// `ok`, or the error's code.
    pub code: String,
    /// Microseconds from the decision to the end.
    pub took: u64,
}
