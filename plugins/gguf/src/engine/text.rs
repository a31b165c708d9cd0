//! From tokens' bytes to text that may be shown: whole characters, and nothing that may yet become a stop string.

/// Collects the bytes of a generation and gives out what is certain.
#[derive(Debug)]
pub(super) struct TextStream {
    held: Vec<u8>,
    stops: Vec<String>,
}

/// What became certain with a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Certain {
    /// This text, possibly empty.
    Text(String),
    /// This text, and then a stop string came.
    Stopped {
        /// The text before the stop string.
        text: String,
        /// The stop string.
        stop: String,
    },
}

impl TextStream {
    /// A stream that ends at the first of these texts; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        Self { held: Vec::new(), stops: stops.into_iter().filter(|s| !s.is_empty()).collect() }
    }

    /// Takes a token's bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Certain {
        self.held.extend_from_slice(bytes);
        let found = self.stops.iter().filter_map(|s| find(&self.held, s.as_bytes()).map(|at| (at, s))).min();
        if let Some((at, stop)) = found {
            let stop = stop.clone();
            self.held.truncate(at);
            return Certain::Stopped { text: self.flush(), stop };
        }
        let possible = self.stops.iter().map(|s| overlap(&self.held, s.as_bytes())).max().unwrap_or(0);
        let certain = whole_characters(&self.held[..self.held.len() - possible]);
        let rest = self.held.split_off(certain);
        let text = self.flush();
        self.held = rest;
        Certain::Text(text)
    }

    /// Gives out everything that was held back. Bytes that never became a character appear as U+FFFD.
    pub fn flush(&mut self) -> String {
        let bytes = std::mem::take(&mut self.held);
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|w| w == part)
}

/// The length of the longest end of `text` that is a beginning of `stop`, but not all of it.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    (1..stop.len().min(text.len() + 1)).rev().find(|n| text.ends_with(&stop[..*n])).unwrap_or(0)
}

/// The length of `bytes` without an incomplete character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let earliest = bytes.len().saturating_sub(3);
    for start in earliest..bytes.len() {
        // A character is incomplete, rather than wrong, when what is there could be the beginning of one.
        if let Err(error) = std::str::from_utf8(&bytes[start..])
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return start;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(t: &str) -> Certain {
        Certain::Text(t.into())
    }

    #[test]
    fn characters_are_held_until_whole() {
        let mut stream = TextStream::new(vec![]);
        let llama = "🦙".as_bytes();
        assert_eq!(stream.push(&llama[..1]), text(""));
        assert_eq!(stream.push(&llama[1..3]), text(""));
        assert_eq!(stream.push(&[&llama[3..], b"!"].concat()), text("🦙!"));
        assert_eq!(stream.push(&llama[..2]), text(""));
        assert_eq!(stream.flush(), "\u{fffd}");
    }

    #[test]
    fn wrong_bytes_are_not_held() {
        let mut stream = TextStream::new(vec![]);
        assert_eq!(stream.push(b"a\xffb"), text("a\u{fffd}b"));
        assert_eq!(stream.push(b"\x80"), text("\u{fffd}"));
    }

    #[test]
    fn stops_may_span_tokens() {
        let mut stream = TextStream::new(vec!["<end>".into(), "END".into()]);
        assert_eq!(stream.push(b"one <e"), text("one "));
        assert_eq!(stream.push(b"n"), text(""));
        assert_eq!(stream.push(b"x"), text("<enx"));
        assert_eq!(stream.push(b" E"), text(" "));
        assert_eq!(stream.push(b"<end> more"), Certain::Stopped { text: "E".into(), stop: "<end>".into() });
    }

    #[test]
    fn the_earliest_stop_wins() {
        let mut stream = TextStream::new(vec!["b".into(), "a".into(), String::new()]);
        assert_eq!(stream.push(b"xaby"), Certain::Stopped { text: "x".into(), stop: "a".into() });
    }

    proptest::proptest! {
        /// However a text is cut into tokens, the same text comes out, and never a part of the stop string.
        #[test]
        fn cuts_do_not_matter(source in "[ab🦙é]{0,30}", cuts in proptest::collection::vec(1usize..5, 1..40)) {
            let stop = "abé";
            let mut stream = TextStream::new(vec![stop.into()]);
            let (mut out, mut rest, mut stopped) = (String::new(), source.as_bytes(), false);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || stopped { break }
                let (token, tail) = rest.split_at((*cut).min(rest.len()));
                rest = tail;
                match stream.push(token) {
                    Certain::Text(t) => out += &t,
                    Certain::Stopped { text, .. } => { out += &text; stopped = true }
                }
            }
            out += &stream.flush();
            let expected = source.split(stop).next().unwrap_or_default();
            proptest::prop_assert_eq!(out, expected);
            proptest::prop_assert_eq!(stopped, source.contains(stop));
        }
    }
}
