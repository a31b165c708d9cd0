//! Milliseconds that each stage of a detection, or of listening, or of reading, takes as native code, the fastest of many runs, as one JSON
//! object.
//!
//! ```sh
//! cargo run --release -- PICTURE [WIDTH] [HEIGHT]
//! cargo run --release -- --sound FILE
//! cargo run --release -- --text TOKENIZER FILE
//! ```
//!
//! The model is not run: the boxes to decode are made up, about as many as a picture has.

mod sound;
mod text;

use std::time::Instant;

use image_decode::ImageDecode;
use image_normalize::ImageNormalize;
use letterbox::Letterbox;
use mask_decode::MaskDecode;
use nms::Nms;
use pajamas_stage::{Files, Stage, Tensor, Values, testing};
use serde_json::{Value, json};
use yolo_decode::YoloDecode;

const RUNS: usize = 20;
/// What a YOLOv8 model for COCO gives for 640 x 640 pixels.
const CLASSES: usize = 80;
const BOXES: usize = 8400;
/// Of what a YOLOv8 model for COCO mixes its masks.
const PROTOTYPES: u64 = 32;
/// Boxes that are something.
const FOUND: usize = 60;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let picture = arguments.next().ok_or("a picture is needed")?;
    if picture == "--sound" {
        return sound::measure(&arguments.next().ok_or("a sound file is needed")?);
    }
    if picture == "--text" {
        let mut file = || arguments.next().ok_or("a tokenizer.json and a text file are needed");
        return text::measure(&file()?, &file()?);
    }
    let mut side = || arguments.next().map_or(Ok(640), |n| n.parse::<u64>());
    let (width, height) = (side()?, side()?);
    let mut steps = Vec::new();
    let bytes = std::fs::read(picture)?;
    let mut decoded = time::<ImageDecode>(&mut steps, "image-decode", json!({}), || {
        Values::new().with("bytes", bytes.clone())
    })?;
    let (image, size) = (decoded.image("image").map_err(told)?, decoded.tensor("size").map_err(told)?);
    let options = json!({ "width": width, "height": height });
    let mut fitted =
        time::<Letterbox>(&mut steps, "letterbox", options, || Values::new().with("image", image.clone()))?;
    let (boxed, transform) =
        (fitted.image("image").map_err(told)?, fitted.tensor("transform").map_err(told)?);
    time::<ImageNormalize>(&mut steps, "image-normalize", json!({}), || {
        Values::new().with("image", boxed.clone())
    })?;
    let output = Tensor::f32(vec![1, 4 + CLASSES as u64, BOXES as u64], output()).map_err(told)?;
    let mut found = time::<YoloDecode>(&mut steps, "yolo-decode", json!({}), || {
        Values::new()
            .with("tensor", output.clone())
            .with("transform", transform.clone())
            .with("size", size.clone())
    })?;
    let detections = found.take("detections").ok_or("no detections")?;
    let mut kept =
        time::<Nms>(&mut steps, "nms", json!({}), || Values::new().with("detections", detections.clone()))?;
    let kept = kept.detections("detections").map_err(told)?;
    let numbers = |shape: Vec<u64>| {
        let count = shape.iter().product::<u64>() as usize;
        Tensor::f32(shape, (0..count).map(|n| (n % 97) as f32 - 40.0).collect()).map_err(told)
    };
    let coefficients = numbers(vec![kept.len() as u64, PROTOTYPES])?;
    let prototypes = numbers(vec![1, PROTOTYPES, height / 4, width / 4])?;
    time::<MaskDecode>(&mut steps, "mask-decode", json!({}), || {
        Values::new()
            .with("detections", kept.clone())
            .with("coefficients", coefficients.clone())
            .with("prototypes", prototypes.clone())
            .with("transform", transform.clone())
    })?;
    println!("{}", json!({ "steps": steps }));
    Ok(())
}

/// Runs a stage often on the same values, and notes the shortest time.
fn time<S: Stage>(
    steps: &mut Vec<Value>,
    name: &str,
    options: Value,
    values: impl Fn() -> Values,
) -> Result<Values, Failure> {
    let stage: S = testing::create(&options, Files::default()).map_err(told)?;
    let (mut best, mut last) = (f64::INFINITY, Values::new());
    for _ in 0..RUNS {
        let inputs = values();
        let started = Instant::now();
        last = stage.run(inputs).map_err(told)?;
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
    }
    steps.push(json!({ "step": name, "ms": best }));
    Ok(last)
}

fn told(error: pajamas_stage::Error) -> String {
    error.message
}

/// Boxes in a grid, each of a class of its own.
fn output() -> Vec<f32> {
    let mut values = vec![0.0; (4 + CLASSES) * BOXES];
    for found in 0..FOUND {
        let at = found * (BOXES / FOUND);
        let (x, y) = ((found % 10) as f32 * 60.0 + 40.0, (found / 10) as f32 * 90.0 + 60.0);
        for (row, value) in [x, y, 50.0, 70.0].into_iter().enumerate() {
            values[row * BOXES + at] = value;
        }
        values[(4 + found % CLASSES) * BOXES + at] = 0.3 + 0.01 * found as f32;
    }
    values
}
