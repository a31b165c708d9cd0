//! What is wrong with a configuration: every problem at once, each with its place, its line and its remedy.

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;

use super::origin::Origin;
use crate::error::Error;

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Problem {
    code: &'static str,
    message: String,
    help: String,
    origin: Origin,
}

impl Problem {
    /// `message` says what is wrong without saying where: `origin` does.
    pub(super) fn new(code: &'static str, origin: &Origin, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: String::new(), origin: origin.clone() }
    }

    /// Adds how to fix it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The stable code, `config-…`.
    pub fn code(&self) -> &str {
        self.code
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to fix it; empty when there is nothing to say.
    pub fn how_to_fix(&self) -> &str {
        &self.help
    }

    /// Where it was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Place, message and the line in question, without the remedy.
    fn statement(&self) -> String {
        match &self.origin {
            Origin::Default => self.message.clone(),
            Origin::File(place) => format!(
                "{}:{}:{}: {}\n{}",
                place.path().display(),
                place.line(),
                place.column(),
                self.message,
                place.excerpt()
            ),
            origin => format!("{origin}: {}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.statement())?;
        if !self.help.is_empty() {
            write!(f, "\n  = help: {}", self.help)?;
        }
        Ok(())
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let place = self.origin.place();
        let mut s = serializer.serialize_struct("Problem", 7)?;
        s.serialize_field("code", self.code)?;
        s.serialize_field("message", &self.message)?;
        s.serialize_field("help", &self.help)?;
        s.serialize_field("source", &self.origin.to_string())?;
        s.serialize_field("file", &place.map(|p| p.path()))?;
        s.serialize_field("line", &place.map(|p| p.line()))?;
        s.serialize_field("column", &place.map(|p| p.column()))?;
        s.end()
    }
}

/// All that is wrong with a configuration, in reading order. Never empty once it is an error.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// `value` when there are no problems.
    pub(super) fn none_or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|p| p.origin.place().map(|place| place.offset()));
        Err(self)
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each problem, in reading order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    /// One problem keeps its code. Several become one error, under their common code or else `config-invalid`.
    fn from(problems: Problems) -> Self {
        match problems.0.as_slice() {
            [only] => Self::new(only.code, only.statement()).help(&only.help),
            all => {
                let code = all.first().map_or("config-invalid", |first| first.code);
                let code = if all.iter().all(|p| p.code == code) { code } else { "config-invalid" };
                Self::new(code, format!("{} problems in the configuration\n\n{problems}\n", all.len()))
            }
        }
    }
}
