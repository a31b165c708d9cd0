//! GBNF text to rules.

use std::collections::BTreeMap;

use pajamas_plugin_api::{PluginError, Result};

use super::Node;
use super::recursion::left_recursive;

/// How deep groups may nest.
const DEEPEST: usize = 64;
/// The most repetitions, as in llama.cpp.
const MOST_REPEATED: u32 = 2000;

/// Reads a grammar from its beginning.
pub(super) struct Parser {
    text: Vec<char>,
    at: usize,
    /// Where each rule is named, to tell when it does not exist.
    named: Vec<(String, usize)>,
}

impl Parser {
    pub fn new(text: &str) -> Self {
        Self { text: text.chars().collect(), at: 0, named: Vec::new() }
    }

    /// The rules by name.
    ///
    /// # Errors
    /// `invalid-input` with the line and column.
    pub fn rules(mut self) -> Result<BTreeMap<String, Node>> {
        let mut rules = BTreeMap::new();
        self.space(true);
        while self.peek().is_some() {
            let start = self.at;
            let name = self.name()?;
            self.space(false);
            for expected in "::=".chars() {
                self.expect(expected, &format!("`::=` after the rule's name `{name}`"))?;
            }
            self.space(true);
            let node = self.choice(0)?;
            if !matches!(self.peek(), None | Some('\n' | '\r')) {
                return Err(self.error(&format!("the rule `{name}` does not end here")));
            }
            if rules.insert(name.clone(), node).is_some() {
                self.at = start;
                return Err(self.error(&format!("the rule `{name}` is defined twice")));
            }
            self.space(true);
        }
        if !rules.contains_key("root") {
            return Err(PluginError::invalid_input("the grammar has no rule `root`"));
        }
        if let Some((name, at)) = self.named.iter().find(|(name, _)| !rules.contains_key(name)).cloned() {
            self.at = at;
            return Err(self.error(&format!("there is no rule `{name}`")));
        }
        if let Some(name) = left_recursive(&rules) {
            return Err(PluginError::invalid_input(format!(
                "the grammar's rule `{name}` begins with itself, which would never end"
            )));
        }
        Ok(rules)
    }

    fn choice(&mut self, depth: usize) -> Result<Node> {
        if depth > DEEPEST {
            return Err(self.error(&format!("groups nest deeper than {DEEPEST}")));
        }
        let mut parts = vec![self.sequence(depth)?];
        while self.peek() == Some('|') {
            self.at += 1;
            self.space(true);
            parts.push(self.sequence(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Choice(parts) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node> {
        let mut parts: Vec<Node> = Vec::new();
        loop {
            let symbol = match self.peek() {
                Some('"') => self.literal()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.at += 1;
                    Node::Class(vec![('\0', char::MAX)], false)
                }
                Some('(') => {
                    self.at += 1;
                    self.space(true);
                    let inner = self.choice(depth + 1)?;
                    self.expect(')', "`)`")?;
                    inner
                }
                Some(c) if is_name(c) => {
                    let at = self.at;
                    let name = self.name()?;
                    self.named.push((name.clone(), at));
                    Node::Rule(name)
                }
                Some('<' | '!') => return Err(self.error("tokens by their name or number are not supported")),
                _ => return Ok(Node::Sequence(parts)),
            };
            let symbol = self.repeated(symbol)?;
            parts.push(symbol);
            self.space(depth > 0);
        }
    }

    fn repeated(&mut self, symbol: Node) -> Result<Node> {
        // A space before the sign is allowed, as in llama.cpp; a line break is not.
        self.space(false);
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                self.space(false);
                let least = self.number()?;
                self.space(false);
                let most = if self.peek() == Some(',') {
                    self.at += 1;
                    self.space(false);
                    if self.peek().is_some_and(|c| c.is_ascii_digit()) { Some(self.number()?) } else { None }
                } else {
                    Some(least)
                };
                self.space(false);
                if self.peek() != Some('}') {
                    return Err(self.error("expected `}`"));
                }
                if most.is_some_and(|most| most < least) {
                    return Err(self.error("the most repetitions are fewer than the least"));
                }
                (least, most)
            }
            _ => return Ok(symbol),
        };
        self.at += 1;
        Ok(Node::Repeat(Box::new(symbol), least, most))
    }

    fn number(&mut self) -> Result<u32> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.text[start..self.at].iter().collect();
        digits
            .parse()
            .ok()
            .filter(|n| *n <= MOST_REPEATED)
            .ok_or_else(|| self.error(&format!("expected a number of repetitions, at most {MOST_REPEATED}")))
    }

    fn literal(&mut self) -> Result<Node> {
        self.at += 1;
        let mut parts = Vec::new();
        while self.peek() != Some('"') {
            let c = self.character("a text without its closing `\"`")?;
            parts.push(Node::Class(vec![(c, c)], false));
        }
        self.at += 1;
        Ok(Node::Sequence(parts))
    }

    fn class(&mut self) -> Result<Node> {
        const OPEN: &str = "a set of characters without its closing `]`";
        self.at += 1;
        let negated = self.peek() == Some('^');
        self.at += usize::from(negated);
        let mut ranges = Vec::new();
        while self.peek() != Some(']') {
            let from = self.character(OPEN)?;
            let range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
            let to = if range {
                self.at += 1;
                self.character(OPEN)?
            } else {
                from
            };
            if to < from {
                return Err(self.error(&format!("the range from {from:?} to {to:?} is empty")));
            }
            ranges.push((from, to));
        }
        self.at += 1;
        if ranges.is_empty() {
            return match negated {
                true => Ok(Node::Class(vec![('\0', char::MAX)], false)),
                false => Err(self.error("an empty set of characters matches nothing")),
            };
        }
        Ok(Node::Class(ranges, negated))
    }

    /// A character of a literal or a class, with its escapes.
    fn character(&mut self, unclosed: &str) -> Result<char> {
        let c = self.peek().ok_or_else(|| self.error(unclosed))?;
        self.at += 1;
        if c != '\\' {
            return Ok(c);
        }
        let escape = self.peek().ok_or_else(|| self.error(unclosed))?;
        self.at += 1;
        match escape {
            'x' => self.hexadecimal(2),
            'u' => self.hexadecimal(4),
            'U' => self.hexadecimal(8),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'n' => Ok('\n'),
            '\\' | '"' | '[' | ']' | '-' | '^' => Ok(escape),
            other => Err(self.error(&format!("there is no escape `\\{other}`"))),
        }
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<char> {
        let end = (self.at + digits).min(self.text.len());
        let text: String = self.text[self.at..end].iter().collect();
        let number =
            u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits && !text.starts_with('+'));
        let c = number.and_then(char::from_u32);
        let c =
            c.ok_or_else(|| self.error(&format!("expected {digits} hexadecimal digits of a character")))?;
        self.at = end;
        Ok(c)
    }

    fn name(&mut self) -> Result<String> {
        let start = self.at;
        while self.peek().is_some_and(is_name) {
            self.at += 1;
        }
        if start == self.at {
            return Err(self.error("expected the name of a rule"));
        }
        Ok(self.text[start..self.at].iter().collect())
    }

    /// Skips blanks and comments, and line breaks where they mean nothing.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if lines => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n' && c != '\r') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn expect(&mut self, c: char, what: &str) -> Result<()> {
        if self.peek() != Some(c) {
            return Err(self.error(&format!("expected {what}")));
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn error(&self, what: &str) -> PluginError {
        let before = &self.text[..self.at.min(self.text.len())];
        let line = before.iter().filter(|c| **c == '\n').count() + 1;
        let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
        PluginError::invalid_input(format!("the grammar, line {line}, column {column}: {what}"))
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}
