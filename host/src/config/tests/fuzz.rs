//! No text whatever makes loading panic.

use proptest::prelude::*;

use super::*;

/// TOML that is close to right: the fragments of real files, put together at random.
fn almost_toml() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "schema",
        "server",
        "listen",
        "server.listen",
        "models",
        "id",
        "path",
        "steps",
        "task",
        "options",
        "limits",
        "memory",
        "a.b.c",
        "\"\"",
        "\"é\"",
        "[server]",
        "[[models]]",
        "[[pipelines]]",
        "[models]",
        "[memory.devices.x]",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "1e400",
        "0xff",
        "99999999999999999999",
        "true",
        "\"auto\"",
        "\"512MiB\"",
        "\"chat\"",
        "\"\"",
        "'''x",
        "[]",
        "{}",
        "[1, {id = 1}]",
        "{ model = true }",
        "[{ stage = \"nms\" }]",
        "1979-05-27",
        "nan",
        "{",
    ]);
    let line = (key, value, any::<bool>()).prop_map(|(key, value, table)| match table {
        true if key.starts_with('[') => format!("{key}\n"),
        _ => format!("{key} = {value}\n"),
    });
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

/// Everything but finding the file.
fn load_text(text: &str) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let source = origin::Source { path: "pajamas.toml".into(), text: text.to_owned() };
    let mut tree = Node::parse(&std::sync::Arc::new(source), &mut problems);
    let config: Config = de::read(&mut tree, &de::Folders::default(), &mut problems);
    check::check(&config, &tree, &mut problems);
    problems.none_or(config)
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "\\PC{0,80}|[\\[\\]{}=.,\"'#\\na-z0-9 ]{0,120}") {
        if let Err(problems) = load_text(&text) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn nothing_close_to_right_makes_loading_panic(text in almost_toml()) {
        if let Err(problems) = load_text(&text) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn no_override_makes_loading_panic(key in "[a-z.\"\\[ 0-9]{0,24}", value in "\\PC{0,24}") {
        let house = LoadOptions {
            environment: vec![(format!("PAJAMAS_{}", key.to_uppercase().replace('.', "__")), value.clone())],
            overrides: vec![Override { flag: "--set".to_owned(), key, value }],
            ..LoadOptions::default()
        };
        let mut tree = Node::default();
        let mut problems = Problems::default();
        house.lay_over(&mut tree, &mut problems);
        let config: Config = de::read(&mut tree, &de::Folders::default(), &mut problems);
        check::check(&config, &tree, &mut problems);
    }
}
