//! Reads an answer while it is written: what is thought, what is said, what is called.

mod channels;

use serde::{Deserialize, Serialize};

use super::call::{CallReader, Progress};
use super::syntax::{Marks, Syntax};

/// A part of an answer, as soon as it is certain what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text for the user.
    Content(String),
    /// Text that the model wrote to itself.
    Reasoning(String),
    /// A function is called; its arguments follow.
    Call {
        /// Which call of this answer, from 0.
        index: usize,
        /// The function.
        name: String,
    },
    /// More of a call's arguments: JSON, as written.
    Arguments {
        /// Which call.
        index: usize,
        /// What comes next of it.
        text: String,
    },
}

/// Where an answer is.
#[derive(Debug)]
enum Mode {
    /// Nothing but white space came yet.
    Start,
    Reasoning,
    Content,
    /// In a call written as JSON.
    Call(Open),
    /// Before the arguments of a call whose name comes first.
    Name,
    /// After a call.
    Between,
    /// In a call written as tags.
    Tags,
    /// Before a message in a channel.
    Header,
    /// In a message that is a call.
    Body {
        index: usize,
    },
}

/// A call written as JSON that has not ended.
#[derive(Debug)]
struct Open {
    reader: CallReader,
    /// All text of it, until it is certain that it is a call.
    text: String,
    /// How much of its arguments was told; nothing before its name is known.
    told: Option<usize>,
}

impl Open {
    fn new(reader: CallReader, mark: &str) -> Self {
        Self { reader, text: mark.to_owned(), told: None }
    }
}

/// Reads one answer. Feed it all text in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Reader {
    thinking: Option<(&'static str, &'static str)>,
    syntax: Option<Syntax>,
    /// The functions that may be called, with the kinds of their arguments that are no text.
    tools: Vec<super::Tool>,
    mode: Mode,
    pending: String,
    /// White space that comes next belongs to a mark.
    trims: bool,
    calls: usize,
}

/// What one step made of the text at hand.
enum Step {
    /// There may be more to read.
    Again,
    /// More text is needed.
    Wait,
}

impl Reader {
    /// Reads answers without calls and without thinking: all is content.
    pub fn plain() -> Self {
        Self::new(None, None, &[])
    }

    pub(super) fn new(
        thinking: Option<(&'static str, &'static str)>,
        syntax: Option<Syntax>,
        tools: &[super::Tool],
    ) -> Self {
        let mode = if syntax == Some(Syntax::Channels) { Mode::Header } else { Mode::Start };
        Self { thinking, syntax, tools: tools.to_vec(), mode, pending: String::new(), trims: false, calls: 0 }
    }

    /// The prompt ends within a thought.
    pub(super) fn begin_reasoning(&mut self) {
        self.mode = Mode::Reasoning;
        self.trims = true;
    }

    /// The prompt ends with the beginning of a call, or of a message's header.
    pub(super) fn begin_call(&mut self, begun: &str) {
        match &self.syntax {
            Some(Syntax::Object(_)) => self.open_call(""),
            Some(Syntax::Named(_)) => {
                self.mode = Mode::Name;
                self.pending.push_str(begun);
            }
            Some(Syntax::Tags(_)) => {
                self.mode = Mode::Tags;
                self.pending.push_str(begun);
            }
            Some(Syntax::Channels) => self.pending.push_str(begun),
            None => {}
        }
    }

    /// How many functions were called.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Reads on.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        self.pending.push_str(text);
        while matches!(self.step(&mut parts, false), Step::Again) {}
        parts
    }

    /// The answer has ended: what was held back is what it looks like.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while matches!(self.step(&mut parts, true), Step::Again) {}
        parts
    }

    fn step(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        if self.trims {
            self.skip(self.pending.len() - self.pending.trim_start().len());
            if self.pending.is_empty() {
                return Step::Wait;
            }
            self.trims = matches!(self.mode, Mode::Start);
        }
        match &mut self.mode {
            Mode::Start => self.start(end),
            Mode::Reasoning => self.reasoning(parts, end),
            Mode::Content => self.content(parts, end),
            Mode::Call(_) => self.call(parts, end),
            Mode::Name => self.name(parts, end),
            Mode::Between => self.between(end),
            Mode::Tags => self.tags(parts, end),
            Mode::Header => self.header(parts),
            Mode::Body { index } => {
                let index = *index;
                self.body(parts, index, end)
            }
        }
    }

    fn start(&mut self, end: bool) -> Step {
        let rest = self.pending.trim_start();
        if let Some((open, _)) = self.thinking {
            if let Some(rest) = rest.strip_prefix(open) {
                self.pending = rest.to_owned();
                self.mode = Mode::Reasoning;
                self.trims = true;
                return Step::Again;
            }
            if !end && open.starts_with(rest) {
                return Step::Wait;
            }
        }
        if let Some(Syntax::Object(marks)) = &self.syntax
            && marks.open.is_empty()
        {
            if rest.is_empty() && !end {
                return Step::Wait;
            }
            if rest.starts_with('{') {
                self.open_call("");
                return Step::Again;
            }
        }
        if self.pending.is_empty() {
            return Step::Wait;
        }
        self.mode = Mode::Content;
        Step::Again
    }

    fn reasoning(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        let close = match self.syntax {
            Some(Syntax::Channels) => "<|end|>",
            _ => self.thinking.map_or("</think>", |(_, close)| close),
        };
        if let Some(at) = self.pending.find(close) {
            let thought = self.pending[..at].trim_end().to_owned();
            add(parts, Part::Reasoning, thought);
            self.skip(at + close.len());
            self.mode = self.outside();
            self.trims = true;
            return Step::Again;
        }
        let keep = if end { 0 } else { held(&self.pending, &[close], true) };
        let thought = self.take(self.pending.len() - keep);
        add(parts, Part::Reasoning, thought);
        Step::Wait
    }

    /// Where the answer goes on after a thought.
    fn outside(&self) -> Mode {
        if self.syntax == Some(Syntax::Channels) { Mode::Header } else { Mode::Start }
    }

    /// What begins a call within content.
    fn opening(&self) -> Option<&str> {
        match self.syntax.as_ref()? {
            Syntax::Object(marks) | Syntax::Named(marks) => {
                Some(marks.open.trim()).filter(|open| !open.is_empty())
            }
            Syntax::Tags(tags) => Some(tags.first()),
            Syntax::Channels => None,
        }
    }

    fn content(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        if self.syntax == Some(Syntax::Channels) {
            return self.message(parts, end);
        }
        let Some(open) = self.opening().map(str::to_owned) else {
            let all = self.take(self.pending.len());
            add(parts, Part::Content, all);
            return Step::Wait;
        };
        if let Some(at) = self.pending.find(&open) {
            let said = self.pending[..at].trim_end().to_owned();
            self.skip(at + open.len());
            add(parts, Part::Content, said);
            match self.syntax {
                Some(Syntax::Named(_)) => self.mode = Mode::Name,
                Some(Syntax::Tags(_)) => self.mode = Mode::Tags,
                _ => self.open_call(&open),
            }
            return Step::Again;
        }
        let keep = if end { 0 } else { held(&self.pending, &[&open], true) };
        let said = self.take(self.pending.len() - keep);
        add(parts, Part::Content, said);
        Step::Wait
    }

    /// Begins a call after a mark, which comes back where it was none.
    fn open_call(&mut self, mark: &str) {
        self.mode = Mode::Call(Open::new(CallReader::object(), mark));
    }

    fn call(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        let text = std::mem::take(&mut self.pending);
        let Mode::Call(open) = &mut self.mode else { return Step::Wait };
        let progress = open.reader.read(&text);
        let index = self.calls;
        if let Some(name) = &open.reader.name {
            if open.told.is_none() {
                parts.push(Part::Call { index, name: name.clone() });
            }
            let told = open.told.replace(open.reader.arguments.len()).unwrap_or(0);
            let more = open.reader.arguments.get(told..).unwrap_or_default().to_owned();
            add(parts, |text| Part::Arguments { index, text }, more);
        }
        let at = match progress {
            Progress::Open => text.len(),
            Progress::Ended(at) | Progress::Invalid(at) => at,
        };
        text[at..].clone_into(&mut self.pending);
        if open.told.is_none() {
            open.text.push_str(&text[..at]);
        }
        if progress == Progress::Open && !end {
            return Step::Wait;
        }
        if open.told.is_some() {
            // What was announced cannot be taken back.
            self.calls += 1;
            if open.reader.arguments.is_empty() {
                parts.push(Part::Arguments { index, text: "{}".into() });
            }
        } else {
            add(parts, Part::Content, std::mem::take(&mut open.text));
        }
        self.mode = if matches!(progress, Progress::Ended(_)) { Mode::Between } else { Mode::Content };
        Step::Again
    }

    fn name(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        match self.pending.find('{') {
            Some(at) => {
                let head = self.take(at);
                let name = head.trim_start().trim_start_matches("functions.");
                let length = name.find(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
                let name = name[..length.unwrap_or(name.len())].to_owned();
                self.mode = Mode::Call(Open::new(CallReader::arguments_of(name), &head));
                Step::Again
            }
            None if end => {
                let rest = self.take(self.pending.len());
                add(parts, Part::Content, rest);
                Step::Wait
            }
            None => Step::Wait,
        }
    }

    fn between(&mut self, end: bool) -> Step {
        let marks = match &self.syntax {
            Some(Syntax::Object(marks) | Syntax::Named(marks)) => marks.clone(),
            _ => Marks::default(),
        };
        let (between, close) = (marks.between.trim(), marks.close.trim());
        let rest = self.pending.trim_start();
        let next = |mode: &Self| match mode.syntax {
            Some(Syntax::Named(_)) => Mode::Name,
            _ => Mode::Call(Open::new(CallReader::object(), "")),
        };
        if !between.is_empty()
            && let Some(rest) = rest.strip_prefix(between)
        {
            self.pending = rest.to_owned();
            self.mode = next(self);
            return Step::Again;
        }
        if !end && between.starts_with(rest) {
            return Step::Wait;
        }
        if let Some(rest) = rest.strip_prefix(close) {
            self.pending = rest.to_owned();
            self.mode = Mode::Content;
            self.trims = true;
            return Step::Again;
        }
        if !end && close.starts_with(rest) {
            return Step::Wait;
        }
        self.pending = rest.to_owned();
        self.mode = Mode::Content;
        Step::Again
    }

    /// Calls in tags are read when they are whole: their values are texts, which only a function's schema makes JSON.
    fn tags(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        let Some(Syntax::Tags(tags)) = &self.syntax else { return Step::Wait };
        let close = tags.close.trim();
        let at = match self.pending.find(close) {
            Some(at) if !close.is_empty() => at,
            _ if end => self.pending.len(),
            _ => return Step::Wait,
        };
        let calls = super::schema::tagged(&self.pending[..at], tags, &self.tools);
        let length = (at + close.len()).min(self.pending.len());
        if calls.is_empty() {
            let body = self.pending[..at].to_owned();
            add(parts, Part::Content, body);
        }
        for (name, arguments) in calls {
            let index = self.calls;
            self.calls += 1;
            parts.push(Part::Call { index, name });
            parts.push(Part::Arguments { index, text: arguments.to_string() });
        }
        self.skip(length);
        self.trims = true;
        self.mode = Mode::Content;
        Step::Again
    }

    fn skip(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
    }

    fn take(&mut self, bytes: usize) -> String {
        self.pending.drain(..bytes).collect()
    }
}

fn add(parts: &mut Vec<Part>, part: impl FnOnce(String) -> Part, text: String) {
    if !text.is_empty() {
        parts.push(part(text));
    }
}

/// How many bytes at the end may be the beginning of a mark, with the white space before it.
fn held(text: &str, marks: &[&str], space: bool) -> usize {
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest);
    let begins = |at: &usize| text.is_char_boundary(*at) && marks.iter().any(|m| m.starts_with(&text[*at..]));
    let at = (from..text.len()).find(begins).unwrap_or(text.len());
    let at = if space { text[..at].trim_end().len() } else { at };
    text.len() - at
}

#[cfg(test)]
mod tests;
