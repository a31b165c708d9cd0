//! The same stretches, to the sample, as silero-vad's own function finds: `golden.json`, which `tests/peers/vad.py` wrote.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;

use pajamas_stage::{Files, Stage, Tensor, TensorData, Values, testing};
use serde_json::{Value, json};
use vad_segments::VadSegments;

#[test]
fn stretches_are_those_that_silero_finds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut found_any = 0;
    for (n, sound) in golden.as_array().unwrap().iter().enumerate() {
        let probabilities: Vec<f32> = serde_json::from_value(sound["probabilities"].clone()).unwrap();
        for case in sound["cases"].as_array().unwrap() {
            let stage: VadSegments = testing::create(&case[0], Files::default()).unwrap();
            let samples =
                Tensor::new(vec![1], TensorData::I64(vec![sound["samples"].as_i64().unwrap()])).unwrap();
            let tensor = Tensor::f32(vec![probabilities.len() as u64, 1], probabilities.clone()).unwrap();
            let inputs = Values::new().with("tensor", tensor).with("samples", samples);
            let found = stage.run(inputs).unwrap().tensor("tensor").unwrap();
            let TensorData::I64(ends) = found.data else { panic!("{:?}", found.data) };
            let ends: Vec<Value> = ends.chunks(2).map(|pair| json!(pair)).collect();
            assert_eq!(Value::from(ends), case[1], "sound {n}, {}", case[0]);
            found_any += found.shape[0];
        }
    }
    assert!(found_any > 1000, "{found_any}");
}
