//! The environment and the flags over the file, and who is said to have set what.

use std::collections::BTreeMap;

use super::*;

#[test]
fn later_layers_win_and_say_so() {
    let toml = "[server]\nlisten = \"127.0.0.1:1\"\nmax_body = \"1MiB\"\n[[models]]\nid = \"a-1\"\npath = \"chat.gguf\"\n";
    let house = House::new(toml)
        .variable("PAJAMAS_SERVER__LISTEN", "127.0.0.1:2")
        .variable("PAJAMAS_SERVER__REQUEST_TIMEOUT", "5s")
        .variable("PAJAMAS_MODELS__A_1__PRELOAD", "true")
        .variable("PAJAMAS_PLUGINS__SEARCH", "build")
        .variable("PAJAMAS_PLUGIN_DIR", "not a key")
        .set("server.listen", "127.0.0.1:3")
        .set("models.a-1.options.context", "256")
        .set("models.a-1.options.name", "a b")
        .set("stages.limits", "{ memory = \"1MiB\" }")
        .set("stages.search", "[\"x\", \"y\"]");
    let config = house.load().unwrap();
    let model = config.model("a-1").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.server.request_timeout, Period::seconds(5));
    assert_eq!((&model.options["context"], &model.options["name"]), (&256.into(), &"a b".into()));
    assert!(model.preload);
    assert_eq!(config.stages.limits.memory, ByteSize::mib(1));
    assert_eq!(config.stages.search.len(), 2);
    assert_eq!(config.plugins.search, [LocalPath::new(house.folder.path().join("build"))]);

    let folder = format!("{}/", house.folder.path().display());
    let rows: BTreeMap<_, _> = config
        .explain()
        .0
        .into_iter()
        .map(|s| (s.key, format!("{} from {}", s.value, s.origin).replace(&folder, "")))
        .collect();
    assert_eq!(rows["server.listen"], "\"127.0.0.1:3\" from flag --set");
    assert_eq!(rows["server.max_body"], "\"1MiB\" from pajamas.toml:3");
    assert_eq!(
        rows["server.request_timeout"],
        "\"5s\" from environment variable PAJAMAS_SERVER__REQUEST_TIMEOUT"
    );
    assert_eq!(rows["stages.limits.memory"], "\"1MiB\" from flag --set");
    assert_eq!(rows["stages.limits.deadline"], "\"10s\" from built in");
    assert_eq!(rows["memory.reserve"], "\"512MiB\" from built in");
    assert_eq!(rows["models.a-1.path"], "\"chat.gguf\" from pajamas.toml:6");
    assert_eq!(rows["models.a-1.preload"], "true from environment variable PAJAMAS_MODELS__A_1__PRELOAD");
    assert_eq!(config.origin_of("models", "a-1", "path").place().unwrap().line(), 6);
}

#[test]
fn variables_and_flags_are_checked_like_the_file() {
    let house = House::new("[[models]]\nid = \"chat\"\npath = \"chat.gguf\"\n")
        .variable("PAJAMAS_SERVER__LISTNE", "127.0.0.1:2")
        .variable("PAJAMAS_STAGES__LIMITS__MEMORY", "lots")
        .set("models.chta.preload", "true")
        .set("models.chat.preload", "maybe")
        .set("server.listen.port", "80")
        .set("schema.x", "80")
        .set("server listen", "80");
    insta::assert_snapshot!(house.problems(), @r#"
    flag --set: `models` has no entry `chta`
      = help: did you mean `chat`?

    flag --set: `server listen` is not a key
      = help: write it with dots, for example `server.listen` or `models.chat.device`

    flag --set: `models.chat.preload`: expected true or false, found the text "maybe"

    flag --set: `schema`: expected a whole number from 0 up, found a table

    environment variable PAJAMAS_SERVER__LISTNE: unknown key `listne` in `server`
      = help: did you mean `listen`?

    flag --set: `server.listen`: expected an address such as "127.0.0.1:8797", found a table

    environment variable PAJAMAS_STAGES__LIMITS__MEMORY: `stages.limits.memory`: `lots` is not a size: write a number and B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB), for example "512MiB"
    "#);
}

#[test]
fn the_explanation_is_a_table() {
    let house = House::new("[server]\nlisten = \"127.0.0.1:1\"\n");
    let table = house.load().unwrap().explain().to_string();
    insta::assert_snapshot!(table.replace(&format!("{}/", house.folder.path().display()), ""), @r#"
    schema                         1              built in
    server.client_timeout          "30s"          built in
    server.drain_timeout           "30s"          built in
    server.keys                    []             built in
    server.listen                  "127.0.0.1:1"  pajamas.toml:2
    server.max_body                "32MiB"        built in
    server.max_connections         4096           built in
    server.max_queue               64             built in
    server.request_timeout         "2m"           built in
    server.watch                   true           built in
    server.while_loading           "wait"         built in
    plugins.isolation              {}             built in
    plugins.require_hash           true           built in
    plugins.search                 []             built in
    plugins.settings               {}             built in
    plugins.worker.cancel          "10s"          built in
    plugins.worker.heartbeat       "10s"          built in
    plugins.worker.silence         "5m"           built in
    stages.limits.deadline         "10s"          built in
    stages.limits.memory           "512MiB"       built in
    stages.limits.output           "256MiB"       built in
    stages.search                  []             built in
    memory.devices                 {}             built in
    memory.reserve                 "512MiB"       built in
    jobs.history                   100            built in
    jobs.max_queue                 16             built in
    routing.intent.min_confidence  0.6            built in
    routing.intent.steps           []             built in
    routing.otherwise              "best"         built in
    routing.record                 "facts"        built in
    routing.similar.min            0.75           built in
    routing.similar.wait           "5s"           built in
    routing.warm_only              false          built in
    aliases                        {}             built in
    models                         []             built in
    ladders                        []             built in
    routes                         []             built in
    pipelines                      []             built in
    "#);
}
