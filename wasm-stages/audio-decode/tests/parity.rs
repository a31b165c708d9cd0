//! What comes out of a file, compared with FFmpeg: `golden.json` and `golden-assets.json`, which
//! `tests/peers/audio_decode.py` wrote.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use audio_decode::{Limits, decode};
use pajamas_stage::Audio;
use serde_json::Value;

const LIMITS: Limits = Limits { max_seconds: 600.0, max_samples: 10_000_000, max_bytes: 10 << 20 };

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn golden(file: &str) -> serde_json::Map<String, Value> {
    serde_json::from_slice(&fs::read(tests().join(file)).unwrap()).unwrap()
}

/// How far a sample may be off. What is written down has six digits; Opus decodes to 16 bits here, and resamples voice in
/// another way than libopus.
fn tolerance(name: &str) -> f64 {
    match name {
        "opus-voice.ogg" => 1e-2,
        _ if name.starts_with("opus") => 1e-4,
        _ => 1e-6,
    }
}

/// Frames that Matroska marks as not to be heard: FFmpeg drops them, symphonia does not.
fn unheard(name: &str) -> (usize, usize) {
    match name {
        "aac.mkv" => (1024, 0),
        "opus.webm" => (0, 648),
        _ => (0, 0),
    }
}

fn compare(name: &str, audio: &Audio, want: &Value) {
    let channels = usize::from(audio.channels);
    let (before, after) = unheard(name);
    assert_eq!(
        (Value::from(audio.sample_rate), Value::from(channels)),
        (want["rate"].clone(), want["channels"].clone()),
        "{name}"
    );
    assert_eq!(Value::from(audio.frames() - before - after), want["frames"], "{name}");
    let mut worst = 0f64;
    for (n, at) in want["at"].as_array().unwrap().iter().enumerate() {
        let at = at.as_u64().unwrap() as usize + before;
        for channel in 0..channels {
            let sample = f64::from(audio.samples[at * channels + channel]);
            worst = worst.max((sample - want["probes"][channel][n].as_f64().unwrap()).abs());
        }
    }
    assert!(worst <= tolerance(name), "{name}: off by {worst}");
}

#[test]
fn every_format_is_decoded_as_ffmpeg_decodes_it() {
    for (name, want) in golden("golden.json") {
        let audio = decode(fs::read(tests().join("data").join(&name)).unwrap(), false, LIMITS).unwrap();
        compare(&name, &audio, &want);
    }
}

#[test]
fn recordings_are_decoded_as_ffmpeg_decodes_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets/audio");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    for (name, want) in golden("golden-assets.json") {
        let audio = decode(fs::read(folder.join(&name)).unwrap(), false, LIMITS).unwrap();
        compare(&name, &audio, &want);
    }
}
