//! What is estimated and what is reported must be what the process grows by. Alone in its program, so that no other
//! test's memory is counted.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::path::Path;
use std::process::Command;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{Backend, Cancel, EmbedRequest, Memory, Prompt, Sleep};
use serde_json::{Value, json};
use support::{Rows, Shape, backend, greedy, load, request, run, write_random};

/// About 120 MB in f32: large against what a process holds anyway.
const BIG: Shape =
    Shape { vocab: 8192, hidden: 512, ffn: 1536, layers: 8, heads: 8, kv_heads: 4, context: 4096, eps: 1e-5 };

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn total(memory: &[Memory]) -> u64 {
    memory.iter().map(Memory::total).sum()
}

fn compare(path: &Path, options: &Value) {
    let estimate = backend().estimate(&request(path, options.clone())).unwrap();
    let before = resident();
    let session = load(path, options.clone());
    // Memory counts once it is touched: a whole micro-batch of prompt, and a long embedding, touch all that will be.
    let prompt: Vec<u32> = (0..512).map(|i| 300 + i).collect();
    run(&*session, &greedy(&prompt, 4));
    let embedding = EmbedRequest { inputs: vec![Prompt::Tokens(prompt)], pooling: None, normalize: false };
    session.embed(&embedding, &mut Rows::default(), &Cancel::new()).unwrap();
    let grown = resident() - before;
    let usage = session.usage();
    eprintln!("{options}: estimate {estimate:?}\nusage {usage:?}\ngrown {grown}");
    for (what, memory) in [("estimate", &estimate), ("usage", &usage)] {
        let ratio = total(memory) as f64 / grown as f64;
        assert!((0.9..=1.1).contains(&ratio), "{what} is {ratio:.3} of the {grown} bytes grown, {options}");
    }
    let sleep = Sleep::of(&*session).unwrap();
    assert!(sleep.sleep().unwrap());
    let (kept, asleep) = (resident() - before, session.usage());
    eprintln!("asleep: usage {asleep:?}\nkept {kept}");
    assert_eq!(asleep, sleep.estimate().unwrap());
    let ratio = total(&asleep) as f64 / kept as f64;
    assert!((0.9..=1.1).contains(&ratio), "usage is {ratio:.3} of the {kept} bytes kept asleep, {options}");
    sleep.wake().unwrap();
    assert_eq!(session.usage(), usage);
    drop(session);
    let left = resident().saturating_sub(before);
    assert!(left < grown / 5, "{left} of {grown} bytes are left after the session was dropped");
}

/// What the child process measures, as the test harness names it.
const CASE: &str = "one_case";
const CASE_NUMBER: &str = "PAJAMAS_FOOTPRINT_CASE";

/// The C library keeps parts of a heap for later, and what one load left would hide what the next one takes: each case
/// has a process of its own.
#[test]
fn estimate_and_usage_are_the_growth_of_the_process() {
    for case in 0..3 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([CASE, "--exact", "--nocapture"])
            .env(CASE_NUMBER, case.to_string())
            // glibc otherwise keeps some freed blocks of up to 32 MiB, which nobody holds any more.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && said.contains("1 passed"), "case {case}:\n{said}");
    }
}

/// Measures the case that the test above asks for; on its own it has nothing to do.
#[test]
fn one_case() {
    let Ok(case) = std::env::var(CASE_NUMBER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Loads the libraries before counting.
    write_random(&path, Shape { vocab: 512, hidden: 64, ffn: 128, layers: 1, ..BIG }, TensorType::F32);
    drop(load(&path, json!({ "context_length": 256 })));
    std::fs::remove_file(&path).unwrap();

    match case.as_str() {
        "0" => {
            write_random(&path, BIG, TensorType::F32);
            compare(&path, &json!({ "context_length": 1024 }));
        }
        "1" => {
            write_random(&path, BIG, TensorType::F32);
            compare(&path, &json!({ "context_length": 4096, "kv_type_k": "f32", "mmap": false }));
        }
        // Weights that are rearranged for the processor, beside the mapped file they came from.
        "2" => {
            write_random(&path, Shape { layers: 24, ..BIG }, TensorType::Q8_0);
            compare(&path, &json!({ "context_length": 1024 }));
        }
        other => panic!("{CASE_NUMBER} is {other:?}"),
    }
}
