//! The invariants and boundaries of ARCHITECTURE.md that can be read off the sources.

use std::collections::BTreeSet;

use crate::repository::{Source, root, rust_sources, show, with_name};

/// The modules of the host from the ground floor up: each knows only those before it. `error` and `codes` lie
/// below them all.
const FLOORS: &[&str] = &[
    "outbound",
    "value",
    "config",
    "hub",
    "artifact",
    "hardware",
    "plugins",
    "quantize",
    "validate",
    "jobs",
    "stages",
    "models",
    "chat",
    "remote",
    "pipeline",
    "router",
    "admission",
    "metrics",
    "host",
    "evaluate",
    "server",
    "cli",
];

/// The longest a source file may be.
const LONGEST: usize = 800;

fn fail_on(problems: Vec<String>, rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n  {}\n", problems.join("\n  "));
}

#[test]
fn only_plugin_api_names_abi_stable() {
    let mut problems = Vec::new();
    for manifest in with_name("Cargo.toml") {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let names = text.lines().any(|line| line.trim_start().starts_with("abi_stable"));
        if names != (show(&manifest) == "plugin-api/Cargo.toml") {
            problems.push(show(&manifest));
        }
    }
    for source in rust_sources().iter().filter(|s| !s.name.starts_with("plugin-api/")) {
        for (number, _) in source.code().filter(|(_, line)| line.contains(concat!("abi_stable", "::"))) {
            problems.push(format!("{}:{number}", source.name));
        }
    }
    fail_on(problems, "abi_stable is named by plugin-api, and by nothing else");
}

#[test]
fn modules_of_the_host_know_only_those_below_them() {
    let mut problems = Vec::new();
    for source in rust_sources() {
        let Some(module) =
            source.name.strip_prefix("host/src/").and_then(|rest| rest.split(['/', '.']).next())
        else {
            continue;
        };
        let Some(floor) = FLOORS.iter().position(|m| *m == module) else { continue };
        for (number, known) in crate_paths(&source) {
            let too_high = match FLOORS.iter().position(|m| *m == known) {
                Some(other) => other > floor,
                None => false,
            };
            if too_high {
                problems.push(format!("{}:{number}: `{module}` uses `crate::{known}`", source.name));
            }
        }
    }
    fail_on(problems, "a module of the host knows only those below it");
}

#[test]
fn every_module_of_the_host_has_its_floor() {
    let known: BTreeSet<_> =
        FLOORS.iter().copied().chain(["error", "codes", "lib", "main"]).map(str::to_owned).collect();
    let modules: BTreeSet<_> = rust_sources()
        .iter()
        .filter_map(|s| Some(s.name.strip_prefix("host/src/")?.split(['/', '.']).next()?.to_owned()))
        .collect();
    assert!(!modules.is_empty());
    fail_on(modules.difference(&known).cloned().collect(), "a module of the host without a floor");
}

#[test]
fn only_the_server_is_asynchronous() {
    let outside = |s: &&Source| s.name.starts_with("host/src/") && !s.name.starts_with("host/src/server/");
    let mut problems = Vec::new();
    for source in rust_sources().iter().filter(outside) {
        for (number, line) in source.code() {
            if let Some(word) = ["tokio::", "axum::", "hyper::"].iter().find(|word| line.contains(**word)) {
                problems.push(format!("{}:{number}: {word}", source.name));
            }
        }
    }
    fail_on(problems, "tokio, axum and hyper outside `server`: the rest of the host blocks its caller");
}

#[test]
fn the_router_only_decides() {
    const FORBIDDEN: &[&str] = &[
        "std::time",
        "Instant",
        "SystemTime",
        "Mutex",
        "RwLock",
        "Atomic",
        "std::fs",
        "std::io",
        "std::env",
        "std::net",
        "std::process",
        "std::thread",
        "tokio",
        "async ",
        "rand::",
        "unsafe",
    ];
    let mut problems = Vec::new();
    let router = |s: &&Source| s.name.starts_with("host/src/router/") && !s.is_test();
    for source in rust_sources().iter().filter(router) {
        for (number, line) in source.code() {
            if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{}:{number}: {word}", source.name));
            }
        }
    }
    fail_on(problems, "the router has no clock, lock or I/O");
}

#[test]
fn the_server_reaches_the_rest_through_the_host() {
    const BEYOND: &[&str] = &["artifact", "hardware", "models", "plugins", "router", "stages"];
    let mut problems = Vec::new();
    for source in rust_sources().iter().filter(|s| s.name.starts_with("host/src/server/")) {
        for (number, known) in crate_paths(source) {
            if BEYOND.contains(&known.as_str()) {
                problems.push(format!("{}:{number}: `crate::{known}`", source.name));
            }
        }
    }
    fail_on(problems, "the server decodes, calls `Host::run` and encodes");
}

#[test]
fn the_product_starts_no_other_program() {
    let of_the_product = |s: &&Source| {
        !s.is_test()
            && (s.name.starts_with("host/src/") || s.name.starts_with("plugins/") && s.name.contains("/src/"))
    };
    // It starts itself, as a worker, and nothing else.
    let itself = |source: &Source| {
        let text = source.before_tests();
        source.name == "host/src/plugins/worker/process.rs"
            && text.matches("Command::new(").count() == 1
            && text.contains("Command::new(program()?)")
            && text.contains("\"/proc/self/exe\".into()")
    };
    let mut problems = Vec::new();
    for source in rust_sources().iter().filter(of_the_product) {
        let text = source.before_tests();
        let starts = text.contains("process::Command") || text.contains("Command::new(");
        if starts && !itself(source) {
            problems.push(source.name.clone());
        }
    }
    fail_on(problems, "serving starts no Python, no conversion tool, no shell: only itself, as a worker");
}

#[test]
fn every_error_code_is_in_the_table() {
    let sources = rust_sources();
    let table = sources.iter().find(|s| s.name == "host/src/codes.rs").unwrap();
    // Each row is `("code", Class::Of, "meaning")`, however it is broken into lines.
    let rows = table.before_tests().match_indices("Class::").filter_map(|(at, _)| {
        let before = table.text[..at].trim_end().strip_suffix("\",")?;
        Some(&before[before.rfind('"')? + 1..])
    });
    let codes: Vec<_> = rows.collect();
    assert!(codes.len() > 10, "the table of codes was not found");
    let unique: BTreeSet<_> = codes.iter().copied().collect();
    assert_eq!(unique.len(), codes.len(), "a code stands twice in the table");
    let kebab = |c: &&str| c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    assert!(codes.iter().all(kebab), "codes are kebab-case");

    // The codes that plugins share are constants.
    let shared = sources.iter().find(|s| s.name == "plugin-api/src/error.rs").unwrap();
    let constants = shared.code().filter_map(|(number, line)| {
        let (_, code) = line.trim().strip_prefix("pub const ")?.split_once(": &str = \"")?;
        Some((number, code.trim_end_matches("\";")))
    });
    let mut problems: Vec<_> = constants
        .filter(|(_, code)| !unique.contains(code))
        .map(|(number, code)| format!("{}:{number}: {code}", shared.name))
        .collect();
    let loader = |s: &&Source| s.name.starts_with("host/src/") || s.name.starts_with("plugin-api/src/host/");
    for source in sources.iter().filter(loader).filter(|s| !s.is_test()) {
        let text = source.before_tests();
        let calls = ["Error::new(", "Problem::new("].into_iter().flat_map(|call| text.match_indices(call));
        for (at, call) in calls {
            let argument = text[at + call.len()..].trim_start();
            if let Some(code) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next())
                && !unique.contains(code)
            {
                let line = text[..at].lines().count();
                problems.push(format!("{}:{line}: {code}", source.name));
            }
        }
    }
    fail_on(problems, "an error code that host/src/codes.rs does not explain");
}

#[test]
fn source_files_can_be_read_in_one_sitting() {
    let too_long = rust_sources()
        .iter()
        .map(|s| (s.text.lines().count(), &s.name))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect();
    fail_on(too_long, &format!("a source file of more than {LONGEST} lines"));
}

#[test]
fn nothing_is_left_for_later() {
    // In two pieces, so that this file does not find itself.
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!"), concat!("to", "do!(")];
    let attributes = [concat!("#[", "ignore"), concat!("#[should", "_panic")];
    let mut problems = Vec::new();
    for source in rust_sources() {
        for (index, line) in source.text.lines().enumerate() {
            let line = line.trim_start();
            if marks.iter().any(|m| line.contains(m)) || attributes.iter().any(|a| line.starts_with(a)) {
                problems.push(format!("{}:{}: {line}", source.name, index + 1));
            }
        }
    }
    fail_on(problems, "left for later, or a test that does not run");
}

#[test]
fn the_workspace_is_the_one_that_is_drawn() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = text.parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    for member in members.iter().filter_map(|m| m.as_str()) {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(
            manifest.get("lints").and_then(|l| l.get("workspace")).and_then(|w| w.as_bool()),
            Some(true),
            "{member} does not take part in the workspace's lints"
        );
    }
}

/// The modules that a source names by `crate::…`, with the line.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: String = source.code().map(|(_, line)| format!("{line}\n")).collect();
    for (at, path) in code.match_indices("crate::") {
        let line = code[..at].lines().count().max(1);
        // `my_crate::` is another one.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|head| (line, head))),
            None => found.push((line, head(rest))),
        }
    }
    found
}

/// The first segment of a path.
fn head(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first segments within `{a::b, c::{d, e}}`, given what follows the brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![head(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(head(&group[at + 1..])),
            _ => {}
        }
    }
    heads
}

#[test]
fn the_reader_of_paths_can_be_trusted() {
    let source = Source {
        name: "x.rs".into(),
        text:
            "//! crate::cli\nuse crate::{config, server::{self, stream}};\nfn f(_: crate::value::Value) {}\n"
                .into(),
    };
    let heads: Vec<_> = crate_paths(&source).into_iter().map(|(_, head)| head).collect();
    assert_eq!(heads, ["config", "server", "value"]);
}
