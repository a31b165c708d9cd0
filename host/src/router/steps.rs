//! The rules that a decision looked at. Most decisions look at many, so this is small: names are those of the rules, and
//! what was found out about one is two words.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::Name;
use super::similar::Similar;

/// A condition of a rule, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the keys")]
pub enum Condition {
    Model,
    Task,
    MinTokens,
    MaxTokens,
    Has,
    Hours,
    Key,
    Language,
    Metadata,
    Header,
    Keywords,
    Regex,
    Intent,
    Similar,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A rule that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step<'s> {
    /// Its id.
    pub rule: &'s Name,
    /// The condition that the request does not meet; the rule applied when there is none.
    pub failed: Option<Condition>,
    /// How near the request is to the rule's examples, where everything else about it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similar: Option<&'s Similar>,
}

/// The rules that were looked at: the first of all, in order.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Of all rules, or of those that were looked at.
    rules: Arc<[Name]>,
    looked: Vec<(Option<Condition>, Option<Box<Similar>>)>,
}

impl Steps {
    /// None yet, of these rules.
    pub(super) fn new(rules: &Arc<[Name]>) -> Self {
        Self { rules: Arc::clone(rules), looked: Vec::with_capacity(rules.len()) }
    }

    /// What was found out about the next rule.
    pub(super) fn push(&mut self, failed: Option<Condition>, similar: Option<Similar>) {
        self.looked.push((failed, similar.map(Box::new)));
    }

    /// How many rules were looked at.
    pub fn len(&self) -> usize {
        self.looked.len()
    }

    /// Whether there was no rule to look at.
    pub fn is_empty(&self) -> bool {
        self.looked.is_empty()
    }

    /// The rule that applied: the last one that was looked at, if any did.
    pub(super) fn applied(&self) -> Option<&Name> {
        let (failed, _) = self.looked.last()?;
        self.rules.get(self.looked.len() - 1).filter(|_| failed.is_none())
    }

    /// Rule by rule.
    pub fn iter(&self) -> impl Iterator<Item = Step<'_>> {
        let all = self.rules.iter().zip(&self.looked);
        all.map(|(rule, (failed, similar))| Step { rule, failed: *failed, similar: similar.as_deref() })
    }
}

impl PartialEq for Steps {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Steps {}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            rule: Name,
            failed: Option<Condition>,
            similar: Option<Box<Similar>>,
        }
        let written = Vec::<Written>::deserialize(deserializer)?;
        let (rules, looked): (Vec<Name>, Vec<_>) =
            written.into_iter().map(|step| (step.rule, (step.failed, step.similar))).unzip();
        Ok(Self { rules: rules.into(), looked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_looked_at_and_is_read_again() {
        let rules: Arc<[Name]> = ["first", "second", "never"].map(Name::from).into();
        let mut steps = Steps::new(&rules);
        steps.push(Some(Condition::MinTokens), None);
        steps.push(None, Some(Similar { model: "small".to_owned(), score: Some(700), ..Similar::default() }));
        let written = serde_json::to_value(&steps).unwrap();
        assert_eq!(written[0], serde_json::json!({ "rule": "first", "failed": "min_tokens" }));
        assert_eq!((&written[1]["failed"], &written[1]["similar"]["score"]), (&().into(), &700.into()));
        let read: Steps = serde_json::from_value(written).unwrap();
        assert_eq!((read.len(), &read), (2, &steps));
        assert_eq!(steps.applied().map(|rule| &**rule), Some("second"));
        steps.push(None, None);
        assert_ne!(read, steps);
        assert_eq!(Condition::MaxTokens.to_string(), "max_tokens");
    }
}
