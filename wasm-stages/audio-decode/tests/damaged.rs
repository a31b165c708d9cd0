//! Files that are cut off, damaged, empty, too long, or no sound at all: each ends in a code, and none in half a sound.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::Path;

use audio_decode::{Limits, decode};
use pajamas_stage::Audio;

const LIMITS: Limits = Limits { max_seconds: 10.0, max_samples: 1 << 18, max_bytes: 1 << 18 };
const CODES: [&str; 5] =
    ["audio-empty", "audio-invalid", "audio-too-large", "audio-truncated", "audio-unsupported"];

fn files() -> Vec<(String, Vec<u8>)> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let entries = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&p).unwrap())).collect()
}

fn file(name: &str) -> Vec<u8> {
    files().into_iter().find(|(file, _)| file == name).unwrap().1
}

/// The sound, or a code that is one of ours.
fn outcome(what: &str, bytes: &[u8]) -> Result<Audio, String> {
    decode(bytes.to_vec(), false, LIMITS).map_err(|error| {
        assert!(CODES.contains(&error.code.as_str()), "{what}: {}: {}", error.code, error.message);
        error.code
    })
}

/// A WAV file of 16-bit samples, or (`format` 3) of floats.
fn wav(format: u16, rate: u32, data_length: u32, data: &[u8]) -> Vec<u8> {
    let width: u16 = if format == 3 { 4 } else { 2 };
    let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".to_vec();
    file.extend([format.to_le_bytes(), 1u16.to_le_bytes()].concat());
    file.extend([rate.to_le_bytes(), (rate * u32::from(width)).to_le_bytes()].concat());
    file.extend([width.to_le_bytes(), (width * 8).to_le_bytes()].concat());
    file.extend([&b"data"[..], &data_length.to_le_bytes(), data].concat());
    file
}

#[test]
fn a_file_cut_anywhere_is_refused_or_ends_with_a_whole_part() {
    for (name, bytes) in files() {
        let whole = outcome(&name, &bytes).unwrap().frames();
        // Formats whose frames follow each other without a count: what is left of them is a shorter recording.
        let countless = ["aac.adts", "fragmented.mp4"].contains(&name.as_str());
        for length in 0..bytes.len() {
            match outcome(&name, &bytes[..length]) {
                Ok(audio) => {
                    assert!(countless && audio.frames() <= whole, "{name}: cut to {length} bytes");
                    assert!(outcome(&name, &bytes[..length + 1]).is_err(), "{name}: cut to {length} bytes");
                }
                Err(code) if length == 0 => assert_eq!(code, "audio-empty"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (name, bytes) in files() {
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(4) {
                let headers = random(2) == 0;
                let at = random(if headers { damaged.len().min(200) } else { damaged.len() });
                damaged[at] = random(256) as u8;
            }
            drop(outcome(&name, &damaged));
        }
    }
}

#[test]
fn an_mp3_without_a_count_of_its_frames_is_decoded() {
    let bytes = file("16000.mp3");
    let frames = bytes.windows(3).enumerate().filter(|(_, w)| w[..2] == bytes[45..47] && w[2] >> 4 != 0xf);
    let second = frames.map(|(at, _)| at).find(|at| *at > 60).unwrap();
    let bare = outcome("bare", &bytes[second..]).unwrap();
    assert!(bare.frames() >= 4800, "{}", bare.frames());
    let cut = outcome("cut", &bytes[second..bytes.len() - 10]).map(|_| ());
    assert_eq!(cut, Err("audio-truncated".to_owned()));
}

#[test]
fn what_is_no_sound_is_refused_by_its_content() {
    let jpeg = [&b"\xff\xd8\xff\xe0\0\x10JFIF\0"[..], &[0xff, 0xfb, 0x90, 0x44].repeat(50)].concat();
    assert_eq!(outcome("jpeg", &jpeg), Err("audio-unsupported".to_owned()));
    assert_eq!(outcome("text", &b"RIFF of a guitar".repeat(9)), Err("audio-unsupported".to_owned()));
    assert_eq!(outcome("nothing", b""), Err("audio-empty".to_owned()));
    assert_eq!(outcome("tag", b"ID3\x04\0\0\0\0\0\0"), Err("audio-empty".to_owned()));
}

#[test]
fn a_file_without_samples_is_empty() {
    assert_eq!(outcome("wav", &wav(1, 8000, 0, b"")), Err("audio-empty".to_owned()));
}

#[test]
fn a_stream_of_unknown_length_ends_with_the_file() {
    let audio = outcome("wav", &wav(1, 8000, u32::MAX, &[0, 0, 0, 0x40])).unwrap();
    assert_eq!((audio.sample_rate, audio.samples), (8000, vec![0.0, 0.5]));
}

#[test]
fn samples_that_are_no_numbers_are_refused() {
    for broken in [f32::NAN, f32::INFINITY] {
        let data: Vec<u8> = [0.5, broken].iter().flat_map(|x| x.to_le_bytes()).collect();
        let error = decode(wav(3, 8000, 8, &data), false, LIMITS).unwrap_err();
        assert_eq!(error.code, "audio-invalid");
        assert!(error.message.contains("sample 1"), "{}", error.message);
    }
}

#[test]
fn what_is_too_long_is_refused_by_its_header() {
    // The header promises a minute, and there is nothing behind it to decode.
    let error = decode(wav(1, 8000, 8000 * 2 * 60, b""), false, LIMITS).unwrap_err();
    assert_eq!(error.code, "audio-too-large");
    assert!(error.message.contains("60.0 s"), "{}", error.message);
    let limits = Limits { max_samples: 4799, ..LIMITS };
    assert_eq!(decode(file("16000.mp3"), false, limits).unwrap_err().code, "audio-too-large");
    assert!(decode(file("s16.aiff"), true, Limits { max_samples: 4800, ..LIMITS }).is_ok());
    assert_eq!(decode(vec![0; (1 << 18) + 1], false, LIMITS).unwrap_err().code, "audio-too-large");
}

#[test]
fn without_a_length_in_the_header_decoding_stops_at_the_limit() {
    let limits = Limits { max_samples: 1024, ..LIMITS };
    let error = decode(file("aac.adts"), false, limits).unwrap_err();
    assert_eq!(error.code, "audio-too-large");
    assert!(error.help.contains("max_samples"), "{}", error.help);
}

#[test]
fn channels_are_mixed_while_decoding() {
    let mixed = decode(file("eight-channels.wav"), true, LIMITS).unwrap();
    let apart = decode(file("eight-channels.wav"), false, LIMITS).unwrap();
    assert_eq!((mixed.channels, apart.channels), (1, 8));
    assert_eq!(mixed.samples, apart.into_mono().unwrap().samples);
}
