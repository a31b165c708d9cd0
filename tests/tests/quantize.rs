//! From a source model to an artifact that answers, by the command line; and whatever is wrong leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_journeys::artifacts::files;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, House, asset, run};
use serde_json::Value;
use tempfile::TempDir;

/// The repository's own chat model, as Hugging Face keeps models.
fn chat() -> PathBuf {
    repository().join("models/chat/hf")
}

fn convert(source: &Path, output: &Path, arguments: &[&str]) -> Finished {
    let (source, output) = (source.to_str().unwrap(), output.to_str().unwrap());
    run([&["convert", source, "--output", output], arguments].concat()).unwrap()
}

/// What a model answers, token by token.
fn tokens(model: &str, house: Option<&House>) -> Value {
    let prompt = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n";
    let arguments = ["generate", "--json", "-t", "0", "-n", "24", "--special", "--model", model, prompt];
    let finished = match house {
        Some(house) => house.run(arguments),
        None => run(arguments),
    };
    finished.unwrap().json().unwrap().remove(0)["tokens"].take()
}

#[test]
fn a_folder_becomes_an_artifact_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("chat");
    let made = convert(&chat(), &output, &["--precision", "Q8_0,Q4_K_M", "--json"]).json().unwrap();
    let forms: Vec<_> = made.iter().map(|m| (m["precision"].as_str().unwrap(), &m["skipped"])).collect();
    assert_eq!(forms, [("Q8_0", &Value::Bool(false)), ("Q4_K_M", &Value::Bool(false))]);
    let wanted = [
        "gguf/Q4_K_M/hf-Q4_K_M.gguf",
        "gguf/Q4_K_M/metadata.json",
        "gguf/Q8_0/hf-Q8_0.gguf",
        "gguf/Q8_0/metadata.json",
        "manifest.json",
    ];
    assert_eq!(files(&output), wanted);

    // It answers as the model that it was made of: eight bits lose too little to change these words.
    let path = output.to_str().unwrap();
    let original = tokens("models/chat/model.gguf", None);
    assert!(original.as_array().unwrap().len() > 5);
    assert_eq!(tokens(path, None), original);
    let entry = format!(
        "[[models]]\nid = \"small\"\nartifact = '{path}'\nformat = \"gguf\"\nprecision = \"q4_k_m\"\noptions = {{ threads = 1 }}\n"
    );
    assert!(!tokens("small", Some(&House::new(&entry).unwrap())).as_array().unwrap().is_empty());

    // The same again is there already, and says so.
    let again = convert(&chat(), &output, &["--precision", "q8_0:"]);
    assert_eq!(again.refusal().unwrap().0, "invalid-option");
    let again = convert(&chat(), &output, &["--precision", "q8_0", "--json"]).json().unwrap();
    assert_eq!((&again[0]["skipped"], &again[0]["files"]), (&Value::Bool(true), &made[0]["files"]));

    // What was changed is noticed, and made anew.
    let verified = run(["verify", "--json", path]).unwrap().json().unwrap();
    assert_eq!(verified[0]["files"], 4);
    let file = output.join("gguf/Q8_0/hf-Q8_0.gguf");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let refused = run(["verify", path]).unwrap();
    assert_eq!(refused.refusal().unwrap().0, "artifact-corrupt");
    assert!(
        refused.stderr.contains("hf-Q8_0.gguf") && !refused.stderr.contains("Q4_K_M"),
        "{}",
        refused.stderr
    );
    let again = convert(&chat(), &output, &["--precision", "Q8_0", "--json"]).json().unwrap();
    assert_eq!((&again[0]["skipped"], &again[0]["files"]), (&Value::Bool(false), &made[0]["files"]));
    assert!(run(["verify", path]).unwrap().status.success());

    // Other options make another file.
    let pure = convert(&chat(), &output, &["--precision", "Q4_K_M", "--pure", "--json"]).json().unwrap();
    assert_eq!(pure[0]["skipped"], false);
    assert_ne!(pure[0]["files"], made[1]["files"]);
    assert!(run(["verify", path]).unwrap().status.success());
}

#[test]
fn a_dry_run_says_the_exact_size_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let planned = convert(&chat(), &output, &["-p", "Q5_K_M", "--dry-run", "--json"]).json().unwrap();
    assert!(!output.exists());
    assert!(planned[0]["peak_memory"].as_u64().unwrap() > 0);
    let made = convert(&chat(), &output, &["-p", "Q5_K_M", "--threads", "1", "--json"]).json().unwrap();
    assert_eq!(planned[0]["files"][0]["bytes"], made[0]["files"][0]["bytes"]);
    // A GGUF file is a source, too; and so is the artifact that was just made, unless it would lose twice.
    let model = repository().join("models/chat/model.gguf");
    let from_file =
        convert(&model, &folder.path().join("b"), &["-p", "IQ4_XS", "--override", "attn_v=q8_0", "--json"]);
    let report = &from_file.json().unwrap()[0]["report"];
    assert_eq!(report["tensors"]["q8_0"], 3, "{report}");
    let twice = convert(&output, &folder.path().join("c"), &["-p", "Q4_0"]);
    assert_eq!(twice.refusal().unwrap(), ("requantize-refused".into(), 2));
    assert!(!folder.path().join("c").exists());
}

#[test]
fn a_model_is_described_whatever_form_it_has() {
    let describe =
        |path: &Path| run(["info", "--json", path.to_str().unwrap()]).unwrap().json().unwrap().remove(0);
    let folder = describe(&chat());
    let (file, artifact) =
        (describe(&repository().join("models/chat/model.gguf")), describe(&repository().join("models/chat")));
    assert_eq!(file, artifact);
    for key in [
        "family",
        "attention",
        "layers",
        "hidden_size",
        "context",
        "vocabulary",
        "tokenizer",
        "parameters",
        "task",
    ] {
        assert_eq!(folder[key], file[key], "{key}");
    }
    assert_eq!((&folder["format"], &file["precision"]), (&"huggingface".into(), &"F16".into()));
    let text = run(["info", chat().to_str().unwrap()]).unwrap().stdout;
    assert!(text.contains("gqa, 4 heads on 2 of keys and values"), "{text}");
    let nothing = tempfile::tempdir().unwrap();
    let refused = run(["info", nothing.path().to_str().unwrap()]).unwrap();
    assert_eq!(refused.refusal().unwrap(), ("model-not-found".into(), 3));
}

/// A copy of the chat model, to be damaged.
struct Damaged(TempDir);

impl Damaged {
    fn new(file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(chat()).unwrap().flatten() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
        Self(folder)
    }
}

#[test]
fn what_is_wrong_with_a_model_leaves_nothing_behind() {
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    let cases = [
        ("safetensors-truncated", Damaged::new("model.safetensors", |b| b.truncate(b.len() - 100))),
        // The largest number that two bytes hold is none, in both of their types.
        (
            "weight-not-finite",
            Damaged::new("model.safetensors", |b| {
                let end = b.len();
                b[end - 2..].copy_from_slice(&[0xff, 0x7f]);
            }),
        ),
        (
            "architecture-unsupported",
            Damaged::new("config.json", replace("LlamaForCausalLM", "LamaForCausalLM")),
        ),
        ("model-config-invalid", Damaged::new("config.json", |b| b.truncate(20))),
        ("tokenizer-invalid", Damaged::new("tokenizer.json", |b| b.truncate(200))),
    ];
    for (code, model) in &cases {
        for precision in ["F16", "Q4_K_M"] {
            let parent = tempfile::tempdir().unwrap();
            let refused = convert(model.0.path(), &parent.path().join("out"), &["-p", precision]);
            assert_eq!(refused.refusal().unwrap(), ((*code).to_owned(), 2), "{}", refused.stderr);
            assert_eq!(files(parent.path()), [""; 0], "{code}");
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "{code}: an empty folder stayed");
        }
    }
    let refuse = |arguments: &[&str]| {
        let parent = tempfile::tempdir().unwrap();
        let refused = convert(&chat(), &parent.path().join("out"), arguments);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        refused.refusal().unwrap().0
    };
    assert_eq!(refuse(&["-p", "Q4_K_X"]), "invalid-option");
    assert_eq!(refuse(&["-p", "IQ2_XS"]), "importance-missing");
    assert_eq!(refuse(&["-p", "Q8_0", "-f", "ggml"]), "quantizer-not-found");
    assert_eq!(refuse(&["-p", "Q8_0", "--override", "(=f16"]), "invalid-option");
    assert_eq!(refuse(&["-p", "Q8_0", "--option", "speed=11"]), "invalid-option");
}

/// A file system of one megabyte, in a name space of its own.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_nothing_behind() {
    use pajamas_journeys::product::{pajamas, piped};
    use std::process::Command;

    let small = tempfile::tempdir().unwrap();
    let small = small.path().display().to_string();
    let mount = format!("mount -t tmpfs -o size=1m none '{small}'");
    let unshare = |script: String| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        command
    };
    if !unshare(mount.clone()).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    }
    let program = pajamas().unwrap().get_program().to_string_lossy().into_owned();
    for precision in ["F16", "Q8_0", "Q6_K"] {
        let source = chat().display().to_string();
        let script = format!(
            "{mount} && {{ '{program}' convert '{source}' -p {precision} -o '{small}/out'; status=$?; find '{small}' -mindepth 1; exit $status; }}"
        );
        let finished =
            Finished::wait(piped(unshare(script).current_dir(repository())).spawn().unwrap()).unwrap();
        assert_eq!(finished.refusal().unwrap().0, "write-failed", "{}", finished.stderr);
        assert_eq!(finished.stdout, "", "{precision}");
    }
}

/// The trained model of the shared assets, in 32 bits: token for token what NumPy computes with 64.
#[test]
fn a_trained_model_says_what_it_said() {
    let (Some(model), Some(golden)) = (asset("llm/TinyStories-656K"), asset("llm/golden_numpy.json")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    convert(&model, folder.path(), &["-p", "F32", "--json"]).json().unwrap();
    let golden: Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    for case in golden["TinyStories-656K"]["cases"].as_array().unwrap() {
        let ids = |key: &str| {
            let ids = case[key].as_array().unwrap().iter().map(|id| id.to_string());
            ids.collect::<Vec<_>>().join(",")
        };
        let count = case["greedy_ids"].as_array().unwrap().len().to_string();
        let path = folder.path().to_str().unwrap();
        let arguments = [
            "generate",
            "--json",
            "-t",
            "0",
            "-n",
            &count,
            "--model",
            path,
            "--prompt-tokens",
            &ids("prompt_ids"),
        ];
        let answer = run(arguments).unwrap().json().unwrap().remove(0);
        assert_eq!(answer["tokens"], case["greedy_ids"]);
    }
}
