//! Probing and loading: what is found, and how it is refused.

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use pajamas_gguf::GgufBackend;
use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{Backend, Cancel, HostContext, LoadRequest, codes};
use serde_json::json;
use support::{TINY, backend, describe, request, tiny, try_load, vocabulary, write};

#[test]
fn the_probe_names_the_processor_and_its_variant() {
    let probe = backend().probe();
    assert!(probe.score >= 200, "{probe:?}");
    assert!(probe.reason.contains("CPU variant"), "{}", probe.reason);
    let cpu = probe.devices.iter().find(|d| d.id == "cpu").unwrap();
    assert!(cpu.memory_total > 0 && !cpu.name.is_empty());
    eprintln!("{}", probe.reason);
}

#[test]
fn without_its_libraries_the_backend_says_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    let probe = GgufBackend::new(HostContext::for_tests(folder.path())).probe();
    assert_eq!(probe.score, 0);
    assert!(probe.reason.contains(&*folder.path().join("llama").to_string_lossy()), "{}", probe.reason);
}

#[test]
fn what_the_backend_describes_is_complete() {
    let info = backend().describe();
    assert_eq!((info.id.as_str(), &info.formats[..]), ("gguf", &["gguf".to_owned()][..]));
    assert!(info.options_schema["properties"]["context_length"]["description"].is_string());
}

#[test]
fn broken_files_are_refused_before_llama_cpp_sees_them() {
    let (folder, path) = tiny();
    let good = std::fs::read(&path).unwrap();
    let refuse = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let load = try_load(&path, json!({})).err().unwrap();
        let estimate = backend().estimate(&request(&path, json!({}))).unwrap_err();
        assert_eq!(load, estimate, "{name}");
        assert_eq!(load.code, codes::MODEL_INVALID, "{load}");
        assert!(load.message.contains(name) && !load.help.is_empty(), "{load}");
        load.message
    };
    assert!(refuse("zero.gguf", b"").contains("empty"));
    assert!(refuse("text.gguf", b"once upon a time there was a llama").contains("begins with \"once\""));
    assert!(refuse("magic.gguf", &[b"GGML", &good[4..]].concat()).contains("GGML"));
    assert!(refuse("half.gguf", &good[..good.len() / 2]).contains("outside the file"));
    assert!(refuse("header.gguf", &good[..200]).contains("ends too early"));
    let mut moved = good.clone();
    let name = b"output_norm.weight";
    let at = moved.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8 + 4;
    moved[at..at + 8].copy_from_slice(&(1u64 << 50).to_le_bytes());
    assert!(refuse("moved.gguf", &moved).contains("output_norm.weight"));
}

#[test]
fn what_only_llama_cpp_can_judge_is_refused_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.gguf");
    // A shape that the rest of the model contradicts.
    let mut writer = describe(TINY, vocabulary(TINY.vocab), TensorType::F32);
    writer.set("llama.feed_forward_length", 256u32);
    write(&path, &writer, |t, out| out.write_all(&vec![0; t.bytes as usize]));
    let error = try_load(&path, json!({})).err().unwrap();
    assert_eq!(error.code, codes::MODEL_INVALID);
    assert!(error.message.contains("blk.0.ffn_gate.weight"), "{error}");
    writer.set("general.architecture", "pyjama");
    write(&path, &writer, |t, out| out.write_all(&vec![0; t.bytes as usize]));
    let error = try_load(&path, json!({})).err().unwrap();
    assert!(error.message.contains("pyjama"), "{error}");
}

#[test]
fn missing_files_devices_and_parts_are_named() {
    let error = try_load(Path::new("/nowhere/m.gguf"), json!({})).err().unwrap();
    assert_eq!(error.code, codes::MODEL_NOT_FOUND);
    let (folder, path) = tiny();
    let mut elsewhere: LoadRequest = request(&path, json!({}));
    elsewhere.device = "cuda:7".into();
    let error = backend().estimate(&elsewhere).unwrap_err();
    assert_eq!(error.code, codes::INVALID_OPTION);
    assert!(error.message.contains("cuda:7") && error.help.contains("cpu"), "{error}");
    let part = folder.path().join("big-00001-of-00002.gguf");
    let mut writer = describe(TINY, vocabulary(TINY.vocab), TensorType::F32);
    writer.set("split.count", 2u32);
    write(&part, &writer, |t, out| out.write_all(&vec![0; t.bytes as usize]));
    let error = try_load(&part, json!({})).err().unwrap();
    assert!(error.message.contains("big-00002-of-00002.gguf"), "{error}");
}

#[test]
fn a_load_is_reported_and_can_be_cancelled() {
    let (_folder, path) = tiny();
    let mut fractions = Vec::new();
    let session = backend().load(
        &request(&path, json!({})),
        &mut |fraction: f32, _: &str| {
            fractions.push(fraction);
            ControlFlow::Continue(())
        },
        &Cancel::new(),
    );
    assert!(session.is_ok());
    assert!(fractions.is_sorted() && fractions.last() == Some(&1.0), "{fractions:?}");

    let mut stop_at_once = |_: f32, _: &str| ControlFlow::Break(());
    let error = backend().load(&request(&path, json!({})), &mut stop_at_once, &Cancel::new()).err().unwrap();
    assert_eq!(error.code, codes::CANCELLED);

    // Cancelled from outside, in the middle of the load.
    let cancel = Cancel::new();
    let mut set = |_: f32, _: &str| {
        cancel.cancel();
        ControlFlow::Continue(())
    };
    let error = backend().load(&request(&path, json!({})), &mut set, &cancel).err().unwrap();
    assert_eq!(error.code, codes::CANCELLED);
}

#[test]
fn vocabularies_do_not_pretend_to_generate() {
    let (_folder, path) = tiny();
    let session = try_load(&path, json!({ "vocab_only": true })).unwrap();
    let error = session
        .generate(&support::greedy(&[1], 1), &mut support::Collected::default(), &Cancel::new())
        .unwrap_err();
    assert_eq!(error.code, codes::UNSUPPORTED);
    assert_eq!(session.detokenize(&[300]).unwrap().trim(), "w300é");
}

#[test]
fn unknown_options_are_refused_before_anything_is_read() {
    let error = try_load(Path::new("/nowhere/m.gguf"), json!({ "context": 5 })).err().unwrap();
    assert_eq!(error.code, codes::INVALID_OPTION);
    assert!(error.help.contains("context_length"), "{error}");
}
