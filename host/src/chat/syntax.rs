//! How models write what is not content: thoughts and calls.

/// How calls are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syntax {
    /// A JSON object with the name and the arguments, between marks.
    Object(Marks),
    /// The name as it is, and then the arguments as JSON.
    Named(Marks),
    /// The name and each argument as they are, between tags.
    Tags(Tags),
    /// Messages in channels, as gpt-oss writes; what is thought has a channel, too.
    Channels,
}

/// What is written around calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Before the first; empty where the call is the whole answer.
    pub open: String,
    /// Between a name and its arguments.
    pub middle: String,
    /// Between two calls.
    pub between: String,
    /// After the last.
    pub close: String,
}

/// What is written around calls without JSON:
/// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`, for example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Before the name.
    pub open: String,
    /// After the name.
    pub name_close: String,
    /// Before each key.
    pub key_open: String,
    /// Between a key and its value.
    pub key_close: String,
    /// After each value.
    pub value_close: String,
    /// After the last.
    pub close: String,
}

impl Tags {
    /// The tag with which calls begin.
    pub fn first(&self) -> &str {
        let open = self.open.trim();
        open.find('>').map_or(open, |end| &open[..=end])
    }

    /// The tag with which each call of them begins.
    pub fn last(&self) -> &str {
        let open = self.open.trim();
        open.rfind('<').map_or(open, |start| &open[start..])
    }
}

/// The marks of thinking that models know.
pub const THINKING: [(&str, &str); 2] = [("<think>", "</think>"), ("[THINK]", "[/THINK]")];
