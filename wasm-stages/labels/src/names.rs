//! Class ids to names, in the spellings that models come with.

use std::collections::BTreeMap;

use pajamas_stage::{Error, Result};
use serde_json::Value as Json;

/// The names of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(BTreeMap<u32, String>);

impl Names {
    /// The name of a class, when there is one.
    pub fn get(&self, class_id: u32) -> Option<String> {
        self.0.get(&class_id).cloned()
    }

    /// From an array of names, an object of class id to name, or a text as [`Names::from_text`] takes it.
    pub fn from_json(json: &Json) -> Result<Self> {
        let name = |json: &Json| match json {
            Json::String(name) => Ok(name.clone()),
            other => Err(Error::invalid_option(format!("`names` holds {other}, which is not a name"))),
        };
        match json {
            Json::Array(names) => {
                (0..).zip(names).map(|(id, n)| Ok((id, name(n)?))).collect::<Result<_>>().map(Self)
            }
            Json::Object(names) => {
                let entry = |(id, n): (&String, &Json)| Ok((class_id(id)?, name(n)?));
                names.iter().map(entry).collect::<Result<_>>().map(Self)
            }
            Json::String(text) => Self::from_text(text),
            other => Err(Error::invalid_option(format!(
                "`names` is {other}: a list, an object or a text is needed"
            ))),
        }
    }

    /// From one name a line, or from a Python dictionary or list: `{0: 'person', 1: "potted plant"}`.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.chars().next() {
            None => Err(Error::invalid_option("there are no names in it")),
            Some('{') => literal(&text[1..], '}', true).map(Self),
            Some('[') => literal(&text[1..], ']', false).map(Self),
            Some(_) => Ok(Self((0..).zip(text.lines().map(|line| line.trim().to_owned())).collect())),
        }
    }
}

/// The entries of a Python dictionary (`keyed`) or list, up to `end`.
fn literal(text: &str, end: char, keyed: bool) -> Result<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return match after.trim() {
                "" => Ok(names),
                more => Err(Error::invalid_option(format!("`{}` follows the last name", shortened(more)))),
            };
        }
        let mut id = names.len() as u32;
        if keyed {
            let Some((key, after)) = rest.split_once(':') else {
                return Err(Error::invalid_option(format!(
                    "`{}`: a class id and `:` are missing",
                    shortened(rest)
                )));
            };
            id = class_id(key)?;
            rest = after.trim_start();
        }
        let (name, after) = quoted(rest)?;
        names.insert(id, name);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if after.starts_with(end) => after,
            None => {
                return Err(Error::invalid_option(format!(
                    "`{}`: `,` or `{end}` is missing",
                    shortened(after)
                )));
            }
        };
    }
}

/// A Python string in single or double quotes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut chars = text.char_indices();
    let quote = match chars.next() {
        Some((_, quote @ ('\'' | '"'))) => quote,
        _ => {
            return Err(Error::invalid_option(format!("`{}`: a name in quotes is missing", shortened(text))));
        }
    };
    let mut name = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => name.push('\n'),
                Some((_, 't')) => name.push('\t'),
                Some((_, escaped)) => name.push(escaped),
                None => break,
            },
            c if c == quote => return Ok((name, &text[at + c.len_utf8()..])),
            c => name.push(c),
        }
    }
    Err(Error::invalid_option(format!("`{}`: the closing quote is missing", shortened(text))))
}

fn class_id(text: &str) -> Result<u32> {
    let digits = text.trim().trim_matches(['\'', '"']);
    digits
        .parse()
        .map_err(|_| Error::invalid_option(format!("`{}` is not a class id", shortened(text.trim()))))
}

fn shortened(text: &str) -> String {
    text.chars().take(24).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(text: &str) -> Vec<(u32, String)> {
        Names::from_text(text).unwrap().0.into_iter().collect()
    }

    fn of(entries: &[(u32, &str)]) -> Vec<(u32, String)> {
        entries.iter().map(|(id, name)| (*id, (*name).to_owned())).collect()
    }

    #[test]
    fn one_name_a_line() {
        assert_eq!(
            names("\u{feff}person\r\n potted plant \n\nbus\n"),
            of(&[(0, "person"), (1, "potted plant"), (2, ""), (3, "bus"),])
        );
    }

    #[test]
    fn the_metadata_of_ultralytics() {
        assert_eq!(
            names("{0: 'person', 1: \"farmer's\", 7: 'a \\'b\\', c: d',}"),
            of(&[(0, "person"), (1, "farmer's"), (7, "a 'b', c: d"),])
        );
        assert_eq!(names("{0: 'tench, Tinca tinca',\n 1: 'goldfish'}\n").len(), 2);
        assert_eq!(names("['a', 'b']"), of(&[(0, "a"), (1, "b")]));
        assert_eq!(names("{}"), []);
    }

    #[test]
    fn broken_texts_say_where() {
        for (text, what) in [
            ("", "no names"),
            ("{0 'a'}", "class id"),
            ("{x: 'a'}", "`x` is not a class id"),
            ("{0: a}", "in quotes"),
            ("{0: 'a}", "closing quote"),
            ("{0: 'a' 1: 'b'}", "`,` or `}`"),
            ("{0: 'a'} x", "`x` follows"),
            ("{0: 'a', ", "class id"),
        ] {
            let error = Names::from_text(text).unwrap_err();
            assert_eq!(error.code, "invalid-option");
            assert!(error.message.contains(what), "{text}: {}", error.message);
        }
    }

    #[test]
    fn lists_and_objects() {
        let from = |json: Json| Names::from_json(&json).unwrap().0.into_iter().collect::<Vec<_>>();
        assert_eq!(from(json!(["a", "b"])), of(&[(0, "a"), (1, "b")]));
        assert_eq!(from(json!({"3": "c"})), of(&[(3, "c")]));
        assert_eq!(from(json!("{2: 'x'}")), of(&[(2, "x")]));
        assert!(Names::from_json(&json!([1])).is_err());
        assert!(Names::from_json(&json!(7)).is_err());
    }
}
