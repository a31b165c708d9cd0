//! Folders equal those of `mlx_lm.convert`, and numbers those of `mx.quantize`, which were recorded: `golden/mlx*`,
//! written by `tests/peers/mlx_parity.py`.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pajamas_plugin_api::Cancel;
use pajamas_quant::mlx::{Affine, Float, MlxConversion, Quantized, Recipe};
use pajamas_quant::source::Source;
use serde_json::{Value, json};
use support::mlx::{parts, short_hash};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// What was recorded, and how ours is told the same.
fn recipes() -> [(&'static str, Recipe); 7] {
    let recipe = |precision: &str, options: Value| Recipe::new(precision, &options).unwrap();
    [
        ("bf16", recipe("bf16", Value::Null)),
        ("f16", recipe("f16", Value::Null)),
        ("4bit", recipe("4bit", Value::Null)),
        ("2bit-32", recipe("2bit", json!({"group_size": 32, "embeddings_bits": 8, "output_bits": 5}))),
        ("3bit-32-pure", recipe("3bit", json!({"group_size": 32, "pure": true}))),
        ("8bit-pure", recipe("8bit", json!({"pure": true}))),
        ("6bit-64-f16-pure", recipe("6bit", json!({"pure": true, "dtype": "float16"}))),
    ]
}

/// Converts a model, and checks that what is there is what was planned.
fn converted(folder: &Path, out: &Path, recipe: &Recipe) -> PathBuf {
    let source = Source::open(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let conversion =
        MlxConversion::plan(&source, recipe).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let (mut last, mut told) = (0, 0);
    let written = conversion.write(out, &Cancel::new(), &mut |done, total, _| {
        assert!(done > last && done <= total);
        (last, told) = (done, total);
        std::ops::ControlFlow::Continue(())
    });
    written.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    assert_eq!(last, told, "progress ends at all");
    let mut planned: Vec<_> = conversion.files().into_iter().map(|f| (f.path, f.bytes)).collect();
    let mut found: Vec<_> = fs::read_dir(out)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (PathBuf::from(e.file_name()), e.metadata().unwrap().len()))
        .collect();
    planned.sort();
    found.sort();
    assert_eq!(planned, found);
    out.to_path_buf()
}

fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["config", "metadata"] {
        let (ours, theirs) = (ours[kind].as_object().unwrap(), theirs[kind].as_object().unwrap());
        for key in ours.keys().chain(theirs.keys().filter(|k| !ours.contains_key(*k))) {
            if ours.get(key) != theirs.get(key) {
                found.push(format!("{kind} {key}: ours {:?}, theirs {:?}", ours.get(key), theirs.get(key)));
            }
        }
    }
    let (ours, theirs) = (ours["tensors"].as_array().unwrap(), theirs["tensors"].as_array().unwrap());
    found.extend(ours.iter().filter(|t| !theirs.contains(t)).map(|t| format!("ours: {t}")));
    found.extend(theirs.iter().filter(|t| !ours.contains(t)).map(|t| format!("theirs: {t}")));
    found
}

#[test]
fn every_family_is_converted_as_mlx_lm_converts_it() {
    let parent = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for model in support::mlx::models() {
        let folder = model.write(parent.path());
        let recorded = golden(&format!("mlx/{}.json", model.name));
        for (name, recipe) in recipes() {
            // Nothing in it can be quantized, which mlx_lm passes over in silence.
            if model.name == "llama-odd" && recipe.bits.is_some() {
                let source = Source::open(&folder).unwrap();
                assert_eq!(MlxConversion::plan(&source, &recipe).unwrap_err().code, "tensor-shape");
                continue;
            }
            let out = converted(&folder, &parent.path().join(format!("{}-{name}", model.name)), &recipe);
            let found = differences(&parts(&out), &recorded[name]);
            wrong.extend(found.iter().map(|d| format!("{} {name}: {d}", model.name)));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn files_have_a_limit_and_hold_the_same_together() {
    let parent = tempfile::tempdir().unwrap();
    let model = support::mlx::models().into_iter().find(|m| m.name == "mixtral").unwrap();
    let folder = model.write(parent.path());
    let options = json!({"max_file_bytes": 20_000, "threads": 3});
    let out = converted(&folder, &parent.path().join("out"), &Recipe::new("4bit", &options).unwrap());
    let ours = parts(&out);
    assert_eq!(differences(&ours, &golden("mlx/mixtral.json")["4bit"]), [""; 0]);
    let files: Vec<&str> =
        ours["weight_map"].as_object().unwrap().values().map(|v| v.as_str().unwrap()).collect();
    let count = fs::read_dir(&out).unwrap().filter(|e| name(e).ends_with(".safetensors")).count();
    assert!(count > 3);
    for i in 1..=count {
        assert!(files.contains(&format!("model-{i:05}-of-{count:05}.safetensors").as_str()));
    }
}

fn name(entry: &std::io::Result<fs::DirEntry>) -> String {
    entry.as_ref().unwrap().file_name().into_string().unwrap()
}

/// Random weights of a kind, the same as those of the peer's script.
fn weights(kind: &str, count: usize) -> Vec<f32> {
    let mut state: u64 =
        kind.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    let make: fn(f32) -> f32 = match kind {
        "even" => |u| u - 0.5,
        "positive" => |u| u + 0.25,
        "negative" => |u| -u - 0.25,
        "large" => |u| (u - 0.5) * 30000.0,
        "small" => |u| (u - 0.5) * 2e-7,
        "heavy" => |u| if u > 0.98 { u * 40.0 } else { u - 0.5 },
        "lattice" => |u| (u * 31.0).floor() / 4.0 - 3.0,
        "constant" => |u| u * 0.0 + 1.0 / 3.0,
        "zero" => |u| u * 0.0,
        "offset" => |u| u * 0.01 + 5.0,
        other => panic!("no weights of the kind {other}"),
    };
    (0..count).map(|_| make(next())).collect()
}

fn bytes(values: &[f32], float: Float) -> Vec<u8> {
    match float {
        Float::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Float::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Float::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

#[test]
fn numbers_are_quantized_as_mlx_quantizes_them() {
    let cases = golden("mlx-affine.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 540);
    for case in cases {
        let text = |i: usize| case[i].as_str().unwrap();
        let (bits, group) = (case[2].as_u64().unwrap() as u32, case[3].as_u64().unwrap() as u32);
        let float = Float::from_name(text(1)).unwrap();
        let mut out = Quantized::default();
        let source = bytes(&weights(text(0), 16 * 256), float);
        Affine::new(bits, group).unwrap().quantize(&source, float, float, &mut out);
        let ours = [out.codes, bytes(&out.scales, float), bytes(&out.biases, float)].map(|b| short_hash(&b));
        assert_eq!(ours, [text(4), text(5), text(6)], "{case}");
    }
}
