//! Reads a call that a model writes as JSON, while it writes.

/// What a call turned out to be, so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Open,
    /// It ended, this many bytes into the last text.
    Ended(usize),
    /// It is no call, from this many bytes into the last text on.
    Invalid(usize),
}

/// Where in the outermost object the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Key,
    Colon,
    Value,
    Comma,
}

/// Reads one JSON object: `{"name": …, "arguments": {…}}`, or the arguments alone when the name came before.
#[derive(Debug)]
pub struct CallReader {
    at: At,
    depth: u32,
    in_string: bool,
    escaped: bool,
    key: String,
    /// The outermost key or value at hand, as written.
    raw: String,
    /// All arguments, with a name that is known from elsewhere.
    whole: bool,
    /// The function, once it is known.
    pub name: Option<String>,
    /// The arguments as far as they came, as written.
    pub arguments: String,
    argument_key: Option<&'static str>,
}

/// The words in which models write the arguments.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];

impl CallReader {
    /// For an object with the name and the arguments in it.
    pub fn object() -> Self {
        Self {
            at: At::Start,
            depth: 0,
            in_string: false,
            escaped: false,
            key: String::new(),
            raw: String::new(),
            whole: false,
            name: None,
            arguments: String::new(),
            argument_key: None,
        }
    }

    /// For the arguments of a function that is known.
    pub fn arguments_of(name: String) -> Self {
        Self { whole: true, name: Some(name), ..Self::object() }
    }

    /// Reads on.
    pub fn read(&mut self, text: &str) -> Progress {
        for (index, c) in text.char_indices() {
            if self.in_string {
                self.keep(c);
                match c {
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => {
                        self.in_string = false;
                        self.string_ended();
                    }
                    _ => {}
                }
                continue;
            }
            if self.depth > 1 || (self.depth == 1 && self.whole) {
                self.nested(c);
            } else if !self.outermost(c) {
                return Progress::Invalid(index);
            }
            if self.depth == 0 && self.at != At::Start {
                return Progress::Ended(index + c.len_utf8());
            }
        }
        Progress::Open
    }

    /// A character outside strings that belongs to a value, or to the arguments.
    fn nested(&mut self, c: char) {
        self.keep(c);
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                if self.depth == 1 && !self.whole {
                    self.value_ended();
                }
            }
            _ => {}
        }
    }

    /// A character of the outermost object, outside strings; `false` when it cannot be there.
    fn outermost(&mut self, c: char) -> bool {
        match (self.at, c) {
            (At::Start, '{') => {
                self.depth = 1;
                self.at = At::Key;
                if self.whole {
                    self.keep(c);
                }
            }
            (At::Value, c) if c.is_whitespace() && self.raw.is_empty() => {}
            (At::Value, ',' | '}') if !self.raw.is_empty() => {
                self.value_ended();
                return self.outermost(c);
            }
            (_, c) if c.is_whitespace() => {}
            (At::Key | At::Comma, '}') => self.depth = 0,
            (At::Comma, ',') => self.at = At::Key,
            (At::Key, '"') => {
                self.raw.clear();
                self.in_string = true;
                self.keep(c);
            }
            (At::Colon, ':') => {
                self.at = At::Value;
                self.raw.clear();
                self.argument_key = ARGUMENTS.into_iter().find(|a| *a == self.key);
            }
            (At::Value, '"') if self.raw.is_empty() => {
                self.in_string = true;
                self.keep(c);
            }
            (At::Value, '{' | '[') if self.raw.is_empty() => {
                self.depth = 2;
                self.keep(c);
            }
            (At::Value, c) if c.is_alphanumeric() || matches!(c, '-' | '+' | '.') => self.keep(c),
            _ => return false,
        }
        true
    }

    fn keep(&mut self, c: char) {
        if !self.whole {
            self.raw.push(c);
        }
        if self.whole || (self.argument_key.is_some() && !self.raw.starts_with('"')) {
            self.arguments.push(c);
        }
    }

    fn string_ended(&mut self) {
        if self.whole || self.depth > 1 {
            return;
        }
        let text: String = serde_json::from_str(&self.raw).unwrap_or_default();
        match self.at {
            At::Key => {
                self.key = text;
                self.at = At::Colon;
                return;
            }
            At::Value if self.key == "name" => self.name = Some(text),
            // Some models write the arguments as a text of JSON.
            At::Value if self.argument_key.is_some() => self.arguments = text,
            _ => {}
        }
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.raw.clear();
        self.argument_key = None;
        self.at = At::Comma;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, step: usize) -> (Progress, CallReader) {
        let mut reader = CallReader::object();
        let characters: Vec<char> = text.chars().collect();
        let mut before = 0;
        for piece in characters.chunks(step) {
            let piece: String = piece.iter().collect();
            match reader.read(&piece) {
                Progress::Open => before += piece.len(),
                Progress::Ended(at) => return (Progress::Ended(before + at), reader),
                Progress::Invalid(at) => return (Progress::Invalid(before + at), reader),
            }
        }
        (Progress::Open, reader)
    }

    #[test]
    fn name_and_arguments_come_in_any_order_and_with_others() {
        for (text, arguments) in [
            (r#"{"name": "f", "arguments": {"a": [1, {"b": "}\""}]}}"#, r#"{"a": [1, {"b": "}\""}]}"#),
            (r#"{"arguments":{}, "name":"f"}"#, "{}"),
            (
                r#"{"type": "function", "id": 7, "name": "f", "parameters": {"a": null}, "x": [{}]}"#,
                r#"{"a": null}"#,
            ),
            (r#"{"name": "f", "arguments": "{\"a\": 1}"}"#, r#"{"a": 1}"#),
            (r#"{"name": "f"}"#, ""),
        ] {
            for step in [1, 3, 1000] {
                let (progress, reader) = read(&format!("{text} rest"), step);
                assert_eq!(progress, Progress::Ended(text.len()), "{text}");
                assert_eq!(reader.name.as_deref(), Some("f"), "{text}");
                assert_eq!(reader.arguments, arguments, "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_object_is_told() {
        for text in ["[1]", "{'name'", "{\"name\" 1}", "{]", "x"] {
            assert!(matches!(read(text, 1).0, Progress::Invalid(_)), "{text}");
        }
    }

    #[test]
    fn known_functions_have_only_arguments() {
        let mut reader = CallReader::arguments_of("f".into());
        assert_eq!(reader.read(r#"{"a": {"b": "}"}"#), Progress::Open);
        assert_eq!(reader.read("} "), Progress::Ended(1));
        assert_eq!(reader.arguments, r#"{"a": {"b": "}"}}"#);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r#"[{}\[\]":, a\\é0-9name]{0,60}"#, step in 1usize..5) {
            let _ = read(&text, step);
        }
    }
}
