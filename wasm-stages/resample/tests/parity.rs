//! Compared with soxr in its very high quality: `golden.json`, which `tests/peers/resample.py` wrote.
//!
//! soxr and scipy differ from each other by 5e-4 on the chord, and by 2e-2 on speech that has more above the band than in it;
//! this stage comes closer to soxr than that.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

use resample::resample;
use serde_json::Value;

/// A second of a chord within the band.
fn chord(rate: u32) -> Vec<f32> {
    let within = |hz: &&f64| **hz < 0.45 * f64::from(rate);
    let sample = |n: u32| {
        let at = f64::from(n) / f64::from(rate);
        let tones = [97.0, 440.0, 1500.0, 6300.0];
        tones.iter().filter(within).map(|hz| 0.2 * (TAU * hz * at).sin()).sum::<f64>() as f32
    };
    (0..rate).map(sample).collect()
}

fn compare(name: &str, samples: &[f32], want: &Value, tolerance: f64) {
    let rate = |key: &str| u32::try_from(want[key].as_u64().unwrap()).unwrap();
    let got = resample(samples, rate("rate"), rate("to"));
    let probes = want["at"].as_array().unwrap().iter().zip(want["probes"].as_array().unwrap());
    let worst = probes
        .map(|(at, probe)| (f64::from(got[at.as_u64().unwrap() as usize]) - probe.as_f64().unwrap()).abs())
        .fold(0.0, f64::max);
    assert!(worst < tolerance, "{name}: off by {worst}");
}

#[test]
fn sound_is_resampled_as_soxr_does_it() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_slice(&fs::read(here.join("tests/golden.json")).unwrap()).unwrap();
    for (name, want) in golden.as_object().unwrap() {
        if name.starts_with("invented") {
            let rate = u32::try_from(want["rate"].as_u64().unwrap()).unwrap();
            compare(name, &chord(rate), want, 1e-4);
        } else {
            let path = here.join("../../../shared/assets/audio").join(name);
            let Ok(file) = fs::read(&path) else {
                eprintln!("skipped: {} is not there", path.display());
                continue;
            };
            // 16-bit PCM of one channel behind a header of 44 bytes.
            let samples = file[44..].as_chunks::<2>().0.iter();
            let samples: Vec<f32> = samples.map(|b| f32::from(i16::from_le_bytes(*b)) / 32768.0).collect();
            // What lies in the last tenth of the band, which soxr keeps more of.
            compare(name, &samples, want, 1e-2);
        }
    }
}
