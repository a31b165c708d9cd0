//! What requests are compared with: one or several values, regular expressions, times of the day.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::text::{Id, text_value};

/// One value, or a list of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(Vec<T>);

/// Names of models, ladders or keys.
pub type Names = OneOrMany<Id>;

impl<T> Deref for OneOrMany<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T: Default> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(vec![T::default()])
    }
}

impl<T> From<T> for OneOrMany<T> {
    fn from(value: T) -> Self {
        Self(vec![value])
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(StrDeserializer::new(text))?])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = items.next_element()? {
                    values.push(value);
                }
                Ok(values)
            }
        }

        let values = deserializer.deserialize_any(Either(PhantomData))?;
        if values.is_empty() {
            Err(D::Error::custom("the list is empty: name at least one"))
        } else {
            Ok(Self(values))
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

/// The most memory that a compiled expression may take, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;

/// A regular expression, of which the time to search grows with the text and no faster.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

text_value!(Pattern, "a regular expression such as \"(?i)\\\\bselect\\\\b.+\\\\bfrom\\\\b\"", r".*");

impl Pattern {
    /// Whether it finds something.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let compiled =
            RegexBuilder::new(text).size_limit(LARGEST_PATTERN).dfa_size_limit(LARGEST_PATTERN).build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("`{text}` becomes too large: repeat fewer things"),
            // The last line says what is wrong; those before draw the place, as the excerpt does.
            error => {
                let words = error.to_string();
                let words = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                format!("`{text}` is no regular expression: {words}")
            }
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A part of the day, in UTC; one that ends before it begins goes over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Minutes since midnight.
    begin: u16,
    /// Minutes since midnight; this one is no part of it.
    end: u16,
}

text_value!(
    Hours,
    "a part of the day in UTC such as \"22:00-06:00\"",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
);

impl Hours {
    /// Whether a minute of the day, counted from midnight, is in it.
    pub fn holds(self, minute: u16) -> bool {
        if self.begin < self.end {
            (self.begin..self.end).contains(&minute)
        } else {
            minute >= self.begin || minute < self.end
        }
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minutes = |clock: &str| {
            let (hours, minutes) = clock.split_once(':')?;
            let two = |digits: &str| {
                (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
                    .then(|| digits.parse::<u16>().ok())
                    .flatten()
            };
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            (hours < 24 && minutes < 60 || (hours, minutes) == (24, 0)).then_some(hours * 60 + minutes)
        };
        let parsed = text.split_once('-').and_then(|(begin, end)| Some((minutes(begin)?, minutes(end)?)));
        match parsed {
            Some((begin, end)) if begin != end && begin < 24 * 60 => Ok(Self { begin, end }),
            Some(_) => Err(format!("`{text}` is no part of the day: it begins when it ends")),
            None => Err(format!("`{text}` is no part of the day: write it like \"22:00-06:00\"")),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begin, end } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", begin / 60, begin % 60, end / 60, end % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_day_may_go_over_midnight() {
        let night: Hours = "22:00-06:00".parse().unwrap();
        assert!(night.holds(22 * 60) && night.holds(0) && night.holds(5 * 60 + 59));
        assert!(!night.holds(6 * 60) && !night.holds(12 * 60));
        let office: Hours = "08:30-24:00".parse().unwrap();
        assert!(office.holds(23 * 60 + 59) && !office.holds(8 * 60 + 29));
        assert_eq!(office.to_string(), "08:30-24:00");
        for wrong in [
            "",
            "8:00-9:00",
            "08:00",
            "08:60-09:00",
            "25:00-26:00",
            "08:00-08:00",
            "24:00-08:00",
            "+8:00-09:00",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_expression_that_is_none_says_why() {
        let error = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert_eq!(error("(a"), "`(a` is no regular expression: unclosed group");
        assert!(error(r"(?=a)").contains("look-around"), "{}", error(r"(?=a)"));
        assert!(error(r"((a{100}){100}){100}").contains("too large"));
        assert!("(?i)sum".parse::<Pattern>().unwrap().is_in("The SUM"));
    }
}
