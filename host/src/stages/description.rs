//! What a stage says about itself.

use serde::Serialize;

use super::bindings::exports::pajamas::stage::processing as wit;
use super::convert;
use crate::value::Kind;
use crate::{Error, Result};

/// Who a stage is, what it takes, what it leaves, and its options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// The stage's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub doc: String,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it leaves.
    pub outputs: Vec<Port>,
    /// JSON Schema of its options.
    pub options_schema: serde_json::Value,
}

/// An input or output: the name under which a value is looked for or left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The value's name.
    pub name: String,
    /// The value's kind.
    pub kind: Kind,
    /// Whether the value may be missing.
    pub optional: bool,
    /// What it is.
    pub doc: String,
}

impl Description {
    /// Takes over what a component returned; `stage` is the name under which it was loaded.
    pub(super) fn new(stage: &str, from: wit::Description) -> Result<Self> {
        let options_schema = serde_json::from_str(&from.options_schema).map_err(|error| {
            Error::new("stage-invalid", format!("stage {stage}: its options schema is not JSON: {error}"))
        })?;
        Ok(Self {
            name: from.name,
            version: from.version,
            doc: from.doc,
            inputs: from.inputs.into_iter().map(Port::from).collect(),
            outputs: from.outputs.into_iter().map(Port::from).collect(),
            options_schema,
        })
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The output of this name.
    pub fn output(&self, name: &str) -> Option<&Port> {
        self.outputs.iter().find(|port| port.name == name)
    }
}

impl From<wit::Port> for Port {
    fn from(port: wit::Port) -> Self {
        Self { name: port.name, kind: convert::kind(port.kind), optional: port.optional, doc: port.doc }
    }
}
