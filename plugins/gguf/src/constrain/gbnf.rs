//! llama.cpp's grammar language, GBNF, in the words of llguidance's.
//!
//! A grammar without recursion is one regular expression. In one with recursion every character is a symbol of its own:
//! GBNF knows no words, and longer ones would be cut greedily.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use pajamas_plugin_api::{PluginError, Result};

/// How deep groups may nest.
const DEEPEST: usize = 64;
/// The most repetitions, as in llama.cpp.
const MOST_REPEATED: u32 = 2000;

/// Part of a rule.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// A set of characters: ranges, and whether they are those that are not meant.
    Class(Vec<(char, char)>, bool),
    Rule(String),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

/// Translates a grammar.
///
/// # Errors
/// `invalid-input` with the line and column.
pub(super) fn to_lark(text: &str) -> Result<String> {
    let rules = Parser::new(text).rules()?;
    let numbers: HashMap<&str, usize> =
        rules.keys().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let recursive = is_recursive(&rules);
    let name = |rule: &str| {
        let number = numbers.get(rule).copied().unwrap_or_default();
        if recursive { format!("r{number}") } else { format!("R{number}") }
    };
    let mut lark = format!("start: {}\n", name("root"));
    for (rule, node) in &rules {
        let _ = write!(lark, "{}: ", name(rule));
        write_node(&mut lark, node, &name);
        lark.push('\n');
    }
    Ok(lark)
}

fn write_node(out: &mut String, node: &Node, name: &dyn Fn(&str) -> String) {
    match node {
        Node::Class(ranges, negated) => {
            out.push_str(if *negated { "/[^" } else { "/[" });
            for (from, to) in ranges {
                let _ = write!(out, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(*from), u32::from(*to));
            }
            out.push_str("]/");
        }
        Node::Rule(rule) => out.push_str(&name(rule)),
        Node::Sequence(parts) if parts.is_empty() => out.push_str("\"\""),
        Node::Sequence(parts) => write_parts(out, parts, " ", name),
        Node::Choice(parts) => write_parts(out, parts, " | ", name),
        Node::Repeat(inner, least, most) => {
            out.push('(');
            write_node(out, inner, name);
            out.push(')');
            let _ = match (least, most) {
                (0, None) => write!(out, "*"),
                (1, None) => write!(out, "+"),
                (0, Some(1)) => write!(out, "?"),
                (least, None) => write!(out, "{{{least},}}"),
                (least, Some(most)) => write!(out, "{{{least},{most}}}"),
            };
        }
    }
}

fn write_parts(out: &mut String, parts: &[Node], between: &str, name: &dyn Fn(&str) -> String) {
    out.push('(');
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        write_node(out, part, name);
    }
    out.push(')');
}

/// Whether any rule leads back to itself.
fn is_recursive(rules: &BTreeMap<String, Node>) -> bool {
    // Rules that lead nowhere but to finished ones are finished; what is never finished is in a circle.
    let mut open: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in rules {
        let mut used = Vec::new();
        names(node, &mut used);
        open.insert(name, used);
    }
    loop {
        let done: Vec<&str> = open
            .iter()
            .filter(|(_, used)| used.iter().all(|u| !open.contains_key(u)))
            .map(|(name, _)| *name)
            .collect();
        if done.is_empty() {
            return !open.is_empty();
        }
        for name in done {
            open.remove(name);
        }
    }
}

/// The rules that a node names.
fn names<'a>(node: &'a Node, out: &mut Vec<&'a str>) {
    match node {
        Node::Class(..) => {}
        Node::Rule(rule) => out.push(rule),
        Node::Sequence(parts) | Node::Choice(parts) => parts.iter().for_each(|part| names(part, out)),
        Node::Repeat(inner, ..) => names(inner, out),
    }
}

struct Parser {
    text: Vec<char>,
    at: usize,
    /// Where each rule is named, to tell when it does not exist.
    named: Vec<(String, usize)>,
}

impl Parser {
    fn new(text: &str) -> Self {
        Self { text: text.chars().collect(), at: 0, named: Vec::new() }
    }

    fn rules(mut self) -> Result<BTreeMap<String, Node>> {
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

/// A rule that can begin with itself, if there is one.
fn left_recursive(rules: &BTreeMap<String, Node>) -> Option<&str> {
    let mut empty: BTreeMap<&str, bool> = rules.keys().map(|name| (name.as_str(), false)).collect();
    // What can be empty grows until nothing changes.
    loop {
        let grown: Vec<&str> = rules
            .iter()
            .filter(|(name, node)| !empty[name.as_str()] && can_be_empty(node, &empty))
            .map(|(name, _)| name.as_str())
            .collect();
        if grown.is_empty() {
            break;
        }
        for name in grown {
            empty.insert(name, true);
        }
    }
    let firsts: BTreeMap<&str, Vec<&str>> = rules
        .iter()
        .map(|(name, node)| {
            let mut out = Vec::new();
            first(node, &empty, &mut out);
            (name.as_str(), out)
        })
        .collect();
    firsts.keys().copied().find(|start| {
        let mut seen: Vec<&str> = Vec::new();
        let mut todo = firsts[start].clone();
        while let Some(name) = todo.pop() {
            if name == *start {
                return true;
            }
            if !seen.contains(&name) {
                seen.push(name);
                todo.extend(&firsts[name]);
            }
        }
        false
    })
}

fn can_be_empty(node: &Node, empty: &BTreeMap<&str, bool>) -> bool {
    match node {
        Node::Class(..) => false,
        Node::Rule(name) => empty.get(name.as_str()).copied().unwrap_or(false),
        Node::Sequence(parts) => parts.iter().all(|part| can_be_empty(part, empty)),
        Node::Choice(parts) => parts.iter().any(|part| can_be_empty(part, empty)),
        Node::Repeat(inner, least, _) => *least == 0 || can_be_empty(inner, empty),
    }
}

/// The rules that a node can begin with.
fn first<'a>(node: &'a Node, empty: &BTreeMap<&str, bool>, out: &mut Vec<&'a str>) {
    match node {
        Node::Class(..) => {}
        Node::Rule(name) => out.push(name),
        Node::Sequence(parts) => {
            for part in parts {
                first(part, empty, out);
                if !can_be_empty(part, empty) {
                    return;
                }
            }
        }
        Node::Choice(parts) => parts.iter().for_each(|part| first(part, empty, out)),
        Node::Repeat(inner, ..) => first(inner, empty, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        to_lark(text).unwrap_err().message
    }

    #[test]
    fn grammars_without_recursion_are_regular() {
        let lark = to_lark("root ::= \"a\" b{2,3} | # a comment\n  [^x-z]*\nb ::= (\"c\"\n | .)?\n").unwrap();
        assert_eq!(
            lark,
            "start: R1\nR0: (((((/[\\x{63}-\\x{63}]/)) | (/[\\x{0}-\\x{10ffff}]/)))?)\n\
             R1: (((/[\\x{61}-\\x{61}]/) (R0){2,3}) | ((/[^\\x{78}-\\x{7a}]/)*))\n"
        );
    }

    #[test]
    fn recursion_is_told_from_use() {
        assert!(to_lark("root ::= \"(\" root? \")\"").unwrap().starts_with("start: r0"));
        assert!(to_lark("root ::= a a\na ::= \"x\"").unwrap().starts_with("start: R1"));
    }

    #[test]
    fn mistakes_have_a_place() {
        assert!(message("root ::= \"a").contains("line 1, column 12"), "{}", message("root ::= \"a"));
        assert!(message("root ::= a\n").contains("no rule `a`"));
        assert!(message("x ::= \"a\"").contains("no rule `root`"));
        assert!(message("root ::= [a\n]b ::= \"c\"").contains("line 2"));
        assert!(message("root := \"a\"").contains("`::=`"));
        assert!(message("root ::= \"a\"{5,2}").contains("fewer"));
        assert!(message("root ::= \"a\"{99999}").contains("2000"));
        assert!(message("root ::= \"\\q\"").contains("escape"));
        assert!(message("root ::= root \"a\" | \"a\"").contains("begins with itself"));
        assert!(message("root ::= b? root \"a\"\nb ::= \"b\"").contains("begins with itself"));
        assert!(message(&("root ::= ".to_owned() + &"(".repeat(100))).contains("deeper"));
        assert!(message("root ::= \"a\"\nroot ::= \"b\"").contains("line 2"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(root ::= )?[a-c\\[\\]\"(){}|*+?.,0-9\\\\ \n#:=-]{0,60}") {
            let _ = to_lark(&text);
        }
    }
}
