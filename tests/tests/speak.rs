//! Journeys from text to sound, with voices whose sound shows what they were given (`tests/peers/voices.py`): ids, scales, speakers,
//! formats, streams, and what is wrong with texts and voices. On both engines.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, House, Server, engines, model_entry};
use serde_json::{Value, json};

/// "Hi" and "Bé." in ids of `piper.onnx.json`, with what stands around and between them.
const HI: [i64; 7] = [1, 0, 17, 0, 18, 0, 2];
const BE: [i64; 11] = [1, 0, 11, 0, 14, 0, 36, 0, 4, 0, 2];

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/voice").join(name)
}

/// A configuration with both voices on each engine that runs here: `rten`, `rten-mms` and so on. The first is the default.
fn house() -> (House, Vec<String>) {
    let engines = engines().unwrap();
    assert!(engines.iter().any(|id| id == "rten"), "{engines:?}");
    let entry = |engine: &String| {
        let rest = format!("task = \"speak\"\nbackend = \"{engine}\"");
        model_entry(engine, &fixture("piper.onnx"), &rest)
            + &model_entry(&format!("{engine}-mms"), &fixture("mms/model.onnx"), &rest)
    };
    let models: String = engines.iter().map(entry).collect();
    let default = format!("[defaults]\nspeak = \"{}\"\n", engines[0]);
    (House::new(&(models + &default)).unwrap(), engines)
}

/// A voice of piper's layout in the house's folder, with another description; gives its path.
fn voice(house: &House, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixture("piper.onnx.json")).unwrap()).unwrap();
    change(&mut config);
    let path = house.folder().join(name);
    std::fs::copy(fixture("piper.onnx"), &path).unwrap();
    std::fs::write(house.folder().join(format!("{name}.json")), config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn speak(house: &House, arguments: &[&str]) -> Finished {
    house.run(std::iter::once(&"speak").chain(arguments)).unwrap()
}

/// What a file with 16-bit samples says: the rate in its header, and its samples between -1 and 1.
fn wav(file: &[u8]) -> (u32, Vec<f32>) {
    assert_eq!((&file[..4], &file[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    let rate = u32::from_le_bytes(file[24..28].try_into().unwrap());
    (rate, samples(&file[44..]))
}

fn samples(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32768.0).collect()
}

/// The ids that a sound was made of, each `width` samples wide.
fn ids(samples: &[f32], width: usize) -> Vec<i64> {
    assert_eq!(samples.len() % width, 0, "{} samples", samples.len());
    samples.chunks(width).map(|step| (step[width / 2] * 64.0).round() as i64).collect()
}

/// What a command wrote to standard output, as bytes.
fn sound(house: &House, arguments: &[&str]) -> Vec<u8> {
    let mut command = pajamas_journeys::product::pajamas().unwrap();
    let output = command.arg("--config").arg(house.config()).arg("speak").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A spoken answer: its status, its headers, and its bytes, as far as they came.
fn post(server: &Server, body: &Value) -> (u16, Vec<(String, String)>, Vec<u8>, bool) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = agent.post(format!("http://{}/v1/audio/speech", server.authority()));
    let mut response = request.header("content-type", "application/json").send(body.to_string()).unwrap();
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut bytes = Vec::new();
    let whole = response.body_mut().as_reader().read_to_end(&mut bytes).is_ok();
    (response.status().as_u16(), headers, bytes, whole)
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_text_becomes_ids_and_ids_become_sound_on_every_engine() {
    let (house, engines) = house();
    let file = house.folder().join("said.wav");
    let file = file.to_str().unwrap();
    for engine in engines {
        let told = speak(&house, &["--json", "-m", &engine, "Hi\n\nBé.", "--output", file])
            .json()
            .unwrap()
            .remove(0);
        let said = std::fs::read(file).unwrap();
        let (rate, sound) = wav(&said);
        assert_eq!((rate, ids(&sound, 100)), (8000, [&HI[..], &BE].concat()), "{engine}");
        assert_eq!(
            u32::from_le_bytes(said[40..44].try_into().unwrap()) as usize,
            said.len() - 44,
            "its length is known"
        );
        let wanted = json!({
            "file": file, "format": "wav", "sample_rate": 8000, "seconds": 0.225, "sentences": 2, "bytes": said.len(),
        });
        assert_eq!(told, wanted, "{engine}");
        let (rate, sound) = wav(&self::sound(&house, &["-m", &format!("{engine}-mms"), "A kick!"]));
        assert_eq!(
            (rate, ids(&sound, 50)),
            (16_000, vec![0, 10, 0, 3, 0, 0, 0, 18, 0, 12, 0, 0, 0]),
            "{engine}"
        );
    }
}

#[test]
fn speed_and_voice_reach_the_model() {
    let (house, engines) = house();
    let (_, fast) = wav(&sound(&house, &["--speed", "2", "--voice", "bob", "Hi"]));
    assert_eq!(ids(&fast, 50), HI.map(|id| -id), "half as long, and upside down");
    let (_, slow) = wav(&sound(&house, &["--speed", "0.25", "--voice", "1", "Hi"]));
    assert_eq!(slow.len(), 400 * HI.len());
    let refused = speak(&house, &["--voice", "carl", "Hi", "--output", "x.wav"]);
    assert_eq!(refused.refusal().unwrap(), ("voice-unknown".to_owned(), 2));
    assert!(refused.stderr.contains("amy, bob"), "{refused:?}");
    let mms = format!("{}-mms", engines[0]);
    let refused = speak(&house, &["-m", &mms, "--speed", "2", "Hi", "--output", "x.wav"]);
    assert_eq!(refused.refusal().unwrap().0, "unsupported");
    assert!(speak(&house, &["--speed", "9", "Hi"]).refusal().is_err(), "clap's own words");
}

#[test]
fn every_format_is_written() {
    let (house, _) = house();
    let count = 100 * HI.len();
    // Bare samples are at the rate that OpenAI's clients play them with.
    assert_eq!(samples(&sound(&house, &["--format", "pcm", "Hi"])).len(), 3 * count);
    assert_eq!(ids(&samples(&sound(&house, &["--format", "pcm", "--rate", "8000", "Hi"])), 100), HI);
    let file = house.folder().join("said.flac");
    let told = speak(&house, &["--json", "Hi", "--output", file.to_str().unwrap()]).json().unwrap().remove(0);
    assert_eq!((&told["format"], &told["sample_rate"]), (&json!("flac"), &json!(8000)));
    let flac = std::fs::read(file).unwrap();
    // The header's number of samples.
    assert_eq!((&flac[..4], u16::from_be_bytes([flac[24], flac[25]]) as usize), (&b"fLaC"[..], count));
    let (rate, resampled) = wav(&sound(&house, &["--rate", "16000", "Hi"]));
    assert_eq!((rate, resampled.len()), (16_000, 2 * count));
    let refused = speak(&house, &["Hi", "--output", "said.mp3"]);
    assert_eq!(refused.refusal().unwrap(), ("format-unsupported".to_owned(), 2));
    assert_eq!(speak(&house, &["--json", "Hi"]).refusal().unwrap().0, "invalid-option");
}

#[test]
fn over_http_sentences_leave_as_they_are_spoken() {
    let (house, _) = house();
    let server = Server::start(house).unwrap();
    let (status, headers, one, _) = post(&server, &json!({ "input": "Hi", "voice": "amy" }));
    assert_eq!((status, header(&headers, "content-type")), (200, Some("audio/wav")));
    assert_eq!(
        header(&headers, "content-length"),
        Some(&*one.len().to_string()),
        "one sentence has a length"
    );
    assert_eq!(header(&headers, "x-pajamas-sample-rate"), Some("8000"));
    assert!(header(&headers, "x-pajamas-route").unwrap().contains("backend="));
    assert_eq!(u32::from_le_bytes(one[40..44].try_into().unwrap()) as usize, one.len() - 44);
    let (_, headers, two, whole) = post(&server, &json!({ "input": "Hi\n\nBé." }));
    assert_eq!((header(&headers, "content-length"), whole, &two[40..44]), (None, true, &[255; 4][..]));
    assert_eq!(ids(&wav(&two).1, 100), [&HI[..], &BE].concat());
    let (_, headers, bare, _) = post(&server, &json!({ "input": "Hi", "response_format": "pcm" }));
    assert_eq!(header(&headers, "x-pajamas-sample-rate"), Some("24000"));
    assert_eq!((header(&headers, "content-type"), bare.len()), (Some("audio/pcm"), 2 * 300 * HI.len()));
    let (_, headers, flac, _) = post(&server, &json!({ "input": "Hi\n\nBé.", "response_format": "flac" }));
    assert_eq!((header(&headers, "content-type"), &flac[..4]), (Some("audio/flac"), &b"fLaC"[..]));
    // The same as events.
    let (_, headers, events, _) = post(&server, &json!({ "input": "Hi\n\nBé.", "stream_format": "sse" }));
    assert_eq!(header(&headers, "content-type"), Some("text/event-stream"));
    let events = String::from_utf8(events).unwrap();
    let events: Vec<Value> =
        events.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["speech.audio.delta", "speech.audio.delta", "speech.audio.done"]);
    let told = events.iter().filter_map(|event| STANDARD.decode(event["audio"].as_str()?).ok());
    assert_eq!(told.collect::<Vec<_>>().concat(), two);
    assert_eq!(events[2]["usage"]["input_tokens"], HI.len() + BE.len());
    // It is counted under its task.
    let metrics = server.get("/metrics").unwrap().body;
    assert!(
        metrics.lines().any(|line| line.contains("task=\"speak\"") && line.contains("code=\"ok\"")),
        "{metrics}"
    );
}

#[test]
fn a_voice_of_phonemes_reads_the_lexicon_beside_it() {
    let (house, _) = house();
    let spoken = voice(&house, "spoken.onnx", |config| config["phoneme_type"] = json!("espeak"));
    let refused = speak(&house, &["-m", &spoken, "Hi", "--output", "x.wav"]);
    assert_eq!(refused.refusal().unwrap(), ("lexicon-missing".to_owned(), 2));
    std::fs::write(house.folder().join("lexicon.txt"), "hello\thi\ntwo c\nworld\tb e\n").unwrap();
    let (_, said) = wav(&sound(&house, &["-m", &spoken, "HELLO, world 2!"]));
    assert_eq!(ids(&said, 100), [1, 0, 17, 0, 18, 0, 5, 0, 3, 0, 11, 0, 14, 0, 3, 0, 12, 0, 7, 0, 2]);
    let refused = speak(&house, &["-m", &spoken, "Hello Zaphod", "--output", "x.wav"]);
    assert_eq!(refused.refusal().unwrap(), ("word-unknown".to_owned(), 2));
    assert!(refused.stderr.contains("\"zaphod\""), "{refused:?}");
}

/// A name of a test, what is sent, and the status and code of the refusal.
type Case = (&'static str, Value, u16, &'static str);

#[test]
fn what_is_wrong_with_a_text_or_a_voice_has_a_code() {
    let (house, _) = house();
    let broken = voice(&house, "broken.onnx", |_| {});
    std::fs::write(format!("{broken}.json"), "{").unwrap();
    let outside = voice(&house, "outside.onnx", |config| config["phoneme_id_map"]["a"] = json!([99]));
    let silent = voice(&house, "silent.onnx", |config| config["inference"]["length_scale"] = json!(0.001));
    let noisy = voice(&house, "noisy.onnx", |config| config["phoneme_id_map"]["ø"] = json!([60]));
    let alone = house.folder().join("alone.onnx");
    std::fs::copy(fixture("piper.onnx"), &alone).unwrap();
    let picture = repository().join("models/classify/model.onnx");
    let entries = [
        ("broken", Path::new(&broken)),
        ("outside", Path::new(&outside)),
        ("silent", Path::new(&silent)),
        ("noisy", Path::new(&noisy)),
        ("alone", &alone),
        ("picture", &picture),
    ]
    .map(|(id, path)| model_entry(id, path, "task = \"speak\""));
    let more = std::fs::read_to_string(house.config()).unwrap() + &entries.concat();
    house.write(&more).unwrap();
    let server = Server::start(house).unwrap();
    let cases: [Case; 16] = [
        ("nothing", json!({ "input": "" }), 400, "text-empty"),
        ("only marks", json!({ "input": "?!... \u{1f44b}" }), 400, "text-empty"),
        ("unknown letters", json!({ "input": "привет" }), 400, "text-empty"),
        ("too long", json!({ "input": "Hi. ".repeat(1 << 18) }), 413, "text-too-long"),
        ("no text", json!({}), 400, "invalid-input"),
        ("who", json!({ "input": "Hi", "voice": "alloy" }), 400, "voice-unknown"),
        ("what", json!({ "input": "Hi", "model": "nobody" }), 404, "model-not-found"),
        ("mp3", json!({ "input": "Hi", "response_format": "mp3" }), 400, "format-unsupported"),
        ("format", json!({ "input": "Hi", "response_format": "doc" }), 400, "invalid-input"),
        ("speed", json!({ "input": "Hi", "speed": 0 }), 400, "invalid-input"),
        ("broken", json!({ "input": "Hi", "model": "broken" }), 400, "voice-invalid"),
        ("outside", json!({ "input": "Hi", "model": "outside" }), 400, "voice-invalid"),
        ("alone", json!({ "input": "Hi", "model": "alone" }), 400, "pipeline-unknown"),
        ("a picture's", json!({ "input": "Hi", "model": "picture" }), 400, "pipeline-unknown"),
        ("no number", json!({ "input": "ø", "model": "noisy" }), 500, "sound-invalid"),
        ("no sound", json!({ "input": "Hi", "model": "silent" }), 500, "sound-invalid"),
    ];
    for (name, body, status, code) in cases {
        let answer = server.post_json("/v1/audio/speech", &body).unwrap();
        let refusal = answer.refusal().unwrap();
        assert_eq!((refusal.0, refusal.1["code"].as_str().unwrap()), (status, code), "{name}: {}", refusal.1);
        let mut body = body;
        body["stream_format"] = json!("sse");
        assert_eq!(server.post_json("/v1/audio/speech", &body).unwrap().status, status, "{name}, as events");
    }
    // What fails after the first sentence breaks off: nobody takes it for whole.
    let (status, _, bytes, whole) = post(&server, &json!({ "input": "Hi.\n\nø", "model": "noisy" }));
    assert_eq!((status, whole, bytes.len() > 44), (200, false, true));
    // It goes on.
    assert_eq!(post(&server, &json!({ "input": "Hi" })).0, 200);
}

/// The ids are those of programs that others wrote, which `tests/peers/voice_text.py` recorded.
#[test]
fn ids_are_those_of_piper_and_of_transformers() {
    let (house, engines) = house();
    let golden = repository().join("wasm-stages/voice-text/tests/golden.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let numbers =
        |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect::<Vec<_>>();
    let server = Server::start(house).unwrap();
    for (text, wanted) in golden["texts"].as_array().unwrap().iter().zip(golden["piper"].as_array().unwrap())
    {
        let (_, _, bytes, _) = post(&server, &json!({ "input": text, "model": engines[0] }));
        assert_eq!(ids(&wav(&bytes).1, 100), numbers(wanted), "{text}");
    }
}
