//! One answer's way through a grammar.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv};
use pajamas_llama_cpp::Token;
use pajamas_plugin_api::{Constraint, PluginError, Result};

/// Says what may come next, and is told what came.
pub(crate) struct Guide {
    /// The grammar at its beginning.
    fresh: Matcher,
    /// Where the answer is in it; `None` while it is free.
    current: Option<Matcher>,
    after: Vec<Vec<u8>>,
    /// The end of what was generated freely, as long as a trigger can begin in it.
    tail: Vec<u8>,
    tokens: TokEnv,
}

/// What may come next.
pub(crate) enum Next {
    /// Any token.
    Any,
    /// These, and the end if it is among them.
    Only(SimpleVob),
    /// Nothing: the grammar is complete.
    End,
}

/// What became of a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The answer goes on.
    Goes,
    /// The grammar is complete, and the answer with it.
    Complete,
    /// It cannot come here after all: it began the grammar with what the grammar does not allow.
    Refused,
}

impl Guide {
    pub(super) fn new(fresh: Matcher, tokens: TokEnv, constraint: &Constraint) -> Self {
        let begins = constraint.after.is_empty() || constraint.begun;
        Self {
            current: begins.then(|| fresh.clone()),
            fresh,
            after: constraint.after.iter().map(|text| text.as_bytes().to_vec()).collect(),
            tail: Vec::new(),
            tokens,
        }
    }

    /// What may come next. Bounded in time.
    ///
    /// # Errors
    /// `invalid-input` when the grammar costs more than it may.
    pub fn next(&mut self) -> Result<Next> {
        let Some(matcher) = &mut self.current else { return Ok(Next::Any) };
        if matcher.is_stopped() {
            return match matcher.get_error() {
                Some(error) => Err(costly(&error)),
                None => Ok(Next::End),
            };
        }
        matcher.compute_mask().map(Next::Only).map_err(|error| costly(&error.to_string()))
    }

    /// Takes the token that was chosen, and its bytes; not for end tokens.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn take(&mut self, token: Token, bytes: &[u8]) -> Result<Taken> {
        match &mut self.current {
            Some(matcher) => {
                matcher.consume_token(token as u32).map_err(|error| costly(&error.to_string()))?;
                Ok(self.settle())
            }
            None => self.watch(bytes),
        }
    }

    /// After a token under the grammar: whether that was its end.
    fn settle(&mut self) -> Taken {
        let complete = self.current.as_ref().is_some_and(|m| m.is_stopped() && m.get_error().is_none());
        if !complete {
            return Taken::Goes;
        }
        if self.after.is_empty() {
            return Taken::Complete;
        }
        self.current = None;
        self.tail.clear();
        Taken::Goes
    }

    /// After a free token: whether it switched the grammar on.
    fn watch(&mut self, bytes: &[u8]) -> Result<Taken> {
        let old = self.tail.len();
        self.tail.extend_from_slice(bytes);
        let end = self.after.iter().filter_map(|t| find(&self.tail, t).map(|at| at + t.len())).min();
        let Some(end) = end else {
            let longest = self.after.iter().map(Vec::len).max().unwrap_or(0);
            let keep = self.tail.len().min(longest.saturating_sub(1));
            self.tail.drain(..self.tail.len() - keep);
            return Ok(Taken::Goes);
        };
        // The token may reach into the grammar.
        let mut matcher = self.fresh.clone();
        let rest = self.tokens.tok_trie().greedy_tokenize(&self.tail[end..]);
        let taken = matcher.try_consume_tokens(&rest).map_err(|error| costly(&error.to_string()))?;
        if taken < rest.len() {
            self.tail.truncate(old);
            return Ok(Taken::Refused);
        }
        self.tail.clear();
        self.current = Some(matcher);
        self.settle();
        Ok(Taken::Goes)
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|w| w == part)
}

fn costly(error: &str) -> PluginError {
    PluginError::invalid_input(format!("the constraint cannot be followed: {error}"))
        .help("simplify the schema or the grammar: what one token may cost is bounded")
}
