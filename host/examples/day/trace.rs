//! The requests of a day, as the trace has them: a line for each, its fields between spaces.

use std::fmt;
use std::str::FromStr;

use pajamas::config::Task;

/// The day that is replayed.
pub const DAY: &str = include_str!("trace.txt");
/// Milliseconds of a day.
pub const LENGTH: u64 = 24 * 3600 * 1000;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Milliseconds since midnight.
    pub at: u64,
    /// The conversation that it belongs to.
    pub session: u32,
    /// The key that it was sent with.
    pub key: String,
    /// The name that it asks for: of a ladder or of a model.
    pub name: String,
    /// Tokens of its prompt, earlier turns of the conversation included.
    pub prompt: u32,
    /// Tokens of its answer; 0 for vectors.
    pub answer: u32,
    /// Among those that wait for a model, the highest goes first.
    pub priority: i32,
    /// Seconds that it may take; 0 is as long as it likes.
    pub timeout: u32,
}

impl Request {
    /// What it asks for.
    pub fn task(&self) -> Task {
        if self.answer == 0 { Task::Embed } else { Task::Chat }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, session, key, name, prompt, answer, priority, timeout } = self;
        write!(f, "{at} {session} {key} {name} {prompt} {answer} {priority} {timeout}")
    }
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        fn number<T: FromStr>(word: &str) -> Result<T, String> {
            word.parse().map_err(|_| format!("`{word}` is not the number that is due there"))
        }
        let [at, session, key, name, prompt, answer, priority, timeout] = line
            .split(' ')
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| format!("not eight fields: {line}"))?;
        Ok(Self {
            at: number(at)?,
            session: number(session)?,
            key: key.to_owned(),
            name: name.to_owned(),
            prompt: number(prompt)?,
            answer: number(answer)?,
            priority: number(priority)?,
            timeout: number(timeout)?,
        })
    }
}

/// Reads a trace. Lines that begin with `#` are for people.
///
/// # Errors
/// The first line that is no request, with its number.
pub fn read(text: &str) -> Result<Vec<Request>, String> {
    let lines = (1_u32..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#'));
    lines.map(|(place, line)| line.parse().map_err(|error| format!("line {place}: {error}"))).collect()
}
