//! llama.cpp's grammar language, GBNF, in the words of llguidance's.
//!
//! A grammar without recursion is one regular expression. In one with recursion every character is a symbol of its own:
//! GBNF knows no words, and longer ones would be cut greedily.

mod parser;
mod recursion;

use std::collections::HashMap;
use std::fmt::Write;

use pajamas_plugin_api::Result;

use parser::Parser;
use recursion::is_recursive;

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
