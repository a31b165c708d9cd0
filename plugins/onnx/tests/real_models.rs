//! Models made by others, on both engines. They are test data outside the project: without them the tests skip.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]

mod support;

use std::path::Path;

use pajamas_plugin_api::{Backend, DType, Dim, Session};
use support::{Tensor, asset, engines, infer, load};

/// Numbers that look like a normalised image and are the same everywhere.
fn picture(shape: &[u64]) -> Tensor {
    let count = shape.iter().product::<u64>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 2_654_435_761) % 1024) as f32 / 1023.0).collect();
    Tensor::f32(shape, &values)
}

/// The largest difference between two tensors of the same shape.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// What every engine answers, under its id.
fn answers(path: &Path, input: &str, tensor: &Tensor, output: &str) -> Vec<(String, Vec<f32>)> {
    let run = |engine: Box<dyn Backend>| {
        let session = load(&*engine, path).unwrap();
        (engine.describe().id, infer(&*session, &[(input, tensor)]).unwrap().get(output).to_f32())
    };
    engines().into_iter().map(run).collect()
}

/// Fails where two engines differ by more than `tolerance`.
fn agree(answers: &[(String, Vec<f32>)], tolerance: f32) {
    for pair in answers.windows(2) {
        let far = distance(&pair[0].1, &pair[1].1);
        assert!(far <= tolerance, "{} and {} differ by {far}", pair[0].0, pair[1].0);
    }
}

#[test]
fn yolo_in_float_gives_the_same_on_both() {
    let Some(path) = asset("derived/yolov8n_deq_fp32.onnx") else { return };
    let answers = answers(&path, "images", &picture(&[1, 3, 640, 640]), "output0");
    assert!(answers.iter().all(|(_, y)| y.len() == 84 * 8400));
    // Boxes are in pixels, up to 640.
    agree(&answers, 0.05);
}

#[test]
fn quantized_yolo_runs_with_its_metadata() {
    for (file, outputs) in [("yolo/yolov8n_int8.onnx", 1), ("yolo/yolov8n-seg_int8.onnx", 2)] {
        let Some(path) = asset(file) else { continue };
        for engine in engines() {
            let session = load(&*engine, &path).unwrap();
            let signature = session.signature();
            assert_eq!(signature.outputs.len(), outputs);
            assert!(signature.metadata["names"].contains("person"), "{:?}", signature.metadata);
            assert!(signature.metadata.contains_key("stride"));
            let Dim::Fixed(side) = signature.inputs[0].shape[3] else { panic!("{signature:?}") };
            let y = infer(&*session, &[("images", &picture(&[1, 3, side, side]))]).unwrap();
            assert!(y.get("output0").to_f32().iter().all(|v| v.is_finite()));
            assert!(y.copied.is_empty(), "fixed shapes are written in place");
        }
    }
}

#[test]
fn classifiers_agree_in_any_precision() {
    if let Some(path) = asset("vision/mobilenetv2_int8.onnx") {
        let answers = answers(&path, "input", &picture(&[2, 3, 224, 224]), "output");
        assert!(answers.iter().all(|(_, y)| y.len() == 2000));
        agree(&answers, 1e-3);
    }
    if let Some(path) = asset("vision/squeezenet1.1_fp16.onnx") {
        for engine in engines() {
            let session = load(&*engine, &path).unwrap();
            let signature = session.signature();
            // 52 initializers are listed as inputs in this old file; only the image is one.
            assert_eq!(signature.inputs.len(), 1);
            assert_eq!(signature.inputs[0].dtype, DType::F16);
            let halves: Vec<u8> = picture(&[1, 3, 224, 224])
                .to_f32()
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect();
            let image = Tensor::new(DType::F16, &[1, 3, 224, 224], halves);
            let y = infer(&*session, &[(&signature.inputs[0].name, &image)]).unwrap().get("softmaxout_1");
            let halves = y.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32());
            let sum: f32 = halves.sum();
            assert!((sum - 1.0).abs() < 0.02, "{}: probabilities sum to {sum}", engine.describe().id);
        }
    }
}

/// One step of Silero's voice activity detection: 64 samples of context and 512 new ones.
fn vad(session: &dyn Session, rate: i64) -> Vec<f32> {
    let samples: Vec<f32> = (0..576).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
    let audio = Tensor::f32(&[1, 576], &samples);
    let state = Tensor::f32(&[2, 1, 128], &[0.0; 256]);
    let outputs =
        infer(session, &[("input", &audio), ("state", &state), ("sr", &Tensor::i64(&[], &[rate]))]).unwrap();
    assert_eq!(outputs.get("stateN").shape, [2, 1, 128]);
    outputs.get("output").to_f32()
}

#[test]
fn voice_detection_with_branches_and_state_agrees() {
    for file in ["vad/silero_vad.onnx", "vad/silero_vad_16k_op15.onnx"] {
        let Some(path) = asset(file) else { continue };
        let answers: Vec<_> = engines()
            .into_iter()
            .map(|engine| (engine.describe().id, vad(&*load(&*engine, &path).unwrap(), 16000)))
            .collect();
        assert!(
            answers.iter().all(|(_, y)| y.len() == 1 && (0.0..=1.0).contains(&y[0])),
            "{file}: {answers:?}"
        );
        agree(&answers, 1e-3);
    }
}
