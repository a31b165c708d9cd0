//! Journeys to outlines and main objects: on the command line by both engines, and over HTTP.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::geometry::{iou, overlap, uncompressed};
use pajamas_journeys::product::{House, asset, engines, keys, model_entry, run};
use pajamas_journeys::server::Server;
use serde_json::{Value, json};

/// What `tests/peers/segment.py` found: label, score, box and mask.
type Golden = BTreeMap<String, Vec<(String, f64, [f64; 4], Value)>>;

fn picture(name: &str) -> Option<PathBuf> {
    let folders = ["images", "coco8/images/train", "coco8/images/val"];
    let folder =
        folders.iter().find(|f| repository().join("../shared/assets").join(f).join(name).exists())?;
    asset(&format!("{folder}/{name}"))
}

fn model() -> Option<PathBuf> {
    asset("yolo/yolov8n-seg_int8.onnx")
}

/// A mask for each engine's model, over all golden pictures.
#[test]
fn masks_are_those_of_the_peer_on_both_engines() {
    let Some(model) = model() else { return };
    let golden = fs::read(repository().join("tests/fixtures/segments.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let Some(files) = golden.keys().map(|name| picture(name)).collect::<Option<Vec<_>>>() else { return };
    let engines = engines().unwrap();
    let entries = engines.iter().map(|engine| {
        model_entry(&format!("seg-{engine}"), &model, &format!("task = \"segment\"\nbackend = \"{engine}\""))
    });
    let house = House::new(&entries.collect::<String>()).unwrap();
    for engine in &engines {
        let id = format!("seg-{engine}");
        let mut command = vec!["segment", "--json", "--model", &id];
        command.extend(files.iter().map(|file| file.to_str().unwrap()));
        let seen = house.run(command).unwrap().json().unwrap();
        let mut overlaps = Vec::new();
        for (seen, (name, golden)) in seen.iter().zip(&golden) {
            let found = seen["detections"].as_array().unwrap();
            for (label, _, bbox, mask) in golden {
                let near = |d: &&Value| {
                    let own: [f64; 4] = serde_json::from_value(d["box"].clone()).unwrap();
                    d["label"].as_str().unwrap().replace('_', " ") == *label && iou(&own, bbox) >= 0.75
                };
                let found = found.iter().find(near);
                let found = found.unwrap_or_else(|| panic!("{id}, {name}: no {label} at {bbox:?}: {seen}"));
                assert_eq!(found["mask"]["size"], mask["size"], "{id}, {name}");
                overlaps.push(overlap(&uncompressed(&found["mask"]).unwrap(), &uncompressed(mask).unwrap()));
            }
        }
        let (worst, mean) = (
            overlaps.iter().copied().fold(1.0, f64::min),
            overlaps.iter().sum::<f64>() / overlaps.len() as f64,
        );
        eprintln!(
            "{id}: {} masks overlap the peer's by {mean:.4} in the mean, {worst:.4} at worst",
            overlaps.len()
        );
        // Other code decoded and scaled the pictures, as for boxes.
        assert!(worst >= 0.8 && mean >= 0.95, "{id}: {overlaps:?}");
    }
}

#[test]
fn a_segment_is_a_detection_with_its_mask_and_can_be_drawn() {
    let (Some(model), Some(bus)) = (model(), picture("bus.jpg")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let drawn = folder.path().join("masks.png");
    let (model, bus) = (model.to_str().unwrap(), bus.to_str().unwrap());
    let arguments =
        ["segment", "--json", "--polygons", "--model", model, "--draw", drawn.to_str().unwrap(), bus];
    let seen = run(arguments).unwrap().json().unwrap().remove(0);
    assert_eq!(keys(&seen), ["detections", "height", "image", "width"]);
    for object in seen["detections"].as_array().unwrap() {
        assert_eq!(keys(object), ["box", "class_id", "label", "mask", "polygons", "score"]);
        let [x1, y1, x2, y2]: [f64; 4] = serde_json::from_value(object["box"].clone()).unwrap();
        let polygons: Vec<Vec<f64>> = serde_json::from_value(object["polygons"].clone()).unwrap();
        for point in polygons.iter().flat_map(|polygon| polygon.chunks(2)) {
            let inside =
                x1 - 1.0 <= point[0] && point[0] <= x2 + 1.0 && y1 - 1.0 <= point[1] && point[1] <= y2 + 1.0;
            assert!(inside, "{point:?} is outside of {:?}", [x1, y1, x2, y2]);
        }
    }
    let plain = folder.path().join("boxes.png");
    let boxes = ["detect", "--model", model, "--draw", plain.to_str().unwrap(), bus];
    assert!(run(boxes).unwrap().status.success());
    let size = |file: &Path| fs::read(file).unwrap()[16..24].to_vec();
    assert_eq!(size(&drawn), size(&plain));
    assert_ne!(fs::read(&drawn).unwrap(), fs::read(&plain).unwrap(), "the masks are seen");
}

#[test]
fn a_model_without_prototypes_has_no_outlines_and_says_so() {
    let refused = run(["segment", "--model", "models/detect/model.onnx", "models/sample.png"]).unwrap();
    assert_eq!(refused.refusal().unwrap(), ("pipeline-unknown".into(), 2), "{}", refused.stderr);
    assert!(refused.stderr.contains("prototypes"), "{}", refused.stderr);
}

#[test]
fn the_main_object_is_one_of_those_that_are_detected() {
    let arguments = ["--json", "--model", "models/detect/model.onnx", "models/sample.png"];
    let seen = |command| run([&[command], &arguments[..]].concat()).unwrap().json().unwrap().remove(0);
    let (main, all) = (seen("localize"), seen("detect"));
    assert_eq!(keys(&main), ["height", "image", "object", "width"]);
    assert!(all["detections"].as_array().unwrap().contains(&main["object"]), "{main}");
    let nothing = run([
        "localize",
        "--json",
        "--confidence",
        "1",
        "--model",
        "models/detect/model.onnx",
        "models/sample.png",
    ]);
    assert_eq!(nothing.unwrap().json().unwrap()[0]["object"], Value::Null);
}

#[test]
fn a_folder_and_a_pattern_are_their_pictures() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.png", "a.png", "c.txt"] {
        fs::copy(repository().join("models/sample.png"), folder.path().join(name)).unwrap();
    }
    let seen = |what: PathBuf| {
        let command = ["detect", "--json", "--model", "models/detect/model.onnx", what.to_str().unwrap()];
        let seen = run(command).unwrap().json().unwrap();
        let names =
            seen.iter().map(|s| Path::new(s["image"].as_str().unwrap()).file_name().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(seen(folder.path().to_path_buf()), ["a.png", "b.png"]);
    assert_eq!(seen(folder.path().join("?.png")), ["a.png", "b.png"]);
}

#[test]
fn several_pictures_in_one_call_are_answered_as_one_by_one() {
    let models = repository().join("models");
    let entries = model_entry("shapes", &models.join("detect"), "")
        + &model_entry("colours", &models.join("classify"), "");
    let server = Server::start(House::new(&entries).unwrap()).unwrap();
    let picture = STANDARD.encode(fs::read(models.join("sample.png")).unwrap());
    for (route, field) in [("detect", "detections"), ("localize", "object"), ("classify", "classes")] {
        let ask = |body: Value| server.post_json(&format!("/v1/images/{route}"), &body).unwrap();
        let one = ask(json!({ "image": picture })).json().unwrap();
        let two = ask(json!({ "images": [picture, picture] })).json().unwrap();
        assert_eq!(keys(&two), ["model", "results"]);
        assert_eq!(two["model"], one["model"]);
        let results = two["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|result| result[field] == one[field]), "{two}");
        assert_eq!((&results[0]["image"], &results[1]["image"]), (&json!("0"), &json!("1")));
        // What is wrong with one of them is said with its place.
        let (status, error) = ask(json!({ "images": [picture, "bm8="] })).refusal().unwrap();
        assert_eq!((status, &error["code"]), (400, &json!("image-unsupported")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("picture 1"), "{error}");
        for wrong in [
            json!({}),
            json!({ "images": [] }),
            json!({ "image": picture, "images": [] }),
            json!({ "images": vec![""; 65] }),
        ] {
            let (status, error) = ask(wrong).refusal().unwrap();
            assert_eq!((status, &error["code"]), (400, &json!("invalid-input")), "{error}");
        }
    }
}
