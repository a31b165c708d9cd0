//! What a stage says about itself.

use serde_json::{Value as Json, json};

use crate::Kind;
use crate::bindings::exports::pajamas::stage::processing as wit;

/// Who a stage is, what it takes, what it leaves, and its options.
#[derive(Debug, Clone)]
pub struct Description {
    name: &'static str,
    version: &'static str,
    doc: &'static str,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    options: Json,
}

impl Description {
    /// A stage without ports and options; usually `env!("CARGO_PKG_NAME")`, `env!("CARGO_PKG_VERSION")`.
    pub fn new(name: &'static str, version: &'static str, doc: &'static str) -> Self {
        Self { name, version, doc, inputs: Vec::new(), outputs: Vec::new(), options: json!({}) }
    }

    /// Adds an input.
    #[must_use]
    pub fn input(mut self, port: Port) -> Self {
        self.inputs.push(port);
        self
    }

    /// Adds an output.
    #[must_use]
    pub fn output(mut self, port: Port) -> Self {
        self.outputs.push(port);
        self
    }

    /// The `properties` of the options' JSON Schema: name to schema, with `default` and `description`.
    #[must_use]
    pub fn options(mut self, properties: Json) -> Self {
        self.options = properties;
        self
    }

    /// The names of the options.
    pub fn option_names(&self) -> Vec<&str> {
        self.options.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The options' JSON Schema.
    pub fn options_schema(&self) -> Json {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "properties": self.options,
        })
    }
}

/// An input or output: the name under which a value is looked for or left.
#[derive(Debug, Clone)]
pub struct Port {
    name: &'static str,
    kind: Kind,
    optional: bool,
    doc: &'static str,
}

impl Port {
    /// A value that must be there.
    pub fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, optional: false, doc }
    }

    /// A value that may be missing.
    pub fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { optional: true, ..Self::new(name, kind, doc) }
    }
}

impl From<Port> for wit::Port {
    fn from(port: Port) -> Self {
        Self { name: port.name.into(), kind: port.kind, optional: port.optional, doc: port.doc.into() }
    }
}

impl From<Description> for wit::Description {
    fn from(description: Description) -> Self {
        Self {
            options_schema: description.options_schema().to_string(),
            name: description.name.into(),
            version: description.version.into(),
            doc: description.doc.into(),
            inputs: description.inputs.into_iter().map(Into::into).collect(),
            outputs: description.outputs.into_iter().map(Into::into).collect(),
        }
    }
}
