//! The JSON Schema of `pajamas.toml`, for editors: what the types say, without what TOML cannot say.

use schemars::transform::RecursiveTransform;
use schemars::{Schema, generate::SchemaSettings};
use serde_json::Value;

use super::Config;

impl Config {
    /// The JSON Schema of the file, for editors.
    pub fn json_schema() -> Value {
        let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
        settings.into_generator().into_root_schema_for::<Self>().into()
    }
}

/// TOML has no null: a key that may be left out has just its type, and no default.
fn without_null(schema: &mut Schema) {
    let is_null = |value: &Value| value == "null" || value["type"] == "null";
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| !is_null(one));
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|one| !is_null(one));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            only.into_iter().for_each(|(key, value)| drop(schema.insert(key, value)));
        }
    }
    match schema.get_mut("default") {
        Some(Value::Null) => drop(schema.remove("default")),
        Some(default) => drop_nulls(default),
        None => {}
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value below, itself included.
    fn all(value: &Value) -> Vec<&Value> {
        let below: Vec<&Value> = match value {
            Value::Object(map) => map.values().collect(),
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        std::iter::once(value).chain(below.into_iter().flat_map(all)).collect()
    }

    #[test]
    fn it_knows_every_key_and_no_other() {
        let schema = Config::json_schema();
        let keys: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        for key in [
            "schema",
            "server",
            "plugins",
            "stages",
            "memory",
            "jobs",
            "telemetry",
            "defaults",
            "routing",
            "aliases",
            "models",
            "ladders",
            "routes",
            "pipelines",
        ] {
            assert!(keys.contains(&key), "{key} is not in {keys:?}");
        }
        assert_eq!((keys.len(), &schema["additionalProperties"]), (14, &false.into()));
        let types = &schema["$defs"];
        assert_eq!(types["ByteSize"]["type"], "string");
        assert_eq!(types["Model"]["required"], serde_json::json!(["id"]));
        let stage = &types["Step"]["properties"]["stage"];
        assert_eq!(stage["description"], "The stage's name. Either this or `model`.");
    }

    #[test]
    fn nothing_in_it_is_null() {
        let schema = Config::json_schema();
        assert!(all(&schema).into_iter().all(|value| !value.is_null() && value != "null"));
        assert_eq!(schema["$defs"]["Defaults"]["properties"]["chat"]["$ref"], "#/$defs/Id");
        assert_eq!(schema["$defs"]["Model"]["properties"]["description"]["type"], "string");
    }
}
