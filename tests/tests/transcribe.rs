//! Journeys from recordings to text, with a model that says what it was told to say (`tests/peers/listener.py`): windows, times,
//! formats, silence, and what is wrong with a recording. On both engines.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::path::PathBuf;

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Answer, Finished, House, Server, asset, engines, model_entry, run};
use serde_json::{Value, json};

const HEARD: &str = "hello world.";
/// Words that `models/listen` may have wrong of those beside it: its card says 5 of 71, and processors round differently.
const MOST_WRONG: usize = 7;

/// A configuration with the listener on each engine that runs here, the fastest first, which is the default.
fn house() -> (House, Vec<String>) {
    let listed = run(["plugins", "list", "--json"]).unwrap().json().unwrap().remove(0);
    let backends = listed["backends"].as_array().unwrap().iter().filter(|b| b["plugin"] == "onnx");
    let usable = backends.filter(|b| b["probe"]["score"].as_u64() > Some(0));
    let engines: Vec<String> = usable.map(|b| b["backend"]["id"].as_str().unwrap().to_owned()).collect();
    assert!(engines.iter().any(|id| id == "rten"), "{engines:?}");
    let file = repository().join("tests/fixtures/listener/encoder_model.onnx");
    let entry = |engine: &String| {
        model_entry(engine, &file, &format!("task = \"transcribe\"\nbackend = \"{engine}\""))
    };
    let models: String = engines.iter().map(entry).collect();
    let default = format!("[defaults]\ntranscribe = \"{}\"\n", engines[0]);
    (House::new(&format!("{models}{default}")).unwrap(), engines)
}

/// A WAV file: 16 bits, one channel, of a loud chord or of silence.
fn wav(rate: u32, seconds: f64, loud: bool) -> Vec<u8> {
    let count = (f64::from(rate) * seconds) as u32;
    let sample = |n: u32| {
        let time = std::f64::consts::TAU * f64::from(n) / f64::from(rate);
        if loud { ((440.0 * time).sin() + (1200.0 * time).sin()) * 12_000.0 } else { 0.0 }
    };
    let mut file = b"RIFF".to_vec();
    file.extend((36 + count * 2).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend([rate.to_le_bytes(), (rate * 2).to_le_bytes()].concat());
    file.extend(b"\x02\0\x10\0data");
    file.extend((count * 2).to_le_bytes());
    file.extend((0..count).flat_map(|n| (sample(n) as i16).to_le_bytes()));
    file
}

fn put(house: &House, name: &str, bytes: &[u8]) -> PathBuf {
    let path = house.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn transcribe(house: &House, arguments: &[&str]) -> Finished {
    house.run(std::iter::once(&"transcribe").chain(arguments)).unwrap()
}

/// A form with a recording.
fn form(server: &Server, path: &str, fields: &[(&str, &str)], file: Option<&[u8]>) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    if let Some(file) = file {
        body.extend(b"--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n");
        body.extend(file);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    server.post(path, "multipart/form-data; boundary=cut", &body).unwrap()
}

#[test]
fn a_recording_is_heard_window_by_window_on_every_engine() {
    let (house, engines) = house();
    let file = put(&house, "long.wav", &wav(8000, 65.0, true));
    for engine in engines {
        let said =
            transcribe(&house, &["--json", "-m", &engine, file.to_str().unwrap()]).json().unwrap().remove(0);
        assert_eq!((&said["task"], &said["language"]), (&json!("transcribe"), &json!("english")), "{engine}");
        assert_eq!((&said["duration"], &said["usage"]["seconds"]), (&json!(65.0), &json!(65)));
        assert_eq!(said["text"], [HEARD; 3].join(" "), "{engine}");
        let times: Vec<(f64, f64)> = said["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| (s["start"].as_f64().unwrap(), s["end"].as_f64().unwrap()))
            .collect();
        assert_eq!(times, [(0.0, 2.0), (30.0, 32.0), (60.0, 62.0)], "{engine}");
        let first = &said["segments"][0];
        assert_eq!(
            (&first["seek"], &first["temperature"], &first["id"]),
            (&json!(0), &json!(0.0), &json!(0))
        );
        assert!(
            first["confidence"].as_f64().unwrap() > 0.9 && first["no_speech_prob"].as_f64().unwrap() < 0.1,
            "{first}"
        );
    }
}

#[test]
fn speech_is_translated_and_languages_are_known_by_name() {
    let (house, _) = house();
    let file = put(&house, "short.wav", &wav(16_000, 3.0, true));
    let file = file.to_str().unwrap();
    let said = transcribe(&house, &["--translate", "--language", "German", "--json", file])
        .json()
        .unwrap()
        .remove(0);
    assert_eq!(
        (&said["text"], &said["task"], &said["language"]),
        (&json!("good day."), &json!("translate"), &json!("german"))
    );
    let refused = transcribe(&house, &["--language", "fr", "--json", file]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("language-unknown") && refused.stderr.contains("en, de"), "{refused:?}");
}

#[test]
fn transcripts_are_written_as_text_and_as_subtitles() {
    let (house, _) = house();
    let one = put(&house, "one.wav", &wav(16_000, 31.0, true));
    let two = put(&house, "two.wav", &wav(44_100, 2.5, true));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    assert_eq!(transcribe(&house, &[one]).stdout, "hello world. hello world.\n");
    let both = transcribe(&house, &[one, two, "nowhere.wav"]);
    assert_eq!(both.stdout, format!("{one}: hello world. hello world.\n{two}: hello world.\n"));
    assert!(both.stderr.contains("nowhere.wav") && !both.status.success());
    assert_eq!(
        transcribe(&house, &["--format", "srt", one]).stdout,
        "1\n00:00:00,000 --> 00:00:02,000\nhello world.\n\n2\n00:00:30,000 --> 00:00:31,000\nhello world.\n\n"
    );
    assert!(
        transcribe(&house, &["--format", "vtt", two])
            .stdout
            .starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n")
    );
}

#[test]
fn half_an_hour_of_silence_says_nothing_in_bounded_memory() {
    let (house, _) = house();
    let server = Server::start(house).unwrap();
    let answer = form(
        &server,
        "/v1/audio/transcriptions",
        &[("response_format", "verbose_json")],
        Some(&wav(8000, 1800.0, false)),
    );
    let said = answer.json().unwrap();
    assert_eq!(
        (answer.status, &said["text"], said["segments"].as_array().map(Vec::len)),
        (200, &json!(""), Some(0))
    );
    assert_eq!(said["duration"], json!(1800.0));
    #[cfg(target_os = "linux")]
    {
        // 115 MB of samples at 16 kHz, once in the host and once or twice in a stage.
        let resident = server.resident().unwrap();
        assert!(resident < 900 << 20, "{resident} bytes are held");
    }
}

#[test]
fn what_is_wrong_with_a_recording_has_a_code() {
    let (house, _) = house();
    let server = Server::start(house).unwrap();
    let good = wav(16_000, 2.0, true);
    let picture = std::fs::read(repository().join("models/sample.png")).unwrap();
    let mut nan = wav(16_000, 0.5, true);
    // The same bytes as 32-bit floats, one of which is no number.
    nan[20] = 3;
    nan[32] = 4;
    nan[34] = 32;
    nan[44..48].copy_from_slice(&f32::NAN.to_le_bytes());
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("nothing", b"", &["audio-empty", "audio-unsupported", "invalid-input"]),
        ("a picture", &picture, &["audio-unsupported"]),
        ("cut off", &good[..good.len() - 801], &["audio-truncated", "audio-invalid"]),
        ("no samples", &wav(16_000, 0.0, true), &["audio-empty"]),
        ("no numbers", &nan, &["audio-invalid"]),
        ("text", b"RIFF, she said", &["audio-unsupported", "audio-invalid", "audio-truncated"]),
    ];
    for (name, bytes, codes) in cases {
        for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
            let answer = form(&server, path, &[], Some(bytes));
            let (status, error) = answer.refusal().unwrap();
            assert!(
                status == 400 && codes.contains(&error["code"].as_str().unwrap()),
                "{name}: {status} {error}"
            );
        }
    }
    for (fields, file, code) in [
        (&[("model", "nobody")][..], true, "model-not-found"),
        (&[("response_format", "pdf")], true, "invalid-input"),
        (&[("language", "klingon")], true, "language-unknown"),
        (&[("timestamp_granularities[]", "word")], true, "unsupported"),
        (&[], false, "invalid-input"),
    ] {
        let answer = form(&server, "/v1/audio/transcriptions", fields, file.then_some(&*good));
        assert_eq!(answer.refusal().unwrap().1["code"], code, "{fields:?}");
    }
    // It goes on.
    let answer = form(&server, "/v1/audio/transcriptions", &[], Some(&good));
    assert_eq!(
        answer.json().unwrap(),
        json!({ "text": HEARD, "usage": { "type": "duration", "seconds": 2 } })
    );
}

#[test]
fn over_http_every_format_is_written_and_segments_are_streamed() {
    let (house, _) = house();
    let server = Server::start(house).unwrap();
    let file = wav(16_000, 31.0, true);
    let ask = |fields: &[(&str, &str)]| form(&server, "/v1/audio/transcriptions", fields, Some(&file));
    assert_eq!(ask(&[("response_format", "text")]).body, "hello world. hello world.\n");
    assert!(ask(&[("response_format", "srt")]).body.starts_with("1\n00:00:00,000 --> "));
    assert!(ask(&[("response_format", "vtt")]).body.starts_with("WEBVTT\n"));
    let verbose =
        ask(&[("response_format", "verbose_json"), ("timestamp_granularities[]", "segment")]).json().unwrap();
    assert_eq!(
        (&verbose["language"], verbose["segments"].as_array().map(Vec::len)),
        (&json!("english"), Some(2))
    );
    let events: Vec<Value> = ask(&[("stream", "true")])
        .body
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]);
    assert_eq!((&events[0]["delta"], &events[1]["delta"]), (&json!("hello world."), &json!(" hello world.")));
    assert_eq!(events[2]["text"], "hello world. hello world.");
}

/// Real speech goes through the stages: what it says is up to a real model.
#[test]
fn real_recordings_are_decoded_whatever_their_format() {
    let (house, _) = house();
    for name in
        ["audio/jfk.wav", "audio/jfk.flac", "audio/jfk.mp3", "audio/uberi/audio-stereo-24-bit-44100Hz.flac"]
    {
        let Some(file) = asset(name) else { return };
        let said = transcribe(&house, &["--json", file.to_str().unwrap()]).json().unwrap().remove(0);
        assert_eq!(said["text"], HEARD, "{name}");
    }
}

/// Words to be changed, added or taken away to come from what was said to what was heard.
fn wrong(said: &[&str], heard: &[&str]) -> usize {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in heard.iter().enumerate() {
            let changed = before + usize::from(word != other);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[heard.len()]
}

/// The repository's own model, and what its card says of the recordings beside it.
#[test]
fn speech_that_the_model_has_not_heard_is_written_down_on_every_engine() {
    let folder = repository().join("models/listen");
    let said: Vec<Value> = std::fs::read_to_string(folder.join("held-out/said.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let files: Vec<String> = said
        .iter()
        .map(|s| folder.join("held-out").join(s["file"].as_str().unwrap()).display().to_string())
        .collect();
    for engine in engines().unwrap() {
        let entry = model_entry(
            "listen",
            &folder.join("encoder_model.onnx"),
            &format!("task = \"transcribe\"\nbackend = \"{engine}\""),
        );
        let house = House::new(&entry).unwrap();
        let mut arguments = vec!["--json", "-m", "listen"];
        arguments.extend(files.iter().map(String::as_str));
        let heard = transcribe(&house, &arguments).json().unwrap();
        let (mut words, mut errors, mut languages) = (0, 0, 0);
        for (said, heard) in said.iter().zip(&heard) {
            let wanted: Vec<&str> = said["text"].as_str().unwrap().split_whitespace().collect();
            let found: Vec<&str> = heard["text"].as_str().unwrap().split_whitespace().collect();
            words += wanted.len();
            errors += wrong(&wanted, &found);
            let language = if said["language"] == "de" { "german" } else { "english" };
            languages += usize::from(heard["language"] == language);
        }
        eprintln!(
            "{engine}: {errors} of {words} words are wrong, {languages} of {} languages right",
            said.len()
        );
        assert_eq!(heard.len(), said.len());
        assert!(errors <= MOST_WRONG && languages >= said.len() - 1, "{engine}");
    }
}
