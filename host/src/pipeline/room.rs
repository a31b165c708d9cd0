//! What an answer may be made of: a backend that goes beyond is at fault, and not listened to.

use pajamas_plugin_api::{PluginError, Result, Usage, codes};

/// The room for one answer, and what is left of it.
#[derive(Debug)]
pub(super) struct Room {
    /// The most tokens, and whose word that is.
    most: Option<(u32, &'static str)>,
    /// The most tokens of the prompt.
    context: Option<u32>,
    /// Tokens that may still come.
    tokens: Option<u64>,
    limit: u64,
    /// Bytes that may still come.
    bytes: u64,
    full: Option<Full>,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy)]
enum Full {
    Tokens,
    Bytes,
}

impl Room {
    /// Room for the tokens that were asked for, or else for the context's, if it is known, and for `limit` bytes.
    pub(super) fn new(asked: Option<u32>, context: Option<u32>, limit: u64) -> Self {
        let context = context.filter(|tokens| *tokens > 0);
        let most = match (asked, context) {
            (Some(most), _) => Some((most, "that it was asked for")),
            (None, Some(most)) => Some((most, "of the model's context")),
            (None, None) => None,
        };
        // The end's own token may bring what was held back.
        let tokens = most.map(|(most, _)| u64::from(most) + 1);
        Self { most, context, tokens, limit, bytes: limit, full: None }
    }

    /// Takes a token's text; `false` when there is no room for it.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.tokens.map(|left| left.checked_sub(1)) {
            Some(None) => self.full = Some(Full::Tokens),
            left => self.tokens = left.flatten(),
        }
        match self.bytes.checked_sub(bytes as u64) {
            Some(left) => self.bytes = left,
            None => self.full = Some(Full::Bytes),
        }
        self.full.is_none()
    }

    /// Refuses an answer that was more than there is room for.
    ///
    /// # Errors
    /// `plugin-protocol` for tokens, `output-too-large` for text.
    pub(super) fn check(&self) -> Result<()> {
        let (most, whose) = self.most.unwrap_or_default();
        match self.full {
            None => Ok(()),
            Some(Full::Tokens) => {
                let why = format!("the backend wrote more than the {most} tokens {whose}");
                Err(PluginError::new(codes::PROTOCOL, why))
            }
            Some(Full::Bytes) => {
                let why = format!("the backend wrote more than {} bytes of text", self.limit);
                Err(PluginError::new(codes::OUTPUT_TOO_LARGE, why)
                    .help("raise `stages.limits.output`, or ask for fewer tokens"))
            }
        }
    }

    /// Refuses counts that cannot be: they are what keys pay with.
    ///
    /// # Errors
    /// `plugin-protocol`.
    pub(super) fn check_usage(&self, usage: &Usage) -> Result<()> {
        let impossible = |said: u32, of: &str, most: u32, whose: &str| {
            let why = format!("the backend counts {said} tokens {of}, of at most {most} {whose}");
            Err(PluginError::new(codes::PROTOCOL, why))
        };
        match (self.most, self.context) {
            (Some((most, whose)), _) if usage.completion_tokens > most.saturating_add(1) => {
                impossible(usage.completion_tokens, "in the answer", most, whose)
            }
            (_, Some(most)) if usage.prompt_tokens > most => {
                impossible(usage.prompt_tokens, "in the prompt", most, "of the model's context")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<()>) -> String {
        result.map_or_else(|error| error.code, |()| String::new())
    }

    #[test]
    fn tokens_are_taken_up_to_what_was_asked_for_and_its_end() {
        let mut room = Room::new(Some(2), Some(64), 100);
        assert!((0..3).all(|_| room.take(1)));
        assert_eq!(code(room.check()), "");
        assert!(!room.take(1));
        assert_eq!(code(room.check()), "plugin-protocol");
        assert!(room.check().unwrap_err().message.contains("the 2 tokens that it was asked for"));
    }

    #[test]
    fn who_asks_for_no_number_gets_at_most_the_context() {
        let mut room = Room::new(None, Some(2), 100);
        assert!((0..3).all(|_| room.take(0)) && !room.take(0));
        // What has no context has no end of tokens, but one of text.
        for context in [None, Some(0)] {
            let mut room = Room::new(None, context, 100);
            assert!((0..10).all(|_| room.take(10)) && !room.take(1));
            assert_eq!(code(room.check()), "output-too-large");
        }
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let usage = |prompt, completion| Usage {
            prompt_tokens: prompt,
            completion_tokens: completion,
            cached_tokens: 0,
        };
        let room = Room::new(Some(2), Some(64), 100);
        assert_eq!(code(room.check_usage(&usage(64, 3))), "");
        assert_eq!(code(room.check_usage(&usage(64, 4))), "plugin-protocol");
        assert_eq!(code(room.check_usage(&usage(65, 2))), "plugin-protocol");
        assert_eq!(code(Room::new(None, None, 0).check_usage(&usage(u32::MAX, u32::MAX))), "");
    }
}
