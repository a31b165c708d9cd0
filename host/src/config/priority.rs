//! Which of the requests that wait go first.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// Among requests that wait for a model the highest goes first: `high`, `normal`, `low`, or a number. What is passed over
/// for a second counts as one higher, up to 100 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Priority(pub i32);

/// The names, and the numbers that they stand for.
const NAMES: [(&str, i32); 3] = [("high", 10), ("normal", 0), ("low", -10)];

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;

        impl Visitor<'_> for NameOrNumber {
            type Value = Priority;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("high, normal, low or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Priority, E> {
                let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
                let priority = named.or_else(|| text.parse().ok()).map(Priority);
                priority.ok_or_else(|| {
                    E::custom(format!("`{text}` is no priority: write high, normal, low or a number"))
                })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Priority, E> {
                let number = i32::try_from(number);
                number.map(Priority).map_err(|_| E::custom("a priority is a number of 32 bits"))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Priority, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(NameOrNumber)
    }
}

impl JsonSchema for Priority {
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "high (10), normal (0), low (-10), or a number; waiting requests of a higher one go first",
            "anyOf": [
                { "type": "string", "enum": ["high", "normal", "low"] },
                { "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_numbers() {
        for (written, number) in [("\"high\"", 10), ("\"normal\"", 0), ("\"low\"", -10), ("7", 7), ("-3", -3)]
        {
            assert_eq!(serde_json::from_str::<Priority>(written).unwrap(), Priority(number), "{written}");
        }
        for wrong in ["\"urgent\"", "1.5", "99999999999", "true"] {
            assert!(serde_json::from_str::<Priority>(wrong).is_err(), "{wrong}");
        }
    }
}
