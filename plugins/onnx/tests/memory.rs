//! What is estimated and reported against what the process really grows by. Linux only: it reads `/proc`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]
#![cfg(target_os = "linux")]

mod support;

use pajamas_plugin_api::Backend;
use serde_json::json;
use support::onnx::{self, Graph, node, tensor, value};
use support::{Tensor, engines, infer, load, model_file, request};

/// Side of the square weights: 30 million numbers, 120 MB.
const SIDE: usize = 5477;

/// y = x * w, with weights far larger than anything else in the process.
fn large() -> Vec<u8> {
    let weights: Vec<u8> = (0..SIDE * SIDE).flat_map(|i| ((i % 251) as f32).to_le_bytes()).collect();
    let side = SIDE as i64;
    Graph::new("large")
        .initializer(tensor("w", onnx::FLOAT, &[side, side], &weights))
        .input(value("x", onnx::FLOAT, Some(&format!("batch,{SIDE}"))))
        .node(node("MatMul", &["x", "w"], &["y"]))
        .output(value("y", onnx::FLOAT, Some(&format!("batch,{SIDE}"))))
        .model(&[])
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn within_a_tenth(what: &str, said: u64, grown: u64) {
    let off = said.abs_diff(grown) as f64 / grown as f64;
    assert!(off <= 0.10, "{what}: said {said}, grown by {grown}: {:.1} % off", off * 100.0);
}

/// One test for both engines, so that neither's memory moves while the other's is measured.
#[test]
fn estimates_and_reports_are_within_a_tenth_of_the_truth() {
    let (_dir, path) = model_file(&large());
    let (_small_dir, small) = model_file(&onnx::identity(onnx::FLOAT, "1"));
    let x = Tensor::f32(&[1, SIDE as u64], &vec![1.0; SIDE]);
    for engine in engines() {
        // A first session starts the engine's threads and tables, which are not the model's.
        let warm = load(&*engine, &small).unwrap();
        infer(&*warm, &[("x", &Tensor::f32(&[1], &[1.0]))]).unwrap();

        let id = engine.describe().id;
        let before = resident();
        let session = load(&*engine, &path).unwrap();
        infer(&*session, &[("x", &x)]).unwrap();
        let grown = resident() - before;
        let estimated = total(&*engine, &path);
        let used: u64 = session.usage().iter().map(|m| m.total()).sum();
        eprintln!("{id}: estimated {estimated}, reported {used}, grown by {grown}");
        within_a_tenth(&format!("{id}, estimate"), estimated, grown);
        within_a_tenth(&format!("{id}, usage"), used, grown);

        drop(session);
        let left = resident().saturating_sub(before);
        assert!(left < grown / 10, "{id}: {left} of {grown} bytes were not given back");
    }
}

fn total(engine: &dyn Backend, path: &std::path::Path) -> u64 {
    engine.estimate(&request(path, json!({}))).unwrap().iter().map(|m| m.total()).sum()
}
