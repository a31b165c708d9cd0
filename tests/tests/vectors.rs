//! Journeys to vectors of pictures and texts, by models that know tensors alone: `tests/peers/vectors.py` made them, and what
//! they give by other programs.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, engines, model_entry};
use pajamas_journeys::server::Server;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/vectors").join(name)
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// How far two vectors are apart, at most, in one of their elements.
fn apart(a: &Value, b: &Value) -> f64 {
    let (a, b) = (a.as_array().unwrap(), b.as_array().unwrap());
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs()).fold(0.0, f64::max)
}

/// Texts pass through the same arithmetic in another order; pictures are scaled by another program, to whole levels.
const TEXT: f64 = 1e-5;
const PICTURE: f64 = 0.02;

#[test]
fn texts_and_pictures_become_the_peers_vectors_on_both_engines() {
    let expected = expected();
    let texts: Vec<&str> =
        expected["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let sample = repository().join("models/sample.png");
    for engine in engines().unwrap() {
        let with = |id: &str, file: &str| {
            model_entry(id, &fixture(file), &format!("task = \"embed\"\nbackend = \"{engine}\""))
        };
        let entries = with("image", "clip/vision_model.onnx")
            + &with("clip", "clip/text_model.onnx")
            + &with("mean", "bert/model.onnx");
        let house = House::new(&entries).unwrap();
        for model in ["clip", "mean"] {
            let command = [&["embed", "--json", "--model", model][..], &texts].concat();
            let seen = house.run(command).unwrap().json().unwrap();
            assert_eq!(seen.len(), texts.len());
            for (seen, want) in seen.iter().zip(expected[model].as_array().unwrap()) {
                let apart = apart(&seen["embedding"], want);
                assert!(apart < TEXT, "{model} by {engine}: {apart}: {seen}, and not {want}");
            }
        }
        let command = ["embed", "--json", "--model", "image", "--images", sample.to_str().unwrap()];
        let seen = house.run(command).unwrap().json().unwrap().remove(0);
        let apart = apart(&seen["embedding"], &expected["image"]);
        assert!(apart < PICTURE, "{engine}: {apart}: {seen}");
        assert_eq!(seen["image"], sample.to_str().unwrap());
        // A model of pictures makes nothing of words.
        let refused = house.run(["embed", "--model", "image", "words"]).unwrap();
        assert_eq!(refused.refusal().unwrap(), ("pipeline-unknown".into(), 2), "{}", refused.stderr);
    }
}

#[test]
fn over_http_vectors_are_the_same_and_labels_are_the_requests() {
    let expected = expected();
    let entries = ["clip/vision_model.onnx", "bert/model.onnx"].iter().zip(["image", "mean"]);
    let mut entries: String =
        entries.map(|(file, id)| model_entry(id, &fixture(file), "task = \"embed\"")).collect();
    entries += &model_entry("whole", &fixture("whole/model.onnx"), "task = \"classify\"");
    let server = Server::start(House::new(&entries).unwrap()).unwrap();
    let picture = STANDARD.encode(fs::read(repository().join("models/sample.png")).unwrap());

    let body = json!({ "model": "image", "image": picture });
    let seen = server.post_json("/v1/images/embed", &body).unwrap().json().unwrap();
    assert!(apart(&seen["embedding"], &expected["image"]) < PICTURE, "{seen}");
    let body = json!({ "model": "mean", "input": expected["texts"] });
    let seen = server.post_json("/v1/embeddings", &body).unwrap().json().unwrap();
    for (seen, want) in seen["data"].as_array().unwrap().iter().zip(expected["mean"].as_array().unwrap()) {
        assert!(apart(&seen["embedding"], want) < TEXT, "{seen}");
    }
    assert!(seen["usage"]["prompt_tokens"].as_u64().unwrap() > 8, "{seen}");

    let labels = expected["labels"][0].as_array().unwrap();
    let ask = |labels: Value| {
        let body = json!({ "model": "whole", "image": picture, "labels": labels });
        server.post_json("/v1/images/classify", &body).unwrap()
    };
    let seen = ask(json!(labels)).json().unwrap();
    let classes = seen["classes"].as_array().unwrap();
    assert_eq!(classes.len(), labels.len());
    for class in classes {
        let id = class["class_id"].as_u64().unwrap() as usize;
        assert_eq!(class["label"], labels[id]);
        let want = expected["labels"][1][id].as_f64().unwrap();
        assert!((class["score"].as_f64().unwrap() - want).abs() < PICTURE, "{seen}: {want}");
    }
    for wrong in [json!([]), json!(vec!["x"; 1001])] {
        let (status, error) = ask(wrong).refusal().unwrap();
        assert_eq!((status, &error["code"]), (400, &json!("invalid-option")), "{error}");
    }
}
