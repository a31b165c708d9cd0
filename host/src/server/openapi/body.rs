//! What the routes read, from the types that read it: a field that is parsed is documented, and no other.

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::server::params::{Fields, Patience};
use crate::server::tools::Tools;

/// What is sent.
#[derive(Clone, Copy)]
pub enum Body {
    /// Nothing.
    None,
    /// A JSON object.
    Json(Describe),
    /// The same object with a picture in it, as a form with the picture as a file, or the picture itself.
    Picture(Describe),
    /// A form with a recording as its file.
    Sound(Describe),
}

/// Makes the schema of an object, with the types below it among the generator's definitions.
pub type Describe = fn(&mut SchemaGenerator) -> Value;

impl Body {
    /// The schemas by media type; empty when nothing is sent.
    pub fn content(self, generator: &mut SchemaGenerator) -> Map<String, Value> {
        let media = |schema: Value| json!({ "schema": schema });
        let content = match self {
            Self::None => Vec::new(),
            Self::Json(describe) => vec![("application/json", media(describe(generator)))],
            Self::Sound(describe) => {
                let mut form = describe(generator);
                form["properties"]["file"] =
                    json!({ "type": "string", "format": "binary", "description": "The recording's file." });
                form["required"] = json!(["file"]);
                vec![("multipart/form-data", media(form))]
            }
            Self::Picture(describe) => {
                let mut form = describe(generator);
                let file = |what: &str| json!({ "type": "string", "format": "binary", "description": what });
                form["properties"]["image"] = file("The picture's file.");
                form["properties"]["images"] = json!({ "type": "array", "items": file("A picture's file.") });
                let picture = json!({ "type": "string", "format": "binary" });
                vec![
                    ("application/json", media(describe(generator))),
                    ("multipart/form-data", media(form)),
                    ("application/octet-stream", media(picture.clone())),
                    ("image/*", media(picture)),
                ]
            }
        };
        content.into_iter().map(|(kind, media)| (kind.to_owned(), media)).collect()
    }
}

/// One type.
pub fn plain<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    finish([T::json_schema(generator)])
}

/// One type, beside whose fields there may be no others.
pub fn exactly<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = plain::<T>(generator);
    schema["additionalProperties"] = json!(false);
    schema
}

/// A type, and how long it may take.
pub fn timed<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    finish([T::json_schema(generator), Patience::json_schema(generator)])
}

/// A type, and how text is made.
pub fn prompt<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let fields = Fields::json_schema(generator);
    finish([T::json_schema(generator), fields, Patience::json_schema(generator)])
}

/// A type, and what may be called.
pub fn turns<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    finish([T::json_schema(generator), Tools::json_schema(generator)])
}

/// A type, what may be called, and how text is made.
pub fn conversation<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let (tools, fields) = (Tools::json_schema(generator), Fields::json_schema(generator));
    finish([T::json_schema(generator), tools, fields, Patience::json_schema(generator)])
}

/// As [`conversation`], with fields of which it matters here that they are there.
pub fn insisting<N: JsonSchema, T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let (needed, tools) = (N::json_schema(generator), Tools::json_schema(generator));
    let (fields, patience) = (Fields::json_schema(generator), Patience::json_schema(generator));
    finish([needed, T::json_schema(generator), tools, fields, patience])
}

/// One object out of several that are read from the same bytes.
fn finish<const N: usize>(parts: [Schema; N]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in parts {
        if let Some(Value::Array(names)) = part.get("required") {
            required.extend(names.iter().cloned());
        }
        let Some(Value::Object(fields)) = part.get("properties") else { continue };
        for (name, field) in fields {
            properties.entry(name.clone()).or_insert_with(|| field.clone());
        }
    }
    let mut schema = json_schema!({ "type": "object", "properties": properties, "required": required });
    exact().transform(&mut schema);
    schema.into()
}

/// Says what the types mean and JSON Schema has no words for in its formats: how large numbers may be. Takes links out
/// of descriptions, which lead into the code.
pub fn exact() -> impl Transform + Clone + Send + 'static {
    RecursiveTransform(|schema: &mut Schema| {
        let range = match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => Some((json!(0), json!(u32::MAX))),
            Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
            Some("uint" | "uint64") => Some((json!(0), json!(u64::MAX))),
            _ => None,
        };
        if let Some((least, most)) = range {
            // A field may have narrower ones of its own.
            let own = schema.ensure_object();
            own.entry("minimum").or_insert(least);
            own.entry("maximum").or_insert(most);
            schema.remove("format");
        }
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
        }
    })
}
