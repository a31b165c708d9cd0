//! mlx_lm loads our folders, strictly, and generates from them. Needs Python with what
//! `tests/peers/mlx-requirements.txt` lists, in `target/peers-mlx`.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_plugin_api::Cancel;
use pajamas_quant::mlx::{MlxConversion, Recipe};
use pajamas_quant::source::Source;
use serde_json::{Value, json};

/// Python of the peer, if it is installed.
fn python() -> Option<PathBuf> {
    // target/release/deps/TEST
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_path_buf();
    Some(target.join("peers-mlx/bin/python")).filter(|p| p.is_file())
}

fn convert(folder: &Path, out: &Path, precision: &str, options: Value) -> PathBuf {
    let source = Source::open(folder).unwrap();
    let recipe = Recipe::new(precision, &options).unwrap();
    let conversion = MlxConversion::plan(&source, &recipe).unwrap();
    conversion.write(out, &Cancel::new(), &mut |_, _, _| ControlFlow::Continue(())).unwrap();
    out.to_path_buf()
}

#[test]
fn mlx_lm_generates_from_our_folders() {
    let Some(python) = python() else {
        eprintln!("skipped: mlx_lm is not installed; tests/peers/mlx-requirements.txt says how");
        return;
    };
    let parent = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for model in support::mlx::models() {
        let folder = model.write(parent.path());
        let out = parent.path().join(format!("mlx-{}", model.name));
        match model.name {
            "llama-odd" => folders.push(convert(&folder, &out, "bf16", Value::Null)),
            _ => folders.push(convert(&folder, &out, "4bit", json!({"group_size": 32}))),
        }
    }
    // Models that mlx_lm.convert refuses, and that ours makes loadable.
    for name in ["llama-output-only", "gemma-2-150k-it", "gemma3", "qwen3-moe"] {
        let mut model = support::families::all().into_iter().find(|m| m.name == name).unwrap();
        if name == "gemma3" {
            model.config["vocab_size"] = json!(300);
            model.config["sliding_window_pattern"] = json!(2);
        }
        support::mlx::plain_bos(&mut model);
        let folder = model.write(&parent.path().join("as-they-are"));
        let out = parent.path().join(format!("made-{name}"));
        folders.push(convert(&folder, &out, "4bit", json!({"group_size": 32})));
    }
    let chat = support::repository().join("models/chat/hf");
    folders.push(convert(&chat, &parent.path().join("chat"), "8bit", json!({"max_file_bytes": 300_000})));
    let output = Command::new(python)
        .arg(support::repository().join("tests/peers/mlx_parity.py"))
        .arg("run")
        .args(&folders)
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("journey ok"), "{said}");
}
