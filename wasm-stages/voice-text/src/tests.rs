use pajamas_stage::testing;
use serde_json::Value as Json;

use super::*;

const TEXT: &str = r#"{"audio": {"sample_rate": 22050}, "phoneme_type": "text", "num_speakers": 2, "num_symbols": 12,
    "speaker_id_map": {"amy": 0, "bob": 1}, "inference": {"noise_scale": 0.5, "length_scale": 2, "noise_w": 0.25},
    "phoneme_id_map": {"_": [0], "^": [1], "$": [2], " ": [3], "a": [4], "b": [5], "e": [6, 7], "́": [8], ".": [9], "1": [10]}}"#;
const SPOKEN: &str = r#"{"audio": {"sample_rate": 16000}, "espeak": {"voice": "en-us"},
    "phoneme_id_map": {"_": [0], "^": [1], "$": [2], " ": [3], "h": [4], "ə": [5], "l": [6], "o": [7], "oʊ": [8], ".": [9], ",": [10],
    "t": [11], "u": [12], "ˈ": [13]}}"#;
const LEXICON: &str = "hello\thəlˈo\nHello no\nto t u\ntwo t u\nforty h o\nl əl\no oʊ\nö oʊ\nwell-to hello\n";

fn piper(config: &str) -> Files {
    [("voice.json", config)].into_iter().collect()
}

fn spoken() -> Files {
    [("voice.json", SPOKEN), ("lexicon.txt", LEXICON)].into_iter().collect()
}

fn mms(tokenizer: &str) -> Files {
    let vocabulary = r#"{"k": 0, "a": 1, "b": 2, " ": 3, "-": 4, "ţ": 5, "'": 6}"#;
    let config = r#"{"sampling_rate": 16000, "vocab_size": 7, "noise_scale": 0.6, "speaking_rate": 0.5}"#;
    [("vocab.json", vocabulary), ("config.json", config), ("tokenizer_config.json", tokenizer)]
        .into_iter()
        .collect()
}

fn run(options: Json, files: Files, text: &str) -> Result<Values> {
    let stage: VoiceText = testing::create(&options, files)?;
    stage.run(Values::new().with("text", text.to_owned()))
}

fn numbers(values: &mut Values, name: &str) -> Vec<f32> {
    values.tensor(name).unwrap().into_f32().unwrap()
}

/// The ids of each sentence.
fn ids(options: Json, files: Files, text: &str) -> Result<Vec<Vec<i64>>> {
    let mut values = run(options, files, text)?;
    let lengths = numbers(&mut values, "lengths");
    let mut ids = numbers(&mut values, "ids").into_iter().map(|id| id as i64);
    Ok(lengths.iter().map(|length| ids.by_ref().take(*length as usize).collect()).collect())
}

fn code(options: Json, files: Files, text: &str) -> String {
    run(options, files, text).map(|_| ()).unwrap_err().code
}

#[test]
fn options_agree_with_their_schema() {
    testing::check_options::<VoiceText>(piper(TEXT));
    for wrong in
        [json!({"speed": 5}), json!({"speed": 0}), json!({"max_sentence": 1}), json!({"max_characters": 0})]
    {
        assert_eq!(code(wrong, piper(TEXT), "a"), "invalid-option");
    }
    assert_eq!(code(json!({}), Files::default(), "a"), "invalid-option");
}

#[test]
fn characters_are_framed_as_piper_does() {
    let said = ids(json!({}), piper(TEXT), "Aé. \u{1f44b} b ^_$ c.").unwrap();
    assert_eq!(said, [vec![1, 0, 4, 0, 6, 7, 0, 8, 0, 9, 0, 2], vec![1, 0, 3, 0, 5, 0, 3, 0, 3, 0, 9, 0, 2]]);
}

#[test]
fn numbers_beside_the_ids_are_those_of_the_voice() {
    let mut values = run(json!({"speed": 4, "voice": "bob"}), piper(TEXT), "a").unwrap();
    assert_eq!(numbers(&mut values, "scales"), [0.5, 0.5, 0.25]);
    assert_eq!(
        (numbers(&mut values, "length_scale"), numbers(&mut values, "rate")),
        (vec![0.5], vec![22050.0])
    );
    assert_eq!(numbers(&mut values, "speaker"), [1.0]);
    let mut values = run(json!({}), mms(r#"{"phonemize": false}"#), "ab").unwrap();
    assert_eq!(numbers(&mut values, "scales"), [0.6, 2.0, 0.8]);
}

#[test]
fn voices_are_known_by_name_and_by_number() {
    for (voice, number) in [("amy", 0.0), ("1", 1.0), ("default", 0.0), (" ", 0.0)] {
        let mut values = run(json!({"voice": voice}), piper(TEXT), "a").unwrap();
        assert_eq!(numbers(&mut values, "speaker"), [number], "{voice}");
    }
    let refused = run(json!({"voice": "carl"}), piper(TEXT), "a").unwrap_err();
    assert_eq!(refused.code, "voice-unknown");
    assert!(refused.help.contains("amy, bob"), "{}", refused.help);
    for voice in ["2", "-1", "alloy"] {
        assert_eq!(code(json!({"voice": voice}), spoken(), "hello"), "voice-unknown");
    }
}

#[test]
fn words_are_said_as_the_lexicon_says() {
    let hello = [4, 0, 5, 0, 6, 0, 13, 0, 7, 0];
    let around = |middle: &[i64]| [&[1, 0], middle, &[2]].concat();
    let said = |text: &str| ids(json!({}), spoken(), text).unwrap();
    assert_eq!(said("“HELLO”"), [around(&hello)]);
    assert_eq!(said("hello, hello."), [around(&[&hello[..], &[10, 0, 3, 0], &hello, &[9, 0]].concat())]);
    // The halves of a word, its letters, a number.
    assert_eq!(said("hello-to"), [around(&[&hello[..], &[3, 0, 11, 0, 12, 0]].concat())]);
    assert_eq!(said("lo"), [around(&[5, 0, 6, 0, 3, 0, 8, 0])]);
    assert_eq!(said("o\u{308}"), said("Ö"));
    assert_eq!(said("42"), [around(&[4, 0, 7, 0, 3, 0, 11, 0, 12, 0])]);
}

#[test]
fn words_that_nobody_knows_are_named_or_left_out() {
    let refused = run(json!({}), spoken(), "Hello world, hello \"Zaphod\". 7!").unwrap_err();
    assert_eq!(refused.code, "word-unknown");
    assert!(refused.message.ends_with("\"world\", \"zaphod\", \"7\""), "{}", refused.message);
    assert_eq!(ids(json!({"unknown": "skip"}), spoken(), "Hello world.").unwrap().len(), 1);
    assert_eq!(code(json!({}), piper(SPOKEN), "hello"), "lexicon-missing");
    let wrong = [("voice.json", SPOKEN), ("lexicon.txt", "hello xyz\n")].into_iter().collect();
    assert_eq!(code(json!({}), wrong, "hello"), "voice-invalid");
}

#[test]
fn a_vocabulary_is_read_as_transformers_reads_it() {
    let said = |tokenizer: &str, text: &str| ids(json!({}), mms(tokenizer), text).unwrap().concat();
    assert_eq!(said(r#"{"phonemize": false}"#, " Ab, c-k "), [0, 1, 0, 2, 0, 3, 0, 4, 0, 0, 0]);
    assert_eq!(said(r#"{"phonemize": false, "add_blank": false}"#, "ab"), [1, 2]);
    assert_eq!(said(r#"{"phonemize": false, "language": "ron"}"#, "aț"), [0, 1, 0, 5, 0]);
    assert_eq!(said(r#"{"phonemize": false, "normalize": false}"#, "aB b"), [0, 1, 0, 3, 0, 2, 0]);
    let latin = r#"{"phonemize": false, "is_uroman": true}"#;
    assert_eq!(said(latin, "a – b"), [0, 1, 0, 3, 0, 3, 0, 2, 0]);
    assert_eq!(code(json!({}), mms(latin), "привет"), "unsupported");
    assert_eq!(code(json!({}), mms("{}"), "ab"), "lexicon-missing");
    // Digits that an English voice does not know become words, of which it knows some letters.
    assert_eq!(
        said(r#"{"phonemize": false, "language": "eng"}"#, "0 a"),
        said(r#"{"phonemize": false}"#, "zero a")
    );
}

#[test]
fn what_says_nothing_or_too_much_is_refused() {
    for nothing in ["", " \n", "?!...", "xyz"] {
        assert_eq!(code(json!({}), piper(TEXT), nothing), "text-empty", "{nothing:?}");
    }
    assert_eq!(code(json!({}), mms(r#"{"phonemize": false}"#), "привет"), "text-empty");
    assert_eq!(code(json!({}), piper(TEXT), &"a ".repeat(500_000)), "text-too-long");
    assert_eq!(
        ids(json!({"max_characters": 1_000_000}), piper(TEXT), &"a ".repeat(500_000)).unwrap().len(),
        2500
    );
}

#[test]
fn files_that_are_wrong_say_where() {
    for (from, to) in [
        ("\"^\": [1], ", ""),
        ("[4]", "[12]"),
        ("[4]", "[-1]"),
        ("[4]", "\"a\""),
        ("22050", "0"),
        ("\"length_scale\": 2", "\"length_scale\": 0"),
        ("\"length_scale\": 2", "\"length_scale\": 1e99"),
        ("\"bob\": 1", "\"bob\": 2"),
        ("}}", ""),
        ("\"phoneme_id_map\"", "\"phonemes\""),
    ] {
        let config = TEXT.replace(from, to);
        assert!(config != TEXT, "{from}");
        assert_eq!(code(json!({}), piper(&config), "a"), "voice-invalid", "{from} -> {to}");
    }
    assert_eq!(code(json!({}), piper(&TEXT.replace("\"text\"", "\"pinyin\"")), "a"), "unsupported");
    let broken: Files = [("voice.json", &b"\xff"[..])].into_iter().collect();
    assert_eq!(code(json!({}), broken, "a"), "voice-invalid");
    let alone = [("vocab.json", "{}"), ("config.json", r#"{"sampling_rate": 16000}"#)].into_iter().collect();
    assert_eq!(code(json!({}), alone, "a"), "voice-invalid");
}

/// Whatever bytes the files and the text have, there is an answer or a refusal.
#[test]
fn nothing_that_is_made_up_panics() {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let odd: Vec<char> =
        "aAé\u{301}1.,' ’-\n\"…“。\u{0}\u{ad}ß\u{1f44b}你ţț\u{200d}$^_ 10,000.5".chars().collect();
    for round in 0..2000 {
        let spoil = |text: &str, random: &mut dyn FnMut(usize) -> usize| {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len());
                bytes[at] = [b'"', b'{', b'0', b'\t', b'\n', 0xff, b'['][random(7)];
            }
            bytes
        };
        let mut files = vec![("lexicon.txt", spoil(LEXICON, &mut random))];
        match round % 3 {
            0 => files.push(("voice.json", spoil(TEXT, &mut random))),
            1 => files.push(("voice.json", spoil(SPOKEN, &mut random))),
            _ => {
                for (name, content) in mms(r#"{"phonemize": false, "language": "eng"}"#).iter() {
                    files.push((
                        [("vocab.json"), "config.json", "tokenizer_config.json"]
                            .into_iter()
                            .find(|known| *known == name)
                            .unwrap(),
                        spoil(std::str::from_utf8(content).unwrap(), &mut random),
                    ));
                }
            }
        }
        let text: String = (0..random(60)).map(|_| odd[random(odd.len())]).collect();
        let unknown = ["skip", "refuse"][round % 2];
        let options = json!({"max_sentence": 20 + random(30), "unknown": unknown});
        if let Err(error) = run(options, files.into_iter().collect(), &text) {
            assert!(!error.code.is_empty() && !error.message.is_empty());
        }
    }
}

/// Ids that transformers' `VitsTokenizer` and piper's own function made of texts: `tests/peers/voice_text.py` wrote them down.
#[test]
fn ids_are_those_of_piper_and_of_transformers() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let json = |path: &str| serde_json::from_str::<Json>(&read(path)).unwrap();
    let numbers =
        |ids: &Json| ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect::<Vec<_>>();
    let golden = json("wasm-stages/voice-text/tests/golden.json");
    let texts = golden["texts"].as_array().unwrap();
    let piper = read("tests/fixtures/voice/piper.onnx.json");
    for (text, wanted) in texts.iter().zip(golden["piper"].as_array().unwrap()) {
        let text = text.as_str().unwrap();
        assert_eq!(ids(json!({}), self::piper(&piper), text).unwrap(), [numbers(wanted)], "{text}");
    }
    for case in golden["transformers"].as_array().unwrap() {
        let mut vocabulary = json("tests/fixtures/voice/mms/vocab.json");
        (vocabulary["ţ"], vocabulary["é"]) = (json!(40), json!(41));
        let mut tokenizer = json("tests/fixtures/voice/mms/tokenizer_config.json");
        for (key, value) in case["settings"].as_object().unwrap() {
            tokenizer[key] = value.clone();
        }
        for (text, wanted) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            let files = [
                ("vocab.json", vocabulary.to_string()),
                ("config.json", read("tests/fixtures/voice/mms/config.json")),
                ("tokenizer_config.json", tokenizer.to_string()),
            ];
            let said = ids(json!({}), files.into_iter().collect(), text.as_str().unwrap()).unwrap();
            assert_eq!(said, [numbers(wanted)], "{text}, {}", case["settings"]);
        }
    }
}
