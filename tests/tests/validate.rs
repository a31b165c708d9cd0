//! How close forms are to their original: the numbers of llama.cpp's own tool, in the manifest and in a report.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, asset, pajamas, piped, run};
use serde_json::Value;
use tempfile::TempDir;

fn chat() -> PathBuf {
    repository().join("models/chat/hf")
}

/// What people asked the chat model that it was not trained on, a line each.
fn text(folder: &Path) -> PathBuf {
    let lines = fs::read_to_string(repository().join("models/chat/held-out.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<&str> = lines
        .iter()
        .flat_map(|line| line["messages"].as_array().unwrap())
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    let path = folder.join("held-out.txt");
    fs::write(&path, said.join("\n")).unwrap();
    path
}

/// An artifact of the chat model, and a text.
struct House {
    folder: TempDir,
    text: PathBuf,
}

impl House {
    fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, output) = (chat(), folder.path().join("chat"));
        let given = ["convert", source.to_str().unwrap(), "--output", output.to_str().unwrap(), "--json"];
        run([&given, arguments].concat()).unwrap().json().unwrap();
        Self { text: text(folder.path()), folder }
    }

    fn artifact(&self) -> PathBuf {
        self.folder.path().join("chat")
    }

    fn validate(&self, model: &Path, against: &Path, arguments: &[&str]) -> Finished {
        self.on(&self.text, model, against, &[&["--window", "256"], arguments].concat())
    }

    /// With files of the run in a folder of this house.
    fn on(&self, text: &Path, model: &Path, against: &Path, arguments: &[&str]) -> Finished {
        let scratch = self.folder.path().join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        let paths = [model, against, text].map(|path| path.to_str().unwrap());
        let given = ["validate", paths[0], "--against", paths[1], "--text", paths[2]];
        let mut command = pajamas().unwrap();
        command.args(given).args(arguments).env("TMPDIR", &scratch).stdin(Stdio::null());
        let finished = Finished::wait(piped(&mut command).spawn().unwrap()).unwrap();
        let left = fs::read_dir(scratch).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("pajamas")).collect();
        assert_eq!(left, [""; 0], "files of a run stayed");
        finished
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.artifact().join("manifest.json")).unwrap()).unwrap()
    }
}

/// What a form was measured to be.
fn measured(report: &Value, precision: &str) -> Value {
    let forms = report["forms"].as_array().unwrap();
    forms.iter().find(|form| form["precision"] == precision).unwrap().clone()
}

/// What llama.cpp's own tool printed, of b11312, for the same text and files, by
/// `llama-perplexity -m FILE -f held-out.txt -c 256 -b 256 --chunks 8 --kl-divergence-base base.bin`, for the file in F16
/// first, then with `--kl-divergence` for the others. Its own perplexity of the original is the one of the first run: in the others
/// that comes out of the file, which holds no probability below the sixteenth power of 1/e of the largest.
const PEER: [(&str, [f64; 7]); 3] = [
    // perplexity, its error, mean divergence, its error, 99 %, RMS of probability in %, same first choice in %
    ("Q8_0", [351.404270, 75.838138, 0.000508, 0.000033, 0.005441, 0.539, 99.114]),
    ("Q4_K_M", [364.050530, 79.047280, 0.025350, 0.002110, 0.308963, 4.391, 92.913]),
    ("Q2_K", [295.152453, 58.022459, 0.245476, 0.014347, 2.131163, 12.705, 79.921]),
];
const PEER_ORIGINAL: [f64; 2] = [351.8783, 75.95388];

#[test]
fn forms_are_as_far_as_llama_cpps_own_tool_says() {
    let house = House::new(&["--precision", "Q8_0,Q4_K_M,Q2_K"]);
    let arguments =
        ["--chunks", "8", "--max-kld", "none", "--max-kld-p99", "none", "--min-agreement", "none"];
    let arguments = [&arguments[..], &["--max-perplexity-ratio", "none", "-n", "4", "--json"]].concat();
    let report = house.validate(&house.artifact(), &chat(), &arguments).json().unwrap().remove(0);
    for (precision, peer) in PEER {
        let form = measured(&report, precision);
        let of = |path: &str| form.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let near = |what: &str, ours: f64, theirs: f64, relative: f64, absolute: f64| {
            let most = theirs.abs() * relative + absolute;
            assert!((ours - theirs).abs() <= most, "{precision}, {what}: {ours}, and llama.cpp {theirs}");
        };
        assert_eq!(
            (&form["window"], &form["chunks"], &form["scored"]),
            (&256.into(), &8.into(), &1016.into())
        );
        near("original", of("/original_perplexity/value"), PEER_ORIGINAL[0], 0.005, 0.0);
        near("its error", of("/original_perplexity/error"), PEER_ORIGINAL[1], 0.01, 0.0);
        // Kernels for blocks differ between processors; the tool keeps the original's probabilities in 16 bits.
        near("perplexity", of("/perplexity/value"), peer[0], 0.005, 0.0);
        near("its error", of("/perplexity/error"), peer[1], 0.01, 0.0);
        near("divergence", of("/kld/mean"), peer[2], 0.03, 2e-4);
        near("its error", of("/kld/error"), peer[3], 0.05, 2e-4);
        near("99 %", of("/kld/p99"), peer[4], 0.1, 2e-3);
        near("probability", of("/probability_rms/value") * 100.0, peer[5], 0.05, 0.05);
        near("first choice", of("/top1/value") * 100.0, peer[6], 0.0, 0.6);
    }
    // The fewer bits, the further.
    let kld = |precision: &str| measured(&report, precision)["kld"]["mean"].as_f64().unwrap();
    assert!(kld("Q8_0") < kld("Q4_K_M") && kld("Q4_K_M") < kld("Q2_K"));
    // A model is itself.
    let own = house.artifact().join("gguf/Q8_0/hf-Q8_0.gguf");
    let same = house.validate(&own, &own, &["--chunks", "2", "--json"]).json().unwrap().remove(0);
    let same = &same["forms"][0];
    assert!(same["kld"]["max"].as_f64().unwrap() < 1e-5, "{}", same["kld"]);
    assert_eq!((&same["top1"]["value"], &same["generation"]["match_rate"]), (&1.0.into(), &1.0.into()));
}

#[test]
fn limits_decide_and_everything_is_written_down() {
    let house = House::new(&["--formats", "gguf,mlx", "--precision", "Q8_0:4bit"]);
    let report = house.folder.path().join("report.md");
    let to = report.to_str().unwrap();
    let before = house.manifest();

    // Eight bits pass, in the manifest and by the exit status.
    let passed = house.validate(&house.artifact(), &chat(), &["--format", "gguf:q8_0", "--chunks", "4"]);
    assert!(passed.status.success(), "{}", passed.stderr);
    assert!(passed.stdout.contains("gguf Q8_0") && passed.stdout.contains("passed"), "{}", passed.stdout);
    let manifest = house.manifest();
    assert_eq!(manifest["validation"]["passed"], true);
    let quality = &manifest["formats"][0]["quality"];
    assert!(quality["kld_mean"].as_f64().unwrap() < 0.01 && quality["passed"] == true, "{quality}");
    assert_eq!(manifest["formats"][1], before["formats"][1], "what was not measured is as it was");
    assert_eq!(manifest["files"], before["files"]);

    // Nothing is good enough for this limit; all is measured and written down all the same.
    let tight = ["--chunks", "4", "--max-kld", "0.0000001", "--report", to, "--json"];
    let failed = house.validate(&house.artifact(), &chat(), &tight);
    assert_eq!(failed.refusal().unwrap(), ("validation-failed".into(), 1));
    let told = failed.lines().unwrap().remove(0);
    assert_eq!((&told["passed"], told["forms"].as_array().unwrap().len()), (&false.into(), 2));
    let mlx = measured(&told, "4bit");
    let kld = mlx["kld"]["mean"].as_f64().unwrap();
    assert!((1e-4..1.0).contains(&kld), "{kld}");
    assert!(mlx["candidate"]["bits_per_weight"].as_f64().unwrap() < 7.0);
    let manifest = house.manifest();
    assert_eq!(manifest["validation"]["passed"], false);
    assert!(manifest["formats"][1]["quality"]["kld_mean"].is_number());
    assert!(run(["verify", house.artifact().to_str().unwrap()]).unwrap().status.success());

    // The report and its charts.
    let text = fs::read_to_string(&report).unwrap();
    assert!(text.contains("mlx 4bit") && text.contains("Not every form keeps to the limits."), "{text}");
    for chart in ["report-size.svg", "report-gguf-Q8_0.svg", "report-mlx-4bit.svg"] {
        assert!(text.contains(chart), "{text}");
        let svg = fs::read_to_string(house.folder.path().join(chart)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{chart}");
    }

    // A folder of MLX alone is measured, too, and to the same numbers.
    let folder = house.artifact().join("mlx/4bit");
    let alone = house.validate(&folder, &chat(), &["--chunks", "4", "--json", "--max-kld", "none"]);
    let alone = alone.lines().unwrap().remove(0);
    assert_eq!(alone["forms"][0]["kld"], mlx["kld"]);
}

#[test]
fn what_cannot_be_compared_is_refused_and_the_manifest_stays() {
    let house = House::new(&["--precision", "Q8_0"]);
    let before = house.manifest();
    let artifact = house.artifact();
    let refuse = |text: &Path, against: &Path, arguments: &[&str]| {
        let refused = house.on(text, &artifact, against, arguments).refusal().unwrap();
        assert_eq!(house.manifest(), before);
        refused
    };
    let (text, short) = (house.text.as_path(), house.folder.path().join("short.txt"));
    assert_eq!(refuse(text, &chat(), &["--format", "gguf:Q4_K_M"]), ("variant-not-found".into(), 3));
    assert_eq!(refuse(text, &chat(), &["--window", "4"]), ("invalid-option".into(), 2));
    assert_eq!(refuse(text, &house.folder.path().join("nothing"), &[]), ("model-not-found".into(), 3));
    assert_eq!(refuse(&short, &chat(), &[]), ("file-not-found".into(), 3));
    fs::write(&short, "Hello.").unwrap();
    assert_eq!(refuse(&short, &chat(), &[]), ("text-too-short".into(), 2));
    fs::write(&short, [0xff; 4096]).unwrap();
    assert_eq!(refuse(&short, &chat(), &[]), ("invalid-input".into(), 2));
    let prompts = house.folder.path().join("prompts.txt");
    fs::write(&prompts, "llama ".repeat(2000)).unwrap();
    let long = ["--window", "256", "--chunks", "1", "--prompts", prompts.to_str().unwrap()];
    assert_eq!(refuse(text, &chat(), &long).0, "context-length-exceeded");
    if let Some(other) = asset("llm/TinyStories-656K") {
        assert_eq!(refuse(text, &other, &[]), ("vocabulary-mismatch".into(), 2));
    }
}

#[test]
fn a_batch_goes_on_after_a_model_that_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("batch.toml");
    let (chat, nothing) = (chat(), folder.path().join("nothing"));
    let entry = |model: &Path, output: &str, rest: &str| {
        format!("[[models]]\nmodel = '{}'\noutput = \"{output}\"\n{rest}\n", model.display())
    };
    let one = entry(&nothing, "none", "precision = \"Q8_0\"");
    let two = entry(&chat, "made", "formats = [\"gguf\", \"mlx\"]\nprecision = \"Q8_0:8bit\"");
    fs::write(&file, format!("options = {{ threads = 1 }}\n{one}{two}")).unwrap();
    let ended = run(["batch", "--json", file.to_str().unwrap()]).unwrap();
    assert_eq!(ended.refusal().unwrap(), ("batch-failed".into(), 1));
    let told = ended.lines().unwrap();
    assert_eq!(told[0]["refused"]["code"], "model-not-found");
    assert_eq!((told[1]["made"].as_array().unwrap().len(), &told[1]["refused"]), (2, &Value::Null));
    assert!(run(["verify", folder.path().join("made").to_str().unwrap()]).unwrap().status.success());
    assert!(!folder.path().join("none").exists());
    fs::write(&file, "[[models]]\nmodel = 1").unwrap();
    let refused = run(["batch", file.to_str().unwrap()]).unwrap();
    assert_eq!(refused.refusal().unwrap(), ("batch-invalid".into(), 2));
}
