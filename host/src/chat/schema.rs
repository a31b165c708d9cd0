//! Functions as JSON Schemas: what a call must look like.

use serde_json::{Map, Value, json};

use super::conversation::Tool;
use super::syntax::Tags;

/// The schema of an object that calls one of some functions.
pub fn call(tools: &[Tool], name: &str, arguments: &str) -> Value {
    let mut definitions = Map::new();
    let calls: Vec<Value> = tools
        .iter()
        .enumerate()
        .map(|(index, tool)| {
            let key = format!("tool{index}");
            let mut parameters = parameters(tool);
            rebase(&mut parameters, &format!("#/$defs/{key}"));
            definitions.insert(key.clone(), parameters);
            let mut properties = Map::new();
            properties.insert(name.to_owned(), json!({ "const": tool.name }));
            properties.insert(arguments.to_owned(), json!({ "$ref": format!("#/$defs/{key}") }));
            json!({
                "type": "object",
                "properties": properties,
                "required": [name, arguments],
                "additionalProperties": false,
            })
        })
        .collect();
    json!({ "$defs": definitions, "anyOf": calls })
}

/// The schema of a function's arguments alone.
pub fn parameters(tool: &Tool) -> Value {
    match &tool.parameters {
        Value::Object(schema) if !schema.is_empty() => tool.parameters.clone(),
        _ => json!({ "type": "object" }),
    }
}

/// Makes references within a schema hold where it is put.
fn rebase(schema: &mut Value, base: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{base}{}", &target[1..]);
                    }
                    other => rebase(other, base),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rebase(value, base)),
        _ => {}
    }
}

/// Calls written as tags: the functions, and their arguments in the kinds that the schemas say.
pub fn tagged(text: &str, tags: &Tags, tools: &[Tool]) -> Vec<(String, Value)> {
    let before = usize::from(tags.first() != tags.last());
    text.split(tags.last()).skip(before).filter_map(|call| one(call, tags, tools)).collect()
}

fn one(call: &str, tags: &Tags, tools: &[Tool]) -> Option<(String, Value)> {
    let (key_open, key_close) = (tags.key_open.trim(), tags.key_close.trim());
    let name_close = tags.name_close.trim();
    // Without arguments, what follows the name may be missing.
    let marks = [name_close, key_open, "\n", "<"].into_iter().filter(|mark| !mark.is_empty());
    let end = marks.filter_map(|mark| call.trim_start().find(mark)).min();
    let name = call.trim_start();
    let name = name[..end.unwrap_or(name.len())].trim();
    if name.is_empty() {
        return None;
    }
    let tool = tools.iter().find(|tool| tool.name == name);
    let mut arguments = Map::new();
    let mut rest = call;
    while let Some(at) = rest.find(key_open) {
        let (key, after) = rest[at + key_open.len()..].split_once(key_close)?;
        let end = after.find(tags.value_close.trim()).or_else(|| after.find(key_open)).unwrap_or(after.len());
        let value = after[..end].strip_prefix('\n').unwrap_or(&after[..end]);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let kind = tool.map(|tool| &tool.parameters["properties"][key.trim()]["type"]);
        let text = || Value::String(value.to_owned());
        let value = match kind.and_then(Value::as_str) {
            Some("string") => text(),
            _ => serde_json::from_str(value).unwrap_or_else(|_| text()),
        };
        arguments.insert(key.trim().to_owned(), value);
        rest = &after[end..];
    }
    Some((name.to_owned(), Value::Object(arguments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: Value) -> Tool {
        Tool { name: name.into(), description: None, parameters, strict: false }
    }

    #[test]
    fn references_hold_where_the_schema_is_put() {
        let parameters = json!({ "$defs": { "u": { "enum": ["c"] } }, "properties": { "unit": { "$ref": "#/$defs/u" }, "self": { "$ref": "#" } } });
        let schema = call(&[tool("f", parameters)], "name", "arguments");
        let put = &schema["$defs"]["tool0"];
        assert_eq!(put["properties"]["unit"]["$ref"], "#/$defs/tool0/$defs/u");
        assert_eq!(put["properties"]["self"]["$ref"], "#/$defs/tool0");
        assert_eq!(schema["anyOf"][0]["properties"]["name"]["const"], "f");
    }

    #[test]
    fn tags_have_the_kinds_of_the_schema() {
        let schema = json!({ "properties": { "a": { "type": "string" }, "b": { "type": "integer" } } });
        let tags = Tags {
            open: "<tool_call>\n<function=".into(),
            name_close: ">\n".into(),
            key_open: "<parameter=".into(),
            key_close: ">\n".into(),
            value_close: "\n</parameter>\n".into(),
            close: "</function>\n</tool_call>".into(),
        };
        let text = "\n<function=f>\n<parameter=a>\n12\nlines\n</parameter>\n<parameter=b>\n3\n</parameter>\n<parameter=c>\n[1]\n</parameter>\n</function>\n<function=g>\n";
        let calls = tagged(text, &tags, &[tool("f", schema)]);
        let arguments = json!({ "a": "12\nlines", "b": 3, "c": [1] });
        assert_eq!(calls, [("f".to_owned(), arguments), ("g".to_owned(), json!({}))]);
        assert_eq!(tagged("no call", &tags, &[]), []);
    }
}
