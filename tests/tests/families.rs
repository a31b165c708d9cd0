//! Models of the families that differ most in how they are built, trained by the repository's scripts: what is made of them
//! answers as they were measured to, and what is said of their experts.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, model_entry, run};
use regex_lite::Regex;
use serde_json::{Value, json};

/// Folders of `models/families`, what each is called, and how many of its layers have a window.
const FAMILIES: [(&str, &str, u64); 3] = [
    ("moe", "mixture-of-experts", 0),
    ("alternating", "hybrid-local-global", 1),
    ("hybrid", "hybrid-local-global", 2),
];

fn source(family: &str) -> PathBuf {
    repository().join("models/families").join(family).join("hf")
}

fn made(family: &str, precision: &str, output: &Path) -> PathBuf {
    let (source, to) = (source(family), output.join(family));
    let given = ["convert", source.to_str().unwrap(), "-p", precision, "-o", to.to_str().unwrap(), "--json"];
    let made = run(given).unwrap().json().unwrap().remove(0);
    to.join(made["files"][0]["path"].as_str().unwrap())
}

fn right(family: &str, model: &Path) -> f64 {
    let entry = model_entry(family, model, "options = { threads = 1 }");
    let server = Server::start(House::new(&entry).unwrap()).unwrap();
    let questions = fs::read_to_string(repository().join("models/chat/held-out.jsonl")).unwrap();
    let mut right = 0u32;
    for line in questions.lines() {
        let question: Value = serde_json::from_str(line).unwrap();
        let request =
            json!({ "model": family, "temperature": 0, "max_tokens": 256, "messages": question["messages"] });
        let answer = server.post_json("/v1/chat/completions", &request).unwrap().json().unwrap();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        right += u32::from(Regex::new(question["expect"].as_str().unwrap()).unwrap().is_match(text));
    }
    f64::from(right) / questions.lines().count() as f64
}

/// Their scores were measured by the scripts that trained them, in another engine: a few questions may differ.
#[test]
fn each_answers_as_its_card_says() {
    let folder = tempfile::tempdir().unwrap();
    let scores = fs::read(repository().join("models/families/scores.json")).unwrap();
    let scores: Value = serde_json::from_slice(&scores).unwrap();
    for (family, _, _) in FAMILIES {
        let (wanted, score) =
            (scores[family].as_f64().unwrap(), right(family, &made(family, "F16", folder.path())));
        eprintln!(
            "{family} answers {:.1} % of the held-out questions, its card says {:.1} %",
            score * 100.0,
            wanted * 100.0
        );
        assert!(score >= wanted - 0.01 - 1e-9, "{family}: {score} against {wanted}");
    }
}

#[test]
fn what_they_are_is_found_out() {
    for (family, wanted, windowed) in FAMILIES {
        let about =
            run(["info", source(family).to_str().unwrap(), "--json"]).unwrap().json().unwrap().remove(0);
        assert_eq!(about["family"], wanted);
        assert_eq!(about["attention"]["windowed_layers"], windowed, "{family}");
    }
}

#[test]
fn models_with_experts_are_told_how_alike_they_choose() {
    let folder = tempfile::tempdir().unwrap();
    let text = repository().join("models/families/held-out.txt");
    let report = folder.path().join("report.md");
    let validate = |model: &Path, family: &str, more: &[&str]| {
        let original = source(family);
        let paths = [model, original.as_path(), text.as_path()].map(|path| path.to_str().unwrap());
        let given =
            ["validate", paths[0], "--against", paths[1], "--text", paths[2], "--chunks", "4", "-n", "0"];
        let none = [
            "--max-kld",
            "none",
            "--max-kld-p99",
            "none",
            "--max-perplexity-ratio",
            "none",
            "--min-agreement",
            "none",
        ];
        run([&given[..], &none, more].concat()).unwrap()
    };
    let routing = |precision: &str| {
        let model = made("moe", precision, folder.path());
        let said = validate(&model, "moe", &["--json", "--report", report.to_str().unwrap()]).json().unwrap();
        said[0]["forms"][0]["routing"].clone()
    };
    let number = |routing: &Value, path: &str| routing.pointer(path).and_then(Value::as_f64).unwrap();
    // In the same numbers, both choose the same.
    let same = routing("F16");
    assert_eq!([&same["layers"], &same["experts"], &same["active"]], [2, 8, 2]);
    // A window of 512: of its second half all but the last token, in two layers and four windows.
    assert_eq!(same["choices"], 4 * 2 * 255);
    assert_eq!((number(&same, "/agreement/value"), number(&same, "/usage_correlation")), (1.0, 1.0));
    // The fewer the bits, the less they agree.
    let (most, least) = (routing("Q6_K"), routing("Q2_K"));
    let agreement = |of: &Value| number(of, "/agreement/value");
    assert!(1.0 >= agreement(&most) && agreement(&most) > agreement(&least), "{most} {least}");
    assert!(agreement(&least) > 0.5 && number(&least, "/usage_correlation") > 0.5, "{least}");
    assert!(number(&least, "/worst/agreement") <= agreement(&least));
    let written = fs::read_to_string(&report).unwrap();
    assert!(written.contains("correlation of use"), "{written}");

    let model = made("moe", "Q2_K", folder.path());
    let shown = validate(&model, "moe", &[]);
    assert!(shown.stdout.contains("same experts") && shown.stdout.contains("r 0."), "{}", shown.stdout);
    let refused = validate(&model, "moe", &["--min-router-agreement", "0.999"]);
    assert_eq!(refused.refusal().unwrap().0, "validation-failed");
    assert!(refused.stderr.contains("router"), "{}", refused.stderr);
    // Of a model without experts nothing is said.
    let dense =
        validate(&made("hybrid", "Q4_K_M", folder.path()), "hybrid", &["--min-router-agreement", "1"]);
    assert!(dense.status.success() && !dense.stdout.contains("experts"), "{}", dense.stdout);
}
