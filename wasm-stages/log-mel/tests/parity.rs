//! Compared with transformers' feature extractor: `golden.json`, which `tests/peers/log_mel.py` wrote.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use log_mel::Spectrogram;
use serde_json::Value;

const WINDOW: usize = 480_000;
/// transformers computes in double precision; ours and Whisper's own in single.
const TOLERANCE: f64 = 1e-5;

fn asset(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets").join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Noise that comes and goes.
fn invented() -> Vec<f32> {
    let sample = |n: u64| ((n * n / 7) % 200) as f32 / 400.0 - 0.25;
    (0..100_000u64).map(|n| if n % 40_000 < 20_000 { sample(n) } else { 0.0 }).collect()
}

/// 16-bit PCM of one channel.
fn pcm(path: &Path) -> Vec<f32> {
    let file = fs::read(path).unwrap();
    let data = file.windows(4).position(|w| w == b"data").unwrap() + 8;
    file[data..].as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0).collect()
}

#[test]
fn features_are_those_of_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for (name, want) in golden.as_object().unwrap() {
        let samples = match name.rsplit_once('-').unwrap().0 {
            "invented" => invented(),
            file => match asset(&format!("audio/{file}")) {
                Some(path) => pcm(&path),
                None => continue,
            },
        };
        let mels = want["mels"].as_u64().unwrap() as usize;
        let made = Spectrogram::new(mels).log_mel(&samples, WINDOW);
        assert_eq!(Value::from(vec![mels, made.len() / mels]), want["shape"], "{name}");
        let probes = want["at"].as_array().unwrap().iter().zip(want["probes"].as_array().unwrap());
        let worst = probes
            .map(|(at, probe)| {
                (f64::from(made[at.as_u64().unwrap() as usize]) - probe.as_f64().unwrap()).abs()
            })
            .fold(0.0, f64::max);
        let sum: f64 = made.iter().map(|x| f64::from(*x)).sum();
        let mean = (sum - want["sum"].as_f64().unwrap()).abs() / made.len() as f64;
        assert!(worst < TOLERANCE && mean < 1e-6, "{name}: off by {worst}, in the mean by {mean}");
    }
}
