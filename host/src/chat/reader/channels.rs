//! Answers in channels, as gpt-oss writes them (its format is called harmony): `<|channel|>NAME<|message|>TEXT<|end|>`.

use super::{Mode, Part, Reader, Step, add, held};

impl Reader {
    /// Up to a message's text, its header says what it is: `<|channel|>analysis<|message|>`.
    pub(super) fn header(&mut self, parts: &mut Vec<Part>) -> Step {
        const MESSAGE: &str = "<|message|>";
        let Some(at) = self.pending.find(MESSAGE) else { return Step::Wait };
        let head = self.take(at);
        self.pending.drain(..MESSAGE.len());
        let recipient = head.split("to=functions.").nth(1).map(|rest| {
            let length = rest.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(rest.len());
            rest[..length].to_owned()
        });
        self.mode = match recipient {
            Some(name) => {
                let index = self.calls;
                self.calls += 1;
                parts.push(Part::Call { index, name });
                Mode::Body { index }
            }
            None if head.contains("analysis") => Mode::Reasoning,
            None => Mode::Content,
        };
        Step::Again
    }

    /// Text up to the end of a message.
    pub(super) fn message(&mut self, parts: &mut Vec<Part>, end: bool) -> Step {
        let (text, ended) = self.until_message_ends(end);
        add(parts, Part::Content, text);
        if ended { Step::Again } else { Step::Wait }
    }

    pub(super) fn body(&mut self, parts: &mut Vec<Part>, index: usize, end: bool) -> Step {
        let (text, ended) = self.until_message_ends(end);
        add(parts, |text| Part::Arguments { index, text }, text);
        if ended { Step::Again } else { Step::Wait }
    }

    fn until_message_ends(&mut self, end: bool) -> (String, bool) {
        const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", "<|start|>"];
        let found = ENDS.iter().filter_map(|mark| Some((self.pending.find(mark)?, mark.len()))).min();
        match found {
            Some((at, length)) => {
                let text = self.take(at);
                self.pending.drain(..length);
                self.mode = Mode::Header;
                (text, true)
            }
            None => {
                let keep = if end { 0 } else { held(&self.pending, &ENDS, false) };
                (self.take(self.pending.len() - keep), false)
            }
        }
    }
}
