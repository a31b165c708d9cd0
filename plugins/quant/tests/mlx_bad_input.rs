//! What mlx_lm would not load, or would load as another model, is refused before anything is written.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, PluginError, QuantizeRequest, Quantizer, Result};
use pajamas_quant::mlx::MlxQuantizer;
use pajamas_quant::source::Dtype;
use serde_json::{Value, json};
use support::weights::{self, Tensor};
use tempfile::TempDir;

/// A model of this name in a folder of its own.
fn model(name: &str) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let model = support::mlx::models().into_iter().find(|m| m.name == name).unwrap();
    let folder = model.write(parent.path());
    (parent, folder)
}

fn request(folder: &Path, out: &Path, precision: &str, options: Value) -> QuantizeRequest {
    QuantizeRequest { source: folder.into(), output: out.into(), precision: precision.into(), options }
}

fn run(request: &QuantizeRequest) -> Result<u64> {
    let report =
        MlxQuantizer.run(request, &mut |_: f32, _: &str| ControlFlow::Continue(()), &Cancel::new())?;
    Ok(report.files.iter().map(|f| f.bytes).sum())
}

/// The error of a model after a change, and that nothing was written.
fn refused(name: &str, change: impl FnOnce(&Path)) -> PluginError {
    let (parent, folder) = model(name);
    change(&folder);
    let out = parent.path().join("out");
    let error = run(&request(&folder, &out, "4bit", Value::Null)).unwrap_err();
    assert!(!out.exists(), "something was left behind after {error}");
    assert!(!error.message.is_empty());
    error
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, support::pretty(&value)).unwrap();
}

/// Writes a model's tensors anew after a change.
fn retensor(folder: &Path, name: &str, change: impl FnOnce(&mut Vec<Tensor>)) {
    let mut tensors = support::mlx::models().into_iter().find(|m| m.name == name).unwrap().tensors;
    change(&mut tensors);
    weights::write(folder, &tensors, 1);
}

#[test]
fn tensors_must_be_those_of_the_class() {
    let change = |change: fn(&mut Vec<Tensor>)| move |folder: &Path| retensor(folder, "llama", change);
    for (change, code, named) in [
        (change(|t| t.retain(|t| !t.name.ends_with("1.mlp.up_proj.weight"))), "tensor-missing", "up_proj"),
        (change(|t| t.push(Tensor::new("model.odd.weight", Dtype::F16, &[4]))), "tensor-unexpected", "odd"),
        (
            change(|t| t.iter_mut().find(|t| t.name == "lm_head.weight").unwrap().shape = vec![280, 64]),
            "tensor-shape",
            "[280, 64]",
        ),
        (
            change(|t| t.iter_mut().find(|t| t.name == "model.norm.weight").unwrap().dtype = Dtype::U8),
            "tensor-dtype-unsupported",
            "model.norm",
        ),
    ] {
        let error = refused("llama", change);
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(named) && !error.help.is_empty(), "{error}");
    }
    let expert = "model.layers.1.mlp.experts.10.up_proj.weight";
    let lost = refused("qwen3-moe", |folder| {
        retensor(folder, "qwen3-moe", |t| t.retain(|t| t.name != expert));
    });
    assert_eq!(lost.code, "tensor-missing", "{lost}");
    let mixed = refused("qwen3-moe", |folder| {
        retensor(folder, "qwen3-moe", |t| {
            t.iter_mut().find(|t| t.name == expert).unwrap().dtype = Dtype::F16
        });
    });
    assert_eq!(mixed.code, "tensor-dtype-unsupported", "{mixed}");
}

#[test]
fn configurations_and_tokenizers_are_checked() {
    for (name, file, change, code) in [
        (
            "llama",
            "config.json",
            (|c| c["model_type"] = json!("llama4")) as fn(&mut Value),
            "model-config-invalid",
        ),
        ("llama", "config.json", |c| c["num_hidden_layers"] = json!(3), "tensor-missing"),
        ("llama", "config.json", |c| c["num_hidden_layers"] = json!(u32::MAX), "tensor-missing"),
        ("llama", "config.json", |c| c["num_hidden_layers"] = json!(1), "tensor-unexpected"),
        ("llama", "config.json", |c| c["hidden_size"] = json!(128), "tensor-shape"),
        ("llama", "config.json", |c| c["head_dim"] = json!(u32::MAX), "tensor-shape"),
        ("llama", "config.json", |c| c["quantization"] = json!({"bits": 4}), "tensor-dtype-unsupported"),
        ("qwen3-moe", "config.json", |c| c["num_experts"] = json!(12), "tensor-shape"),
        ("qwen3-moe", "config.json", |c| c["mlp_only_layers"] = json!("all"), "model-config-invalid"),
        ("llama", "generation_config.json", |c| *c = json!([]), "model-config-invalid"),
    ] {
        let error = refused(name, |folder| edit(folder, file, change));
        assert_eq!(error.code, code, "{error}");
    }
    let none = refused("llama", |folder| fs::remove_file(folder.join("tokenizer.json")).unwrap());
    assert_eq!(none.code, "tokenizer-missing", "{none}");
    let (parent, folder) = (tempfile::tempdir().unwrap(), PathBuf::new());
    let bert = support::families::all().into_iter().find(|m| m.name == "bge-tiny-en-v1.5").unwrap();
    let bert = request(&bert.write(parent.path()), &folder, "4bit", Value::Null);
    assert_eq!(MlxQuantizer.plan(&bert).unwrap_err().code, "architecture-unsupported");
}

#[test]
fn a_group_that_does_not_divide_is_told_or_refused() {
    let (_parent, folder) = model("llama");
    let plan = MlxQuantizer.plan(&request(&folder, &folder, "4bit", Value::Null)).unwrap();
    let note = plan.notes.iter().find(|n| n.contains("not quantized")).unwrap();
    assert!(note.contains("down_proj") && note.contains("64"), "{note}");
    let plan = MlxQuantizer.plan(&request(&folder, &folder, "4bit", json!({"group_size": 32}))).unwrap();
    assert_eq!(plan.notes, [""; 0]);
    let none = MlxQuantizer.plan(&request(&folder, &folder, "4bit", json!({"group_size": 128})));
    let none = none.unwrap_err();
    assert_eq!(none.code, "tensor-shape");
    assert!(none.help.contains("group_size"), "{none}");
}

#[test]
fn weights_that_are_no_numbers_are_refused_unless_allowed() {
    // The last element of the last tensor, which is a matrix, a half or a norm.
    for (name, tensor) in [
        ("llama", "lm_head.weight"),
        ("gemma3", "model.norm.weight"),
        ("Mistral-120K-v0.1", "lm_head.weight"),
    ] {
        let poison = |folder: &Path| {
            let mut bytes = weights::encoded(&[]);
            let path = folder.join("model.safetensors");
            bytes.splice(.., fs::read(&path).unwrap());
            let last = bytes.len() - 2;
            bytes[last..].copy_from_slice(&0x7fc0u16.to_le_bytes());
            fs::write(path, bytes).unwrap();
        };
        let error = refused(name, poison);
        assert_eq!(error.code, "weight-not-finite", "{error}");
        let element = if tensor == "model.norm.weight" { 63 } else { 288 * 64 - 1 };
        assert!(error.message.contains(&format!("element {element} of tensor `{tensor}`")), "{error}");

        let (parent, folder) = model(name);
        poison(&folder);
        run(&request(&folder, &parent.path().join("out"), "4bit", json!({"allow_nan": true}))).unwrap();
    }
}

#[test]
fn what_the_type_cannot_hold_is_refused() {
    let (parent, folder) = model("llama");
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    // 2^17 fits bf16 and not half precision.
    bytes[last..].copy_from_slice(&0x4800u16.to_le_bytes());
    fs::write(path, bytes).unwrap();
    let out = parent.path().join("out");
    for (precision, options) in [("f16", Value::Null), ("4bit", json!({"dtype": "float16"}))] {
        let error = run(&request(&folder, &out, precision, options)).unwrap_err();
        assert_eq!(error.code, "weight-not-finite");
        assert!(error.message.contains("too large"), "{error}");
    }
    run(&request(&folder, &out, "bf16", Value::Null)).unwrap();
}

#[test]
fn stopping_leaves_nothing() {
    let (parent, folder) = model("mixtral");
    let out = parent.path().join("out");
    let request = request(&folder, &out, "4bit", Value::Null);
    let cancel = Cancel::new();
    let error = MlxQuantizer.run(&request, &mut |_: f32, _: &str| ControlFlow::Break(()), &cancel);
    assert_eq!(error.unwrap_err().code, "cancelled");
    assert!(!out.exists() && !cancel.is_cancelled());
    cancel.cancel();
    let error = MlxQuantizer.run(&request, &mut |_: f32, _: &str| ControlFlow::Continue(()), &cancel);
    assert_eq!(error.unwrap_err().code, "cancelled");
    assert!(!out.exists());
}

#[test]
fn weights_of_another_run_are_not_mixed_in() {
    let (parent, folder) = model("llama");
    let out = parent.path().join("out");
    run(&request(&folder, &out, "4bit", json!({"max_file_bytes": 20_000}))).unwrap();
    let before = fs::read_dir(&out).unwrap().count();
    let error = run(&request(&folder, &out, "4bit", Value::Null)).unwrap_err();
    assert_eq!(error.code, "write-failed");
    assert!(error.message.contains("model-0000"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), before);
}

/// Any one byte of any of a model's files may be wrong: the answer is a folder or an error, never a panic.
#[test]
fn a_changed_byte_is_an_answer() {
    let (parent, folder) = model("qwen3-moe");
    for file in ["config.json", "model.safetensors"] {
        let path = folder.join(file);
        let sound = fs::read(&path).unwrap();
        let reach = sound.len().min(4000);
        for step in 0..100 {
            let mut changed = sound.clone();
            changed[step * 7919 % reach] ^= 1 << (step % 8);
            fs::write(&path, changed).unwrap();
            let _ = MlxQuantizer.plan(&request(&folder, parent.path(), "4bit", Value::Null));
        }
        fs::write(&path, sound).unwrap();
    }
    run(&request(&folder, &parent.path().join("out"), "4bit", Value::Null)).unwrap();
}

/// A run that is killed is seen from outside as what lies in the folder at that moment.
#[test]
fn a_run_that_was_killed_is_gone_on_with_tensor_by_tensor() {
    let (parent, folder) = model("qwen3");
    let (out, killed) = (parent.path().join("out"), parent.path().join("killed"));
    let options = json!({ "threads": 1 });
    let (mut first, mut copied) = (None, false);
    let report = MlxQuantizer.run(
        &request(&folder, &out, "4bit", options.clone()),
        &mut |_: f32, tensor: &str| {
            let tensor = tensor.to_owned();
            if !copied && *first.get_or_insert_with(|| tensor.clone()) != tensor {
                // The first tensor is done, and noted as soon as the disk has it.
                while !out.join(".mlx.part.json").exists() {
                    std::thread::yield_now();
                }
                fs::create_dir(&killed).unwrap();
                for entry in fs::read_dir(&out).unwrap().flatten() {
                    fs::copy(entry.path(), killed.join(entry.file_name())).unwrap();
                }
                copied = true;
            }
            ControlFlow::Continue(())
        },
        &Cancel::new(),
    );
    assert!(copied && report.unwrap().metadata.get("resumed_tensors").is_none());
    let resume = |options: Value| {
        let request = request(&folder, &killed, "4bit", options);
        let told = &mut |_: f32, _: &str| ControlFlow::Continue(());
        MlxQuantizer.run(&request, told, &Cancel::new()).unwrap().metadata["resumed_tensors"].clone()
    };
    let resumed = resume(options).as_u64().unwrap();
    assert!(resumed >= 1, "{resumed}");
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut files: Vec<_> = entries.map(|e| (e.file_name(), fs::read(e.path()).unwrap())).collect();
        files.sort();
        files
    };
    assert_eq!(files(&killed), files(&out), "the same bytes, and nothing else");
    assert_eq!(resume(json!({ "group_size": 32 })), Value::Null, "another way of making it begins anew");
}
