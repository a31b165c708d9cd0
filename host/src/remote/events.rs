//! Server-sent events, line by line, none of them longer than it may be.

use std::io::{self, BufRead, Read};

/// The longest line that is read, in bytes.
const MOST_LINE: u64 = 1 << 20;

/// What a stream brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The data of an event.
    Data(String),
    /// A sign of life.
    Comment,
}

/// Why a stream could not be read on.
#[derive(Debug)]
pub enum Broken {
    /// The connection.
    Io(io::Error),
    /// What came over it.
    Content(&'static str),
}

/// Reads events off a stream.
#[derive(Debug)]
pub struct Events<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Events<R> {
    /// From the beginning of a body.
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks; when a line is too long, or no text.
    pub fn read(&mut self) -> Result<Option<Event>, Broken> {
        let mut data: Option<String> = None;
        loop {
            let Some(line) = self.line()? else { return Ok(data.map(Event::Data)) };
            let text = match line.split_once(':') {
                _ if line.is_empty() => match data.take() {
                    Some(data) => return Ok(Some(Event::Data(data))),
                    None => continue,
                },
                Some(("", _)) if data.is_none() => return Ok(Some(Event::Comment)),
                Some(("", _)) => continue,
                Some(("data", text)) => text.strip_prefix(' ').unwrap_or(text).to_owned(),
                // Names, numbers and pauses of events say nothing here.
                Some(("event" | "id" | "retry", _)) => continue,
                _ => return Err(Broken::Content("a line of its stream is none of an event")),
            };
            match &mut data {
                None => data = Some(text),
                Some(data) if (data.len() + text.len()) as u64 <= MOST_LINE => {
                    data.push('\n');
                    data.push_str(&text);
                }
                Some(_) => return Err(Broken::Content("an event of its stream is too long")),
            }
        }
    }

    /// The next line, without its end; `None` at the end of all.
    fn line(&mut self) -> Result<Option<String>, Broken> {
        self.line.clear();
        let read =
            (&mut self.reader).take(MOST_LINE + 1).read_until(b'\n', &mut self.line).map_err(Broken::Io)?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 > MOST_LINE {
            return Err(Broken::Content("a line of its stream is too long"));
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        match std::str::from_utf8(&self.line) {
            Ok(line) => Ok(Some(line.to_owned())),
            Err(_) => Err(Broken::Content("its stream is no text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(stream: &[u8]) -> Result<Vec<Event>, Broken> {
        let mut events = Events::new(stream);
        std::iter::from_fn(|| events.read().transpose()).collect()
    }

    fn data(text: &str) -> Event {
        Event::Data(text.to_owned())
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        let stream = b": alive\r\n\r\ndata: {\"a\": 1}\r\n\r\nevent: x\nid: 7\ndata:b\ndata: c\n\n\ndata: [DONE]\n\ndata: last";
        let expected = [Event::Comment, data("{\"a\": 1}"), data("b\nc"), data("[DONE]"), data("last")];
        assert_eq!(all(stream).unwrap(), expected);
        assert_eq!(all(b"").unwrap(), []);
    }

    #[test]
    fn what_is_no_stream_of_events_is_refused_and_nothing_grows() {
        for stream in [&b"<html>\n"[..], b"{\"error\": 1}\n", b"data: \xff\n\n"] {
            assert!(matches!(all(stream), Err(Broken::Content(_))), "{stream:?}");
        }
        let endless = |piece: &[u8]| piece.iter().copied().cycle().take(3 << 20).collect::<Vec<u8>>();
        for stream in
            [endless(b"x"), [&b"data: "[..], &endless(b"x")].concat(), endless(b"data: xxxxxxxxxxxx\n")]
        {
            assert!(matches!(all(&stream), Err(Broken::Content(_))));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(stream in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = all(&stream);
        }

        #[test]
        fn what_is_written_is_read(texts in prop::collection::vec("[^\r\n]{0,40}", 0..8)) {
            let stream: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
            let expected: Vec<Event> = texts.iter().map(|text| data(text)).collect();
            prop_assert_eq!(all(stream.as_bytes()).unwrap(), expected);
        }
    }
}
