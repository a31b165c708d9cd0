//! Rules that lead back to themselves.

use std::collections::BTreeMap;

use super::Node;

/// Whether any rule leads back to itself.
pub(super) fn is_recursive(rules: &BTreeMap<String, Node>) -> bool {
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

/// A rule that can begin with itself, if there is one.
pub(super) fn left_recursive(rules: &BTreeMap<String, Node>) -> Option<&str> {
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
