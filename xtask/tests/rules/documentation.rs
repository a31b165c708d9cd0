//! The documentation points only at what is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::repository::{root, rust_sources, show, walk};

fn pages() -> Vec<PathBuf> {
    let mut pages = walk(&root(), &|path| path.extension().is_some_and(|e| e == "md"));
    pages.sort();
    assert!(!pages.is_empty());
    pages
}

/// The targets of `[text](target)` outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, mark) in line.match_indices("](") {
            if let Some((target, _)) = line[at + mark.len()..].split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[test]
fn links_between_pages_resolve() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|l| !l.contains("://") && !l.starts_with(['#', '<'])) {
            let file = link.split('#').next().unwrap_or_default();
            let folder = page.parent().unwrap_or(Path::new("/"));
            if !folder.join(file).exists() {
                broken.push(format!("{}: {link}", show(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n  {}\n", broken.join("\n  "));
}

#[test]
fn the_book_lists_every_page() {
    let folder = root().join("docs/src");
    let summary = std::fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<_> = links(&summary).into_iter().map(|link| folder.join(link)).collect();
    let there: BTreeSet<_> = walk(&folder, &|path| path.extension().is_some_and(|e| e == "md"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|n| n != "SUMMARY.md"))
        .collect();
    let missing: Vec<_> = there.difference(&listed).map(|path| show(path)).collect();
    assert!(missing.is_empty(), "pages that SUMMARY.md does not list: {}", missing.join(", "));
}

#[test]
fn every_rule_of_the_architecture_names_a_test_that_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rules: Vec<String> = text
        .split("\n\n")
        .filter(|p| p.starts_with("> **Invariant.**") || p.starts_with("> **Boundary.**"))
        .map(|p| p.replace("\n> ", " "))
        .collect();
    assert!(rules.len() > 10, "the rules were not found");
    let sources: String = rust_sources().into_iter().map(|s| s.text).collect();
    let mut problems = Vec::new();
    for rule in &rules {
        let Some((_, proof)) = rule.split_once("*(") else {
            problems.push(format!("without a test: {rule}"));
            continue;
        };
        let tests = proof.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() > 1);
        for test in tests.filter(|test| !sources.contains(&format!("fn {test}("))) {
            problems.push(format!("no test is called {test}"));
        }
    }
    assert!(problems.is_empty(), "rules of ARCHITECTURE.md:\n  {}\n", problems.join("\n  "));
}

#[test]
fn links_are_found_outside_code_only() {
    assert_eq!(links("a [b](c.md) d\n```\n[x](y)\n```\n[e](f#g)"), ["c.md", "f#g"]);
}
