//! What is refused, and the words it is refused with.

use super::House;
use crate::error::Error;

#[test]
fn a_typo_is_shown_on_its_line_with_what_was_meant() {
    let house = House::new("[server]\nliste = \"127.0.0.1:80\"\n");
    insta::assert_snapshot!(house.problems(), @r#"
    pajamas.toml:2:1: unknown key `liste` in `server`
      |
    2 | liste = "127.0.0.1:80"
      | ^^^^^
      = help: did you mean `listen`?
    "#);
    let error = Error::from(house.load().unwrap_err());
    assert_eq!((error.code(), error.how_to_fix()), ("config-unknown-key", "did you mean `listen`?"));
}

#[test]
fn everything_wrong_is_said_at_once_and_nothing_twice() {
    let house = House::new(
        r#"schema = 1
[sever]
listen = "127.0.0.1:80"

[server]
max_body = "32mb"
request_timeout = 120

[defaults]
chat = "small"
detect = "smal"
embed = "boxes"

[[models]]
id = "small"
artefact = "models/small"
task = "chatt"

[[models]]
id = "boxes"
path = "boxes.onnx"
task = "detect"
pipeline = "find"

[[models]]
id = "boxes"
path = "yolo.onnx"
preload = "yes"

[[pipelines]]
task = "detect"
steps = [{ model = true }]
"#,
    );
    insta::assert_snapshot!(house.problems(), @r#"
    pajamas.toml:2:2: unknown key `sever`
      |
    2 | [sever]
      |  ^^^^^
      = help: did you mean `server`?

    pajamas.toml:6:12: `server.max_body`: `32mb` is not a size: write a number and B, KiB, MiB, GiB, TiB (or KB, MB, GB, TB), for example "512MiB"
      |
    6 | max_body = "32mb"
      |            ^^^^^^

    pajamas.toml:7:19: `server.request_timeout`: expected a duration such as "120s", found the number 120
      |
    7 | request_timeout = 120
      |                   ^^^

    pajamas.toml:11:10: `defaults.detect`: there is no model `smal`
       |
    11 | detect = "smal"
       |          ^^^^^^
      = help: did you mean `small`?

    pajamas.toml:12:9: `defaults.embed`: model `boxes` is for the task `detect`
       |
    12 | embed = "boxes"
       |         ^^^^^^^
      = help: name a model whose task is `embed`

    pajamas.toml:16:1: unknown key `artefact` in `models.small`
       |
    16 | artefact = "models/small"
       | ^^^^^^^^
      = help: did you mean `artifact`?

    pajamas.toml:17:8: `models.small.task`: `chatt` is not one of the possible values
       |
    17 | task = "chatt"
       |        ^^^^^^^
      = help: did you mean `chat`?

    pajamas.toml:21:8: model `boxes`: `path` names boxes.onnx, which does not exist
       |
    21 | path = "boxes.onnx"
       |        ^^^^^^^^^^^^
      = help: a relative path starts at the folder of the file that it is written in

    pajamas.toml:26:6: `models` has two entries with the id `boxes`
       |
    26 | id = "boxes"
       |      ^^^^^^^
      = help: give one of them another id; the first is at pajamas.toml:20

    pajamas.toml:28:11: `models.boxes.preload`: expected true or false, found the text "yes"
       |
    28 | preload = "yes"
       |           ^^^^^

    pajamas.toml:30:1: `pipelines.0`: the key `id` is missing
       |
    30 | [[pipelines]]
       | ^^^^^^^^^^^^^
    "#);
    let error = Error::from(house.load().unwrap_err());
    assert_eq!(error.code(), "config-invalid");
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let house = House::new(
        r#"[[pipelines]]
id = "both"
task = "detect"
steps = [{ stage = "nms", model = true }, { stage = "nms" }]

[[pipelines]]
id = "twice"
task = "detect"
steps = [{ model = true }, { model = true }]

[[pipelines]]
id = "never"
task = "detect"
steps = [{ stage = "nms", limits = { memroy = "1MiB" }, files = { labels = "lables.txt" } }]

[[pipelines]]
id = "options"
task = "detect"
steps = [{ model = true, options = { x = 1 } }]

[[pipelines]]
id = "out"
task = "detect"
steps = [{ stage = "labels", files = { labels = "artifact:../../etc/passwd" } }, { model = true }]
"#,
    );
    insta::assert_snapshot!(house.problems(), @r#"
    pajamas.toml:4:10: `pipelines.both.steps.0`: a step is either a stage or the model: remove `stage` or `model`
      |
    4 | steps = [{ stage = "nms", model = true }, { stage = "nms" }]
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    pajamas.toml:9:28: pipeline `twice` runs the model more than once
      |
    9 | steps = [{ model = true }, { model = true }]
      |                            ^^^^^^^^^^^^^^^^
      = help: keep one `model = true` step

    pajamas.toml:14:38: unknown key `memroy` in `pipelines.never.steps.0.limits`
       |
    14 | steps = [{ stage = "nms", limits = { memroy = "1MiB" }, files = { labels = "lables.txt" } }]
       |                                      ^^^^^^
      = help: did you mean `memory`?

    pajamas.toml:14:76: pipeline `never`: `labels` names lables.txt, which does not exist
       |
    14 | steps = [{ stage = "nms", limits = { memroy = "1MiB" }, files = { labels = "lables.txt" } }]
       |                                                                            ^^^^^^^^^^^^
      = help: a relative path starts at the folder of the file that it is written in

    pajamas.toml:19:10: `pipelines.options.steps.0`: the model's step has only `inputs` and `outputs`: its options stand in its [[models]] entry
       |
    19 | steps = [{ model = true, options = { x = 1 } }]
       |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    pajamas.toml:24:49: `pipelines.out.steps.0.files.labels`: `../../etc/passwd` leads out of the artifact: name a file in it, for example "artifact:labels.txt"
       |
    24 | steps = [{ stage = "labels", files = { labels = "artifact:../../etc/passwd" } }, { model = true }]
       |                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_model_says_where_it_lies_exactly_once() {
    let house = House::new(
        "[[models]]\nid = \"a\"\n[[models]]\nid = \"b\"\nartifact = \".\"\npath = \"chat.gguf\"\n",
    );
    insta::assert_snapshot!(house.problems(), @r#"
    pajamas.toml:1:1: model `a` has neither `artifact` nor `path`
      |
    1 | [[models]]
      | ^^^^^^^^^^
      = help: write `artifact = "FOLDER"` for a folder with manifest.json, or `path = "FILE.gguf"`

    pajamas.toml:6:8: model `b` has both `artifact` and `path`
      |
    6 | path = "chat.gguf"
      |        ^^^^^^^^^^^
      = help: keep the one that is meant
    "#);
}

#[test]
fn a_model_and_its_pipeline_are_for_the_same_task() {
    let house = House::new(
        r#"
        models = [{ id = "m", path = "yolo.onnx", task = "classify", pipeline = "find" }]
        pipelines = [{ id = "find", task = "detect", steps = [{ model = true }] }]
        defaults = { chat = "m" }
        "#,
    );
    assert_eq!(house.codes(), ["config-conflict", "config-conflict"]);
}

#[test]
fn broken_toml_is_shown_where_it_breaks() {
    let house = House::new("[server\nlisten = \"127.0.0.1:1\"\n\n[stages]\nlimits = { memory = 64MiB }\n");
    insta::assert_snapshot!(house.problems(), @r"
    pajamas.toml:1:8: unclosed table, expected `]`
      |
    1 | [server
      |        ^

    pajamas.toml:5:21: string values must be quoted, expected literal string
      |
    5 | limits = { memory = 64MiB }
      |                     ^^^^^
    ");
    assert_eq!(House::new("schema = 1\nschema = 1\n").codes(), ["config-syntax"]);
}

#[test]
fn a_file_that_is_not_text_and_one_of_another_layout_are_refused_as_such() {
    let house = House::new("");
    std::fs::write(house.folder.path().join("pajamas.toml"), b"schema = 1\n\xff\xfe").unwrap();
    insta::assert_snapshot!(house.problems(), @r"
    pajamas.toml: byte 11 is not UTF-8 text
      = help: save the file as UTF-8
    ");
    let house = House::new("schema = 2\nnew_section = { new_key = 1 }\n");
    insta::assert_snapshot!(house.problems(), @r"
    pajamas.toml:1:10: this file has layout 2, this pajamas reads layout 1
      |
    1 | schema = 2
      |          ^
      = help: write `schema = 1`, or use the pajamas that the file was written for
    ");
}

#[test]
fn a_named_file_must_exist() {
    let mut house = House::new("");
    house.options.file = Some("other.toml".into());
    insta::assert_snapshot!(house.problems(), @r"
    flag --config: other.toml: no such file
      = help: name a file such as pajamas.toml, or leave it out to search for one
    ");
    house.options.file = Some(house.folder.path().to_owned());
    assert_eq!(house.codes(), ["config-file-missing"]);
}

#[test]
fn listening_to_other_machines_is_refused() {
    let house = House::new("[server]\nlisten = \"0.0.0.0:8797\"\n");
    insta::assert_snapshot!(house.problems(), @r#"
    pajamas.toml:2:10: `server.listen`: 0.0.0.0:8797 can be reached from other machines
      |
    2 | listen = "0.0.0.0:8797"
      |          ^^^^^^^^^^^^^^
      = help: make a key with `pajamas keys new NAME` and put it into `server.keys`, or listen on 127.0.0.1
    "#);
}

#[test]
fn stages_are_checked_by_who_knows_them() {
    let house = House::new(
        "pipelines = [{ id = \"p\", task = \"detect\", steps = [{ stage = \"nsm\" }, { model = true }] }]",
    );
    let config = house.load().unwrap();
    assert!(config.check_stages(&["nsm"]).is_ok());
    let problems = config.check_stages(&["letterbox", "nms"]).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!((problem.code(), problem.how_to_fix()), ("config-unknown-reference", "did you mean `nms`?"));
}

#[test]
fn a_program_gets_the_place_of_a_problem() {
    let problems = House::new("[server]\nliste = 1\n").load().unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!((&json[0]["line"], &json[0]["column"]), (&2.into(), &1.into()));
    assert_eq!(json[0]["code"], "config-unknown-key");
}

#[test]
fn every_code_is_in_the_table() {
    for code in [
        "config-syntax",
        "config-version",
        "config-unknown-key",
        "config-missing-key",
        "config-invalid-value",
        "config-duplicate-id",
        "config-unknown-reference",
        "config-file-missing",
        "config-conflict",
        "config-invalid",
        "listen-not-loopback",
    ] {
        assert!(crate::codes::CODES.iter().any(|(known, ..)| *known == code), "{code}");
    }
}
