//! `config explain`: every value in force, and who set it.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;

use super::Config;
use super::origin::Origin;
use super::tree::Segment;

/// The sections in the order in which the file has them.
const SECTIONS: [&str; 14] = [
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
];

/// One value in force.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its key as `--set` takes it, for example `models.chat.device`.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Who set it.
    pub origin: Origin,
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Setting", 3)?;
        s.serialize_field("key", &self.key)?;
        s.serialize_field("value", &self.value)?;
        s.serialize_field("source", &self.origin.to_string())?;
        s.end()
    }
}

/// Every value in force. Prints as a table of key, value and source.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(transparent)]
pub struct Explanation(pub Vec<Setting>);

impl Explanation {
    pub(super) fn of(config: &Config) -> Self {
        // The types have no map with keys that are not text, and nothing else can fail.
        let whole = serde_json::to_value(config).unwrap_or_default();
        let mut leaves = Vec::new();
        collect(&whole, &mut Vec::new(), &mut leaves);
        leaves.sort_by_key(|(path, _)| {
            let section = SECTIONS.iter().position(|s| path.first() == Some(&Segment::from(*s)));
            (section, path.clone())
        });
        let tree = &config.written;
        let setting = |(path, value): (Vec<Segment>, Value)| Setting {
            key: tree.spell(&path),
            value,
            origin: tree.origin_of(&path),
        };
        Self(leaves.into_iter().map(setting).collect())
    }
}

/// Single values below `value` with their paths; what is not set is left out.
fn collect(value: &Value, path: &mut Vec<Segment>, leaves: &mut Vec<(Vec<Segment>, Value)>) {
    let mut below = |segment: Segment, child: &Value| {
        path.push(segment);
        collect(child, path, leaves);
        path.pop();
    };
    match value {
        Value::Null => {}
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(k, v)| below(k.as_str().into(), v)),
        // A list of plain values reads best as one.
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            list.iter().enumerate().for_each(|(i, v)| below(i.into(), v));
        }
        _ => leaves.push((path.clone(), value.clone())),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 3]> =
            self.0.iter().map(|s| [s.key.clone(), s.value.to_string(), s.origin.to_string()]).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        // One long path or description must not push every source off the screen.
        let (keys, values) = (width(0), width(1).min(48));
        for [key, value, origin] in &rows {
            writeln!(f, "{key:keys$}  {value:values$}  {origin}")?;
        }
        Ok(())
    }
}
