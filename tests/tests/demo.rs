//! `cargo xtask demo` from where it has built everything: its own commands, on the built product.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, run};
use serde_json::Value;

/// What the demo runs, in this order. `BOXES` stands for the picture that is drawn.
const COMMANDS: &str = include_str!("../../xtask/demo.json");

/// A picture's width and height, and its pixels as they are stored.
fn pixels(file: &Path) -> (u32, u32, Vec<u8>) {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(file).unwrap()));
    decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    bytes.truncate(frame.buffer_size());
    (frame.width, frame.height, bytes)
}

/// Runs the commands and returns what each said, by its first word.
fn demo(boxes: &Path) -> Vec<(String, Finished)> {
    let steps: Vec<Value> = serde_json::from_str(COMMANDS).unwrap();
    let said = steps.iter().map(|step| {
        let words = step["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let words: Vec<_> =
            words.map(|word| if word == "BOXES" { boxes.to_str().unwrap() } else { word }).collect();
        (words[0].to_owned(), run(&words).unwrap())
    });
    said.collect()
}

#[test]
fn the_demo_chats_detects_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let boxes = folder.path().join("sample-boxes.png");
    let said = demo(&boxes);
    for (command, finished) in &said {
        assert!(finished.status.success(), "{command}: {}", finished.stderr);
        assert!(!finished.stdout.trim().is_empty(), "{command} says nothing");
    }
    let of = |command: &str| &said.iter().find(|(name, _)| name == command).unwrap().1.stdout;
    assert!(of("plugins").contains("gguf") && of("plugins").contains("onnx"), "{}", of("plugins"));
    assert!(of("chat").to_lowercase().contains("llama"), "{}", of("chat"));

    // The sample with boxes drawn over it: as large, and not the same in a part of its pixels.
    let (width, height, plain) = pixels(&repository().join("models/sample.png"));
    let (drawn_width, drawn_height, drawn) = pixels(&boxes);
    assert_eq!((drawn_width, drawn_height), (width, height));
    assert_eq!(drawn.len(), plain.len(), "{}", of("detect"));
    let changed = plain.chunks_exact(4).zip(drawn.chunks_exact(4)).filter(|(a, b)| a[..3] != b[..3]).count();
    assert!(
        (100..plain.len() / 8).contains(&changed),
        "{changed} pixels are not as before: {}",
        of("detect")
    );
}
