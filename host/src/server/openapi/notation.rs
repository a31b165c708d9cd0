//! A short way to write JSON Schemas of answers: as an example of the JSON, with types for values.
//!
//! A text is a type (`"string"`), several (`"string|null"`), a type of the document (`"#Usage"`), anything (`"any"`) or
//! one of some texts (`"=stop|length"`). A list has one element: what each of its elements is. An object has exactly
//! its keys; those that end in `?` may be missing, `*` stands for any key. The key `|` alone has a list of what the
//! value may be instead.

use serde_json::{Map, Value, json};

/// The schema of what a shape shows.
pub fn schema(shape: &Value) -> Value {
    match shape {
        Value::String(word) => of_word(word),
        Value::Array(items) => json!({ "type": "array", "items": items.first().map(schema) }),
        Value::Object(keys) => of_object(keys),
        other => json!({ "const": other }),
    }
}

fn of_word(word: &str) -> Value {
    if let Some(texts) = word.strip_prefix('=') {
        return json!({ "type": "string", "enum": texts.split('|').collect::<Vec<_>>() });
    }
    let one = |word: &str| match (word, word.strip_prefix('#')) {
        (_, Some(name)) => json!({ "$ref": format!("#/components/schemas/{name}") }),
        ("any", _) => json!({}),
        _ => json!({ "type": word }),
    };
    match word.split('|').collect::<Vec<_>>().as_slice() {
        [word] => one(word),
        words if words.iter().any(|word| word.starts_with('#')) => {
            json!({ "anyOf": words.iter().map(|word| one(word)).collect::<Vec<_>>() })
        }
        words => json!({ "type": words }),
    }
}

fn of_object(keys: &Map<String, Value>) -> Value {
    if let Some(Value::Array(either)) = keys.get("|") {
        return json!({ "anyOf": either.iter().map(schema).collect::<Vec<_>>() });
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, shape) in keys.iter().filter(|(key, _)| *key != "*") {
        let name = key.strip_suffix('?').unwrap_or(key);
        if name == key {
            required.push(name);
        }
        properties.insert(name.to_owned(), schema(shape));
    }
    let others = keys.get("*").map_or(json!(false), schema);
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": others,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_become_schemas() {
        for (shape, expected) in [
            (json!("string|null"), json!({ "type": ["string", "null"] })),
            (json!("=a|b"), json!({ "type": "string", "enum": ["a", "b"] })),
            (json!("any"), json!({})),
            (json!(["integer"]), json!({ "type": "array", "items": { "type": "integer" } })),
            (
                json!("#Usage|null"),
                json!({ "anyOf": [{ "$ref": "#/components/schemas/Usage" }, { "type": "null" }] }),
            ),
            (
                json!({ "|": ["string", ["number"]] }),
                json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "number" } }] }),
            ),
            (
                json!({ "a": "string", "b?": "number" }),
                json!({
                    "type": "object",
                    "properties": { "a": { "type": "string" }, "b": { "type": "number" } },
                    "required": ["a"],
                    "additionalProperties": false,
                }),
            ),
            (
                json!({ "*": "number" }),
                json!({
                    "type": "object", "properties": {}, "required": [], "additionalProperties": { "type": "number" },
                }),
            ),
        ] {
            assert_eq!(schema(&shape), expected, "{shape}");
        }
    }
}
