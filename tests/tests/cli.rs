//! Journeys of a newcomer, an operator and a plugin author through the commands that are not about a model.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;

use pajamas_journeys::fixtures::{Packed, plugin, repository};
use pajamas_journeys::product::{Finished, House, chat_entry, engines, keys, pajamas, piped, run};
#[cfg(target_os = "linux")]
use pajamas_journeys::terminal::Terminal;
use serde_json::Value;

/// The one object that a command prints.
fn one(arguments: &[&str]) -> Value {
    let mut lines = run(arguments).unwrap().json().unwrap();
    assert_eq!(lines.len(), 1, "{arguments:?}");
    lines.remove(0)
}

fn stdout(arguments: &[&str]) -> String {
    let finished = run(arguments).unwrap();
    assert!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
    finished.stdout
}

#[test]
fn every_command_explains_itself() {
    let help = stdout(&["--help"]);
    let commands = [
        "generate",
        "chat",
        "detect",
        "classify",
        "embed",
        "tokenize",
        "serve",
        "bench",
        "hardware",
        "plugins",
        "stages",
        "config",
        "completions",
        "man",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is listed:\n{help}");
        assert!(stdout(&[command, "--help"]).contains("Usage: pajamas"), "{command}");
    }
    assert!(stdout(&["--version"]).starts_with("pajamas "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&["completions", shell]).contains("tokenize"), "{shell}");
    }
}

/// What the README promises: in the repository, no command needs a model to be named.
#[test]
fn a_newcomer_needs_no_options() {
    assert!(!stdout(&["chat", "-t", "0", "What is 2 plus 3?"]).trim().is_empty());
    assert!(stdout(&["detect", "models/sample.png"]).starts_with("models/sample.png: 640 x 480"));
    let classes = stdout(&["classify", "models/classify/held-out/00.png"]);
    assert!(classes.contains('%') && !classes.contains("class 0"), "classes have names: {classes}");
    assert!(!stdout(&["embed", "pajamas"]).trim().is_empty());
}

#[test]
fn the_hardware_is_told() {
    let hardware = one(&["hardware", "--json"]);
    assert!(hardware["cpu"]["logical_cores"].as_u64() > Some(0), "{hardware}");
    assert!(hardware["memory"]["total"].as_u64() > Some(1 << 20), "{hardware}");
    assert!(hardware["load"]["one"].as_f64() >= Some(0.0) && hardware["numa"].is_array(), "{hardware}");
    let devices = hardware["devices"]["known"].as_array().unwrap();
    let processor = devices.iter().find(|device| device["id"] == "cpu").unwrap();
    assert!(processor["backends"].to_string().contains("\"gguf/gguf\""), "{processor}");
    assert!(stdout(&["hardware"]).contains("\nDevices "));
}

/// Whoever looks for what is wrong with a machine may have a configuration that is wrong, too.
#[test]
fn the_hardware_is_told_where_the_configuration_cannot_be_read() {
    let finished = House::new("nonsense = 1").unwrap().run(["hardware"]).unwrap();
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stdout.contains("\nDevices     none: no plugin was asked: "), "{}", finished.stdout);
}

/// The fake machine of a Raspberry Pi among those that the host's own tests have.
const PI: &str = "host/src/hardware/machines/raspberry-pi-5.json";

#[test]
fn what_to_load_a_model_with_is_recommended_and_can_be_pasted() {
    for arguments in
        [&["hardware", "recommend", "models/chat"][..], &["hardware", "recommend", "chat", "--machine", PI]]
    {
        let found = one(&[arguments, &["--json"]].concat());
        assert_eq!((&found["backend"], &found["device"]), (&"gguf".into(), &"cpu".into()), "{found}");
        // The model is so small that all of it fits anywhere.
        assert_eq!(found["text"]["slots"], 4, "{found}");
        assert_eq!(found["text"]["context_length"], found["options"]["context_length"]);
        let need = &found["memory"][0];
        let parts = ["weights", "cache", "scratch"].map(|part| need[part].as_u64().unwrap());
        assert!(parts[0] > 0 && parts.iter().sum::<u64>() < need["room"].as_u64().unwrap(), "{need}");
        assert!(found["reasons"].as_array().unwrap().len() >= 3, "{found}");
        let house = House::new(found["entry"].as_str().unwrap()).unwrap();
        assert!(house.run(["config", "check"]).unwrap().status.success(), "{found}");
        let id = found["id"].as_str().unwrap();
        let answer = house.run(["generate", "--model", id, "-n", "3", "-t", "0", "I like"]).unwrap();
        assert!(answer.status.success(), "{}", answer.stderr);
        assert!(stdout(arguments).contains("[[models]]"));
    }
    // On this machine its backend was asked.
    let here = one(&["hardware", "recommend", "chat", "--json"]);
    assert!(here["reasons"].to_string().contains("itself estimates"), "{here}");
    let shapes = one(&["hardware", "recommend", "models/detect", "--json"]);
    assert!(shapes["text"].is_null() && shapes["memory"][0]["weights"].as_u64() > Some(0), "{shapes}");
}

#[test]
fn a_model_that_fits_nowhere_says_what_is_missing() {
    let chat = format!("[memory]\nlimit = \"1MiB\"\n{}", chat_entry("chat"));
    let finished = House::new(&chat).unwrap().run(["hardware", "recommend", "chat"]).unwrap();
    assert_eq!(finished.refusal().unwrap(), ("out-of-memory".into(), 5));
    assert!(
        finished.stderr.contains("fits nowhere here") && finished.stderr.contains("are missing"),
        "{}",
        finished.stderr
    );
    let no_machine = run(["hardware", "recommend", "chat", "--machine", "pajamas.toml"]).unwrap();
    assert_eq!(no_machine.refusal().unwrap(), ("invalid-input".into(), 2));
    assert_eq!(run(["hardware", "recommend", "nothing"]).unwrap().refusal().unwrap().0, "model-not-found");
}

#[test]
fn plugins_are_listed_with_what_was_searched_and_why() {
    let listed = one(&["plugins", "list", "--json"]);
    assert_eq!(keys(&listed), ["backends", "plugins", "quantizers", "searched"]);
    let ids: Vec<&str> =
        listed["backends"].as_array().unwrap().iter().map(|b| b["backend"]["id"].as_str().unwrap()).collect();
    for id in ["gguf", "rten", "onnxruntime"] {
        assert!(ids.contains(&id), "{ids:?}");
    }
    for backend in listed["backends"].as_array().unwrap() {
        assert_ne!(backend["probe"]["reason"], "", "{backend}");
    }
    let text = stdout(&["plugins", "list"]);
    assert!(text.contains("beside the executable") && text.contains("rten"), "{text}");
}

/// ONNX Runtime would give the machine an id and keep what it will report in the cache folder, from the moment it starts.
#[test]
#[cfg(target_os = "linux")]
fn nothing_that_is_opened_keeps_anything_about_its_use() {
    let home = tempfile::tempdir().unwrap();
    let of_user = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(Into::into).or(of_user).unwrap_or_default();
    let mut command = pajamas().unwrap();
    command.args(["plugins", "list"]).env("HOME", home.path()).env("XDG_DATA_HOME", data);
    command.env_remove("XDG_CACHE_HOME");
    let listed = Finished::wait(piped(&mut command).spawn().unwrap()).unwrap();
    assert!(listed.status.success(), "{listed:?}");
    if !engines().unwrap().contains(&"onnxruntime".to_owned()) {
        return;
    }
    assert!(listed.stdout.contains("ONNX Runtime 1"), "it was opened: {}", listed.stdout);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The outcome of each step of verifying, by name.
fn steps(report: &Value) -> Vec<(&str, &str)> {
    let steps = report["steps"].as_array().unwrap().iter();
    steps.map(|s| (s["step"].as_str().unwrap(), s["outcome"].as_str().unwrap())).collect()
}

#[test]
fn a_plugin_is_inspected_step_by_step_also_when_it_is_refused() {
    let packed = Packed::new(&plugin("examples/backend-minimal").unwrap(), "minimal", "0.1.0").unwrap();
    let folder = packed.folder().to_str().unwrap();
    let sound = one(&["plugins", "inspect", "--json", folder]);
    let names = ["manifest", "platform", "hash", "open", "probe", "layout", "create", "score"];
    assert_eq!(steps(&sound["report"]), names.map(|name| (name, "passed")));
    assert_eq!(sound["backends"][0]["backend"]["id"], "scale");

    let mut bytes = fs::read(packed.library()).unwrap();
    bytes.push(0);
    fs::write(packed.library(), bytes).unwrap();
    refused(packed.folder(), "hash", "plugin-hash-mismatch");
    let house = House::new(&format!("[plugins]\nsearch = ['{folder}']\n")).unwrap();
    let listed = house.run(["plugins", "list", "--json"]).unwrap();
    let listed = listed.json().unwrap().remove(0);
    let minimal =
        listed["plugins"].as_array().unwrap().iter().find(|p| p["manifest"]["name"] == "minimal").unwrap();
    assert_eq!(
        steps(minimal).last(),
        Some(&("hash", "failed")),
        "one that is refused is listed with its reason"
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let text = elsewhere.path().join("letter.so");
    fs::write(&text, "Dear friend").unwrap();
    refused(&text, "open", "plugin-open-failed");
}

fn refused(path: &Path, step: &str, code: &str) {
    for json in [false, true] {
        let mut arguments =
            vec!["--set", "plugins.require_hash=false", "plugins", "inspect", path.to_str().unwrap()];
        if json {
            arguments.push("--json");
        }
        let finished = run(arguments).unwrap();
        assert_eq!(finished.refusal().unwrap().0, code, "{}", path.display());
        if json {
            let report = finished.lines().unwrap().remove(0);
            assert_eq!(steps(&report["report"]).last(), Some(&(step, "failed")));
        } else {
            assert!(finished.stdout.contains(&format!("{step:<9} FAILED")), "{}", finished.stdout);
        }
    }
}

#[test]
fn a_plugin_author_tests_a_plugin_with_one_command() {
    let packed = Packed::new(&plugin("examples/backend-minimal").unwrap(), "minimal", "0.1.0").unwrap();
    let model = packed.folder().join("twice.scale");
    fs::write(&model, "2").unwrap();
    let report =
        stdout(&["plugins", "check", packed.folder().to_str().unwrap(), "--model", model.to_str().unwrap()]);
    assert!(report.contains("minimal"), "{report}");
    let misbehaving = plugin("tests/plugins/misbehaving").unwrap();
    let model = packed.folder().join("bad.trouble");
    fs::write(&model, "infer-wrong-shape").unwrap();
    let finished =
        run(["plugins", "check", "--model"].map(Path::new).into_iter().chain([&*model, &*misbehaving]))
            .unwrap();
    assert_eq!(finished.refusal().unwrap().0, "conformance-failed", "{}", finished.stdout);
    assert!(finished.stdout.contains("output-mismatch"), "{}", finished.stdout);
}

#[test]
fn stages_are_listed_inspected_and_run_alone() {
    let listed = run(["stages", "list", "--json"]).unwrap().json().unwrap();
    let names: Vec<&str> = listed.iter().map(|s| s["name"].as_str().unwrap()).collect();
    let built_in = [
        "audio-decode",
        "ctc-decode",
        "detokenize",
        "image-decode",
        "image-normalize",
        "l2-normalize",
        "labels",
        "letterbox",
        "log-mel",
        "mask-decode",
        "nms",
        "pcm-encode",
        "pool",
        "resample",
        "softmax-topk",
        "tokenize",
        "vad-frame",
        "vad-segments",
        "voice-text",
        "yolo-decode",
    ];
    assert_eq!(names, built_in);
    for stage in &listed {
        assert_eq!(keys(stage), ["doc", "name", "origin", "sha256", "version"]);
    }
    let decode = one(&["stages", "inspect", "--json", "image-decode"]);
    assert_eq!(keys(&decode), ["compiled_from_cache", "description", "sha256"]);
    assert!(stdout(&["stages", "inspect", "nms"]).contains("iou"));

    let left = run(["stages", "run", "--json", "image-decode", "models/sample.png"]).unwrap().json().unwrap();
    let image = left.iter().find(|value| value["kind"] == "image").unwrap();
    assert_eq!(keys(image), ["kind", "name", "value"]);
    let header = fs::read(repository().join("models/sample.png")).unwrap();
    let side = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!((&image["value"]["width"], &image["value"]["height"]), (&side(16).into(), &side(20).into()));

    let wrong = run(["stages", "run", "nms", "--options", "{\"iou\": 7}"]).unwrap();
    assert_eq!(wrong.refusal().unwrap().1, 2, "{}", wrong.stderr);
    let typo = run(["stages", "run", "image-decode", "models/sample.png", "--options", "{\"max_pixel\": 7}"])
        .unwrap();
    assert_eq!(typo.refusal().unwrap(), ("invalid-option".into(), 2), "{}", typo.stderr);
    assert!(typo.stderr.contains("max_pixels"), "{}", typo.stderr);
}

#[test]
fn a_model_is_measured() {
    let arguments = ["bench", "--json", "--model", "models/chat/model.gguf", "-p", "8", "-n", "4", "-r", "1"];
    let text = one(&arguments);
    let rates = text.as_object().unwrap().values().filter(|v| v.as_f64().is_some_and(|rate| rate > 0.0));
    assert!(rates.count() >= 2, "{text}");
    let picture = ["--image", "models/sample.png", "--model", "models/detect/model.onnx", "-r", "1"];
    let vision = one(&[&["bench", "--json"], &picture[..]].concat());
    for step in ["image-decode", "letterbox", "model", "nms"] {
        assert!(vision.to_string().contains(step), "{step}: {vision}");
    }
}

/// What only happens where somebody types: a conversation, its commands, Ctrl-D.
#[test]
#[cfg(target_os = "linux")]
fn a_conversation_is_held_in_a_terminal() {
    let house = House::new(&chat_entry("chat")).unwrap();
    let program = pajamas_journeys::product::pajamas().unwrap().get_program().to_string_lossy().into_owned();
    let line = format!("'{program}' --config '{}' chat --model chat -t 0", house.config().display());
    let mut terminal = Terminal::start(&line).unwrap();
    terminal.shows("/quit leaves.").unwrap();
    let mut say = |keys: &str, shown: &[&str]| {
        terminal.shows("> ").unwrap();
        terminal.types(keys).unwrap();
        shown.iter().for_each(|text| drop(terminal.shows(text).unwrap()));
    };
    say("/help\n", &["Ctrl-C stops an answer"]);
    say("What is 2 plus 3?\n", &["5"]);
    say("/history\n", &["user: What is 2 plus 3?", "assistant: ", "5"]);
    say("/nonsense\n", &["there is no command /nonsense"]);
    say("/reset\n", &["(forgotten)"]);
    say("\u{4}", &[]);
    assert!(terminal.ends().unwrap());
}
