//! Files that are no models, or no longer: each a clear refusal, never a crash.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]

mod support;

use pajamas_plugin_api::codes;
use serde_json::json;
use support::onnx::{self, Graph, Message, node, tensor, value};
use support::{asset, engines, load, model_file, request};

/// What every engine says, at estimating and at loading alike.
fn refusal(bytes: &[u8]) -> String {
    let (_dir, path) = model_file(bytes);
    let mut messages = Vec::new();
    for engine in engines() {
        let error = engine.estimate(&request(&path, json!({}))).unwrap_err();
        assert_eq!(error.code, codes::MODEL_INVALID, "{error}");
        assert_eq!(load(&*engine, &path).err().unwrap(), error);
        messages.push(error.message);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

#[test]
fn files_of_another_kind_are_named() {
    assert!(refusal(b"").ends_with("the file is empty (0 bytes)"));
    assert!(refusal(b"GGUF\x03\0\0\0 and more").contains("it is a GGUF file"));
    assert!(
        refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:00").contains("Git LFS pointer")
    );
    assert!(refusal(b"{\"model_id\": 1}").contains("JSON text"));
    assert!(refusal(&[0; 4096]).contains("field number 0"));
    assert!(refusal(b"just some text, nothing more").contains("not an ONNX model"));
    assert!(refusal(&Message::default().number(1, 8).finish()).contains("no graph"));
}

#[test]
fn a_missing_file_and_a_folder_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    for engine in engines() {
        for path in [dir.path().join("none.onnx"), dir.path().to_path_buf()] {
            let error = load(&*engine, &path).err().unwrap();
            assert_eq!(error.code, codes::MODEL_NOT_FOUND);
            assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let weights = [0u8; 40];
    let whole = Graph::new("cut")
        .initializer(tensor("w", onnx::FLOAT, &[10], &weights))
        .input(value("x", onnx::FLOAT, Some("n,10")))
        .node(node("Add", &["x", "w"], &["y"]))
        .output(value("y", onnx::FLOAT, Some("n,10")))
        .model(&[]);
    let engines = engines();
    let (_dir, path) = model_file(&whole);
    for engine in &engines {
        load(&**engine, &path).unwrap();
    }
    // The graph is the second but last field: cut within it, the length no longer fits.
    let graph_end = whole.len()
        - Message::default().message(8, Message::default().bytes(1, "").number(2, 17)).finish().len();
    for length in 0..graph_end {
        std::fs::write(&path, &whole[..length]).unwrap();
        for engine in &engines {
            let error = engine.estimate(&request(&path, json!({}))).unwrap_err();
            assert_eq!(error.code, codes::MODEL_INVALID, "cut at {length}: {error}");
        }
    }
    assert!(refusal(&whole[..graph_end - 1]).contains("truncated"));
}

#[test]
fn a_changed_byte_never_crashes_the_reader() {
    let whole = Graph::new("fuzz")
        .initializer(tensor("w", onnx::FLOAT, &[2, 2], &[0; 16]))
        .input(value("x", onnx::FLOAT, Some("n,2")))
        .node(node("MatMul", &["x", "w"], &["y"]))
        .output(value("y", onnx::FLOAT, Some("n,2")))
        .model(&[("key", "value")]);
    let Some(engine) = support::engine("rten") else { return };
    let (_dir, path) = model_file(&whole);
    for at in 0..whole.len() {
        for change in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            std::fs::write(&path, &bytes).unwrap();
            // Whatever the verdict: it is one, and takes no more memory than the file could hold.
            match engine.estimate(&request(&path, json!({}))) {
                Ok(memory) => assert!(memory[0].weights <= 1 << 20, "byte {at} ^ {change:#x}: {memory:?}"),
                Err(error) => assert_eq!(error.code, codes::MODEL_INVALID),
            }
        }
    }
}

#[test]
fn impossible_tensors_are_refused() {
    let model = |initializer: Message| {
        Graph::new("bad").initializer(initializer).output(value("w", onnx::FLOAT, Some("2"))).model(&[])
    };
    let short = refusal(&model(tensor("w", onnx::FLOAT, &[1000], &[0; 8])));
    assert!(short.contains("tensor `w` with 8 bytes where its shape needs 4000"), "{short}");
    let negative = refusal(&model(tensor("w", onnx::FLOAT, &[-1], &[])));
    assert!(negative.contains("impossible shape of tensor `w`"), "{negative}");
    let huge = refusal(&model(tensor("w", onnx::FLOAT, &[i64::MAX, i64::MAX], &[])));
    assert!(huge.contains("impossible shape"), "{huge}");
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut graph = Graph::new("inner");
    for _ in 0..100 {
        let attribute = Message::default().bytes(1, "body").message(6, graph.into_message());
        graph = Graph::new("outer").node(node("If", &["c"], &["y"]).message(5, attribute));
    }
    assert!(refusal(&graph.model(&[])).contains("nested more than 32 deep"));
}

#[test]
fn data_in_another_file_must_be_there_and_stay_inside() {
    let external = |location: &str, length: &str| {
        let entry = |k: &str, v: &str| Message::default().bytes(1, k).bytes(2, v);
        let w = Message::default()
            .number(1, 4)
            .number(2, 1)
            .bytes(8, "w")
            .message(13, entry("location", location))
            .message(13, entry("offset", "0"))
            .message(13, entry("length", length))
            .number(14, 1);
        Graph::new("external")
            .initializer(w)
            .input(value("x", onnx::FLOAT, Some("4")))
            .node(node("Add", &["x", "w"], &["y"]))
            .output(value("y", onnx::FLOAT, Some("4")))
            .model(&[])
    };
    assert!(refusal(&external("weights.bin", "16")).contains("missing"));
    assert!(refusal(&external("../weights.bin", "16")).contains("outside the model's folder"));
    assert!(refusal(&external("/etc/hostname", "1")).contains("outside the model's folder"));

    let (dir, path) = model_file(&external("model.onnx.data", "16"));
    let weights: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(dir.path().join("model.onnx.data"), &weights).unwrap();
    for engine in engines() {
        assert_eq!(engine.estimate(&request(&path, json!({}))).unwrap()[0].weights, 16);
        let session = load(&*engine, &path).unwrap();
        let x = support::Tensor::f32(&[4], &[0.0; 4]);
        assert_eq!(support::infer(&*session, &[("x", &x)]).unwrap().get("y").to_f32(), [1.0, 2.0, 3.0, 4.0]);
    }
    std::fs::write(dir.path().join("model.onnx.data"), &weights[..8]).unwrap();
    for engine in engines() {
        let error = load(&*engine, &path).err().unwrap();
        assert_eq!(error.code, codes::MODEL_INVALID);
        assert!(error.message.contains("truncated"), "{error}");
    }
}

#[test]
fn a_real_model_cut_in_half_is_refused() {
    let Some(path) = asset("yolo/yolov8n_int8.onnx") else { return };
    let bytes = std::fs::read(path).unwrap();
    assert!(refusal(&bytes[..bytes.len() / 2]).contains("truncated"));
}
