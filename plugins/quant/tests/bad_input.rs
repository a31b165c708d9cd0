//! What is wrong with a model is refused before anything is written, with a code of its own.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy knows as tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, PluginError};
use pajamas_quant::source::{Dtype, Source};
use pajamas_quant::{Conversion, OutType};
use serde_json::{Value, json};
use tempfile::TempDir;

use support::weights::{self, Tensor};
use support::{Model, families};

/// A model of this name in a folder of its own.
fn model(name: &str) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let model = families::all().into_iter().find(|m| m.name == name).unwrap();
    let folder = model.write(parent.path());
    (parent, folder)
}

fn convert(folder: &Path, out: &Path) -> Result<u64, PluginError> {
    let source = Source::open(folder)?;
    Conversion::plan(&source, OutType::F16, None)?.write(out, &Cancel::new(), &mut |_, _, _| Ok(()))
}

/// The error of a model after a change, and that nothing was written.
fn refused(name: &str, change: impl FnOnce(&Path)) -> PluginError {
    let (parent, folder) = model(name);
    change(&folder);
    let out = parent.path().join("out");
    fs::create_dir(&out).unwrap();
    let error = convert(&folder, &out.join("a.gguf")).unwrap_err();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "something was left behind after {error}");
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
    let mut tensors = families::all().into_iter().find(|m| m.name == name).unwrap().tensors;
    change(&mut tensors);
    weights::write(folder, &tensors, 1);
}

#[test]
fn files_that_are_missing_are_named() {
    let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).unwrap();
    for (name, file, code) in [
        ("llama", "config.json", "source-not-found"),
        ("llama", "model.safetensors", "source-not-found"),
        ("llama", "tokenizer.json", "tokenizer-missing"),
        ("gemma-2-150k-it", "tokenizer.model", "tokenizer-missing"),
        ("Phi-3-mini-4k-instruct", "tokenizer.model", "tokenizer-missing"),
        ("mixtral", "model-00002-of-00002.safetensors", "shard-missing"),
    ] {
        let error = refused(name, remove(file));
        assert_eq!(error.code, code, "{error}");
        let named = error.message.contains(file) || error.message.contains("safetensors");
        assert!(named && !error.help.is_empty(), "{error}");
    }
    assert_eq!(Source::open(Path::new("/nowhere/at/all")).unwrap_err().code, "source-not-found");
}

#[test]
fn damaged_weights_are_refused() {
    let cut = |keep: f64| {
        move |folder: &Path| {
            let path = folder.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
        }
    };
    for keep in [0.0, 0.0001, 0.01, 0.5, 0.9999] {
        assert_eq!(refused("llama", cut(keep)).code, "safetensors-truncated", "{keep}");
    }
    let pickled = refused("llama", |folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).unwrap();
    });
    assert!(pickled.help.contains("safetensors"), "{pickled}");
    let twice = refused("llama", |folder| {
        fs::copy(folder.join("model.safetensors"), folder.join("model-old.safetensors")).unwrap();
    });
    assert_eq!(twice.code, "safetensors-duplicate");
}

#[test]
fn an_index_that_lies_is_refused() {
    const INDEX: &str = "model.safetensors.index.json";
    let change = |change: fn(&mut Value)| move |folder: &Path| edit(folder, INDEX, change);
    for (change, code) in [
        (
            change(|i| i["weight_map"]["extra.weight"] = json!("model-00001-of-00002.safetensors")),
            "index-mismatch",
        ),
        (
            change(|i| _ = i["weight_map"].as_object_mut().unwrap().remove("model.norm.weight")),
            "index-mismatch",
        ),
        (
            change(|i| i["weight_map"]["model.norm.weight"] = json!("model-00001-of-00002.safetensors")),
            "index-mismatch",
        ),
        (
            change(|i| i["weight_map"]["model.norm.weight"] = json!("../elsewhere.safetensors")),
            "index-mismatch",
        ),
        (change(|i| i["weight_map"]["model.norm.weight"] = json!(7)), "index-mismatch"),
        (change(|i| *i = json!([])), "index-mismatch"),
        (change(|i| i["weight_map"]["model.norm.weight"] = json!("model-9.safetensors")), "shard-missing"),
    ] {
        assert_eq!(refused("mixtral", change).code, code);
    }
}

#[test]
fn tensors_must_be_those_of_the_family() {
    let change = |change: fn(&mut Vec<Tensor>)| move |folder: &Path| retensor(folder, "llama", change);
    for (change, code, named) in [
        (change(|t| t.retain(|t| t.name != "model.layers.1.mlp.up_proj.weight")), "tensor-missing", "ffn_up"),
        (change(|t| t.retain(|t| !t.name.contains("layers.1."))), "tensor-missing", "layer 1"),
        (change(|t| t.retain(|t| !t.name.contains("embed_tokens"))), "tensor-missing", "embed_tokens"),
        (
            change(|t| t.push(Tensor::new("model.layers.0.odd.weight", Dtype::F16, &[4]))),
            "tensor-unexpected",
            "odd",
        ),
        (
            change(|t| t.push(Tensor::new("model.layers.7.mlp.up_proj.weight", Dtype::F16, &[4]))),
            "tensor-unexpected",
            "blk.7",
        ),
        (
            change(|t| {
                let q = t.iter_mut().find(|t| t.name == "model.layers.0.self_attn.q_proj.weight").unwrap();
                q.shape = vec![60, 64];
            }),
            "tensor-shape",
            "q_proj",
        ),
        (
            change(|t| t.iter_mut().find(|t| t.name == "model.norm.weight").unwrap().dtype = Dtype::U8),
            "tensor-dtype-unsupported",
            "model.norm",
        ),
    ] {
        let error = refused("llama", change);
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(named), "{error}");
    }
    let lost = refused("qwen3-moe", |folder| {
        retensor(folder, "qwen3-moe", |t| {
            t.retain(|t| t.name != "model.layers.1.mlp.experts.10.up_proj.weight")
        });
    });
    assert_eq!(lost.code, "tensor-missing", "{lost}");
    let whole = refused("gpt-oss", |folder| {
        retensor(folder, "gpt-oss", |t| {
            t.push(Tensor::new("model.layers.0.mlp.experts.down_proj", Dtype::BF16, &[3, 64, 64]));
        });
    });
    assert_eq!(whole.code, "architecture-unsupported", "{whole}");
}

#[test]
fn configurations_are_checked() {
    let change = |change: fn(&mut Value)| move |folder: &Path| edit(folder, "config.json", change);
    for (change, code) in [
        (change(|c| *c = json!([1])), "model-config-invalid"),
        (change(|c| c["architectures"] = json!([])), "model-config-invalid"),
        (change(|c| c["architectures"] = json!(["Llama9ForCausalLM"])), "architecture-unsupported"),
        (change(|c| c["num_attention_heads"] = json!(0)), "model-config-invalid"),
        (change(|c| c["num_key_value_heads"] = json!("two")), "model-config-invalid"),
        (change(|c| c["hidden_size"] = json!(-64)), "model-config-invalid"),
        (change(|c| c["rope_theta"] = json!("big")), "model-config-invalid"),
        (change(|c| c["vocab_size"] = json!(100)), "tokenizer-invalid"),
        (change(|c| c["quantization_config"] = json!({"quant_method": "gptq"})), "tensor-dtype-unsupported"),
        (change(|c| c["architectures"] = json!(["Qwen3ForCausalLM"])), "tensor-missing"),
    ] {
        let error = refused("llama", change);
        assert_eq!(error.code, code, "{error}");
    }
}

#[test]
fn tokenizers_are_checked() {
    let change = |change: fn(&mut Value)| move |folder: &Path| edit(folder, "tokenizer.json", change);
    for (change, code) in [
        (change(|t| *t = json!({})), "tokenizer-invalid"),
        (change(|t| t["model"]["merges"] = json!([["a"]])), "tokenizer-invalid"),
        (
            change(|t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\d+|\D+")),
            "pre-tokenizer-unknown",
        ),
    ] {
        let error = refused("llama", change);
        assert_eq!(error.code, code, "{error}");
    }
    let broken = refused("mixtral", |folder| fs::write(folder.join("tokenizer.model"), b"nonsense").unwrap());
    assert_eq!(broken.code, "tokenizer-invalid");
}

#[test]
fn a_way_to_split_that_was_given_is_taken() {
    let (_parent, folder) = model("llama");
    edit(&folder, "tokenizer.json", |t| {
        t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\d+|\D+");
    });
    let source = Source::open(&folder).unwrap();
    assert!(Conversion::plan(&source, OutType::F16, Some("llama-bpe")).is_ok());
}

#[test]
fn weights_that_are_no_numbers_are_refused_unless_allowed() {
    let poison = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&0x7fc0u16.to_le_bytes());
        fs::write(path, bytes).unwrap();
    };
    let error = refused("llama", poison);
    assert_eq!(error.code, "weight-not-finite");
    assert!(error.message.contains("lm_head.weight") && error.message.contains("element"), "{error}");

    let (parent, folder) = model("llama");
    poison(&folder);
    let source = Source::open(&folder).unwrap();
    let conversion = Conversion::plan(&source, OutType::F16, None).unwrap().allow_non_finite(true);
    conversion.write(&parent.path().join("a.gguf"), &Cancel::new(), &mut |_, _, _| Ok(())).unwrap();
}

#[test]
fn cancelling_leaves_nothing() {
    let (parent, folder) = model("llama");
    let source = Source::open(&folder).unwrap();
    let conversion = Conversion::plan(&source, OutType::F16, None).unwrap();
    let (out, cancel) = (parent.path().join("out"), Cancel::new());
    fs::create_dir(&out).unwrap();
    let error = conversion.write(&out.join("a.gguf"), &cancel, &mut |_, done, total| {
        assert!(done <= total);
        cancel.cancel();
        Ok(())
    });
    assert_eq!(error.unwrap_err().code, "cancelled");
    assert_eq!(fs::read_dir(out).unwrap().count(), 0);
}

/// Any one byte of any of a model's files may be wrong: the answer is a file or an error, never a panic.
#[test]
fn a_changed_byte_is_an_answer() {
    let (parent, folder) = model("qwen2");
    let out = parent.path().join("a.gguf");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let path = folder.join(file);
        let sound = fs::read(&path).unwrap();
        // Headers come first; beyond them a byte is a weight like any other.
        let reach = sound.len().min(4000);
        for step in 0..60 {
            let mut changed = sound.clone();
            changed[step * 7919 % reach] ^= 1 << (step % 8);
            fs::write(&path, changed).unwrap();
            let _ = convert(&folder, &out);
        }
        fs::write(&path, sound).unwrap();
    }
    convert(&folder, &out).unwrap();
}

/// Tells a reader of the list of models that names are unique: they are names of files.
#[test]
fn models_have_names_of_their_own() {
    let mut names: Vec<&str> = families::all().iter().map(|m: &Model| m.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
