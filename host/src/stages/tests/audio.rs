//! The stages for sound, as components: what they leave is what the peers left.

use super::*;
use crate::value::{Audio, Tensor, TensorData};

fn sources(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-stages").join(path)
}

fn golden(path: &str) -> serde_json::Map<String, Json> {
    serde_json::from_slice(&std::fs::read(sources(path)).unwrap()).unwrap()
}

fn once(stage: &str, options: &Json, name: &str, value: Value) -> Result<Values> {
    run(&processor(stage, options)?, &[(name, value)], &Limits::default())
}

fn audio(values: &Values) -> &Audio {
    match values.get("audio") {
        Some(Value::Audio(audio)) => audio,
        other => panic!("`audio` is {other:?}"),
    }
}

fn tensor(values: &Values) -> &Tensor {
    match values.get("tensor") {
        Some(Value::Tensor(tensor)) => tensor,
        other => panic!("`tensor` is {other:?}"),
    }
}

/// The largest difference between `got` and the numbers that a peer wrote down for some of its places.
fn worst(got: &[f32], at: &Json, probes: &Json) -> f64 {
    let (at, probes) = (at.as_array().unwrap(), probes.as_array().unwrap());
    let off = |(at, probe): (&Json, &Json)| {
        (f64::from(got[at.as_u64().unwrap() as usize]) - probe.as_f64().unwrap()).abs()
    };
    at.iter().zip(probes).map(off).fold(0.0, f64::max)
}

#[test]
fn every_format_is_decoded() {
    let decode = processor("audio-decode", &json!({ "max_seconds": 5 })).unwrap();
    for (name, want) in golden("audio-decode/tests/golden.json") {
        let bytes = std::fs::read(sources("audio-decode/tests/data").join(&name)).unwrap();
        let left = run(&decode, &[("bytes", Value::Bytes(bytes))], &Limits::default()).unwrap();
        let audio = audio(&left);
        assert_eq!(
            (Json::from(audio.sample_rate), Json::from(audio.channels)),
            (want["rate"].clone(), want["channels"].clone())
        );
        // Matroska marks some frames as not to be heard, which only FFmpeg drops.
        if !name.ends_with(".mkv") {
            let channels = usize::from(audio.channels);
            let first: Vec<f32> = audio.samples.iter().step_by(channels).copied().collect();
            let off = worst(&first, &want["at"], &want["probes"][0]);
            assert!(off < if name == "opus-voice.ogg" { 1e-2 } else { 1e-4 }, "{name}: off by {off}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_nothing_traps() {
    let decode = processor("audio-decode", &Json::Null).unwrap();
    for name in ["s16.flac", "44100.mp3", "aac.m4a", "opus.webm", "vorbis.ogg", "pcm-f32.wav"] {
        let bytes = std::fs::read(sources("audio-decode/tests/data").join(name)).unwrap();
        for length in (0..bytes.len()).step_by(97) {
            let refused =
                code(run(&decode, &[("bytes", Value::Bytes(bytes[..length].to_vec()))], &Limits::default()));
            assert!(refused.starts_with("audio-"), "{name} cut to {length} bytes: {refused}");
        }
    }
}

/// A WAV file of 16-bit silence.
fn silence(rate: u32, seconds: u32) -> Vec<u8> {
    let length = rate * seconds * 2;
    let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend([rate.to_le_bytes(), (rate * 2).to_le_bytes()].concat());
    file.extend(b"\x02\0\x10\0data");
    file.extend(length.to_le_bytes());
    file.resize(44 + length as usize, 0);
    file
}

#[test]
fn an_hour_fits_into_the_usual_limits_and_more_is_refused() {
    let hour = once("audio-decode", &Json::Null, "bytes", Value::Bytes(silence(16_000, 3600))).unwrap();
    assert_eq!(audio(&hour).samples.len(), 57_600_000);
    let more = once("audio-decode", &json!({ "max_seconds": 60 }), "bytes", Value::Bytes(silence(8000, 61)));
    assert_eq!(code(more), "audio-too-large");
}

#[test]
fn sound_is_resampled_in_lanes_as_without() {
    let want = &golden("resample/tests/golden.json")["invented-44100-16000"];
    let sample = |n: u32| {
        let turn = std::f64::consts::TAU * f64::from(n) / 44_100.0;
        [97.0, 440.0, 1500.0, 6300.0].iter().map(|hz| 0.2 * (turn * hz).sin()).sum::<f64>() as f32
    };
    let chord = Audio { sample_rate: 44_100, channels: 1, samples: (0..44_100).map(sample).collect() };
    let left = once("resample", &Json::Null, "audio", Value::Audio(chord)).unwrap();
    assert_eq!((audio(&left).sample_rate, audio(&left).samples.len()), (16_000, 16_000));
    let off = worst(&audio(&left).samples, &want["at"], &want["probes"]);
    assert!(off < 1e-4, "off by {off}");
}

#[test]
fn the_spectrogram_is_that_of_transformers() {
    let sample = |n: u64| ((n * n / 7) % 200) as f32 / 400.0 - 0.25;
    let samples = (0..100_000u64).map(|n| if n % 40_000 < 20_000 { sample(n) } else { 0.0 }).collect();
    let sound = Value::Audio(Audio { sample_rate: 16_000, channels: 1, samples });
    for mels in [80, 128] {
        let want = &golden("log-mel/tests/golden.json")[&format!("invented-{mels}")];
        let left = once("log-mel", &json!({ "mels": mels }), "audio", sound.clone()).unwrap();
        assert_eq!(tensor(&left).shape(), [1, mels, 3000]);
        let off = worst(tensor(&left).as_f32().unwrap(), &want["at"], &want["probes"]);
        assert!(off < 1e-5, "{mels} bands: off by {off}");
    }
}

#[test]
fn speech_is_found_where_the_probabilities_are_high() {
    let sound = Audio { sample_rate: 16_000, channels: 1, samples: vec![0.1; 16_000] };
    let framed = once("vad-frame", &Json::Null, "audio", Value::Audio(sound)).unwrap();
    assert_eq!(tensor(&framed).shape(), [32, 576]);
    let probabilities = (0..32).map(|n| if (5..25).contains(&n) { 0.9 } else { 0.1 }).collect();
    let probabilities = Tensor::new(vec![32, 1], TensorData::F32(probabilities)).unwrap();
    let segments = processor("vad-segments", &Json::Null).unwrap();
    let inputs =
        [("tensor", Value::Tensor(probabilities)), ("samples", framed.get("samples").unwrap().clone())];
    let found = run(&segments, &inputs, &Limits::default()).unwrap();
    let Some(Value::Segments(found)) = found.get("segments") else { panic!("{found:?}") };
    // From frame 5 to frame 25, and 30 ms before and after.
    assert_eq!((found.len(), found[0].start, found[0].end), (1, 0.13, 0.83));
}

#[test]
fn what_is_encoded_is_decoded_again() {
    let samples: Vec<f32> = (0..20_000i64).map(|n| ((n * n) % 4001 - 2000) as f32 / 2048.0).collect();
    let sound = Audio { sample_rate: 24_000, channels: 2, samples };
    for options in [json!({}), json!({ "encoding": "f32" }), json!({ "format": "flac" })] {
        let file = once("pcm-encode", &options, "audio", Value::Audio(sound.clone())).unwrap();
        let read = once("audio-decode", &Json::Null, "bytes", file.get("bytes").unwrap().clone()).unwrap();
        assert!(audio(&read) == &sound, "{options}");
    }
}

#[test]
fn frames_of_scores_become_words() {
    let path = [0, 1, 1, 2, 3, 3, 0];
    let scores = path.iter().flat_map(|t| (0..4).map(move |c| f32::from(u8::from(c == *t)))).collect();
    let scores = Value::Tensor(Tensor::new(vec![1, 7, 4], TensorData::F32(scores)).unwrap());
    let left =
        once("ctc-decode", &json!({ "vocabulary": ["<pad>", "HI", "|", "YOU"] }), "tensor", scores).unwrap();
    assert_eq!(left.get("text"), Some(&Value::Text("HI YOU".into())));
}
