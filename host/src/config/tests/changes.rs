//! What a second configuration changes about the first.

use super::*;

fn succession(old: &str, new: &str) -> (Config, Result<Changes, Problems>) {
    let house = House::new(old);
    let old = house.load().unwrap();
    std::fs::write(house.folder.path().join("pajamas.toml"), new).unwrap();
    let mut new = old.again().unwrap();
    let changes = new.succeed(&old);
    (new, changes)
}

#[test]
fn what_differs_is_named_and_never_told() {
    let key = |name: &str, digit: &str| {
        format!("[[server.keys]]\nname = \"{name}\"\nsha256 = \"{}\"\n", digit.repeat(64))
    };
    let model = |id: &str, rest: &str| format!("[[models]]\nid = \"{id}\"\npath = \"chat.gguf\"\n{rest}\n");
    let old = format!(
        "[server]\nmax_queue = 1\n{}{}{}{}{}",
        key("a", "0"),
        key("b", "1"),
        model("one", ""),
        model("two", ""),
        model("three", "options = { threads = 1 }"),
    );
    let new = format!(
        "[server]\nmax_queue = 2\n{}{}{}{}{}[defaults]\nchat = \"one\"\n",
        key("a", "2"),
        key("c", "1"),
        model("one", "description = \"first\""),
        model("three", "options = { threads = 2 }"),
        model("four", ""),
    );
    let changes = succession(&old, &new).1.unwrap();
    assert_eq!(
        changes.to_string(),
        "models: four added, two removed, one changed, three changed; keys: c added, b removed, a changed; \
         defaults.chat; server.max_queue"
    );
    assert_eq!(changes.to_load_anew, ["three"], "a description is not in a session");
}

#[test]
fn nothing_different_is_nothing_changed() {
    let changes =
        succession("[server]\nmax_queue = 1\n", "# as before\n[server]\nmax_queue = 1\n").1.unwrap();
    assert!(changes.is_empty(), "{changes}");
    assert_eq!(changes.to_string(), "nothing changed");
}

#[test]
fn what_is_fixed_while_running_stays_in_force_with_its_source() {
    let old = "[server]\nlisten = \"127.0.0.1:1\"\n[plugins]\nrequire_hash = false\n";
    let new = "schema = 1\n\n[server]\nlisten = \"127.0.0.1:2\"\nmax_queue = 2\nmax_connections = 9\n";
    let (config, changes) = succession(old, new);
    let changes = changes.unwrap();
    assert_eq!(changes.settings, ["server.max_queue"]);
    assert_eq!(changes.needs_restart, ["plugins.require_hash", "server.listen", "server.max_connections"]);
    let explained = config.explain().0;
    let setting = |key: &str| explained.iter().find(|s| s.key == key).unwrap();
    let source = |key: &str| setting(key).origin.to_string();
    assert_eq!(setting("server.listen").value, "127.0.0.1:1");
    assert!(source("server.listen").ends_with("pajamas.toml:2"), "{}", source("server.listen"));
    assert_eq!(
        (setting("server.max_connections").value.as_u64(), &*source("server.max_connections")),
        (Some(4096), "built in")
    );
    assert_eq!(setting("plugins.require_hash").value, false);
    assert!(source("server.max_queue").ends_with("pajamas.toml:5"));
}

#[test]
fn an_open_address_that_stays_keeps_needing_a_key() {
    let key = format!("[[server.keys]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    let old = format!("[server]\nlisten = \"0.0.0.0:1\"\n{key}");
    let problems = succession(&old, "[server]\nlisten = \"127.0.0.1:1\"\n").1.unwrap_err();
    assert_eq!(problems.iter().next().unwrap().code(), "listen-not-loopback");
}

#[test]
fn a_file_that_is_gone_is_not_the_same_as_none() {
    let house = House::new("[server]\nmax_queue = 1\n").variable("PAJAMAS_SERVER__MAX_BODY", "1KiB");
    let config = house.load().unwrap();
    std::fs::remove_file(house.folder.path().join("pajamas.toml")).unwrap();
    let problems = config.again().unwrap_err();
    assert_eq!(problems.iter().next().unwrap().code(), "config-file-missing");
    std::fs::write(house.folder.path().join("pajamas.toml"), "[server]\nmax_queue = 2\n").unwrap();
    let again = config.again().unwrap();
    assert_eq!((again.server.max_queue, again.server.max_body), (2, ByteSize::bytes(1024)), "layers stay");
}
