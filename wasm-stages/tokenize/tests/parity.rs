//! Compared with the package `tokenizers`: `golden.json`, which `tests/peers/tokens.py` wrote.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_stage::{Files, Stage, Values, testing};
use serde_json::{Value as Json, json};
use tokenize::Tokenize;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn golden() -> serde_json::Map<String, Json> {
    serde_json::from_slice(&fs::read(here("golden.json")).unwrap()).unwrap()
}

fn asset(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets").join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn stage(file: &Path, options: Json) -> Tokenize {
    let files: Files = [("tokenizer.json", fs::read(file).unwrap())].into_iter().collect();
    testing::create(&options, files).unwrap()
}

fn ids(stage: &Tokenize, text: &str, pair: Option<&str>) -> (Vec<u32>, Json) {
    let values = Values::new().with("text", text.to_owned());
    let values = match pair {
        Some(pair) => values.with("pair", pair.to_owned()),
        None => values,
    };
    let mut left = stage.run(values).unwrap();
    let types = left.tensor("token_type_ids").unwrap().into_f32().unwrap();
    (left.tokens("tokens").unwrap(), types.into_iter().map(|t| t as u32).collect())
}

#[test]
fn wordpiece_and_unigram_are_those_of_the_peer() {
    let golden = golden();
    for name in ["wordpiece", "unigram"] {
        let file = here(&format!("{name}.json"));
        let (plain, short) = (stage(&file, json!({})), stage(&file, json!({"max_length": 6})));
        for want in golden[name].as_array().unwrap() {
            let text = want["text"].as_str().unwrap();
            assert_eq!(json!(ids(&plain, text, None).0), want["ids"], "{name}: {text:?}");
            assert_eq!(json!(ids(&short, text, None).0), want["at_most_6"], "{name}: {text:?}");
            let (pair, types) = ids(&plain, text, Some("a blue star"));
            assert_eq!((json!(pair), &types), (want["pair"].clone(), &want["types"]), "{name}: {text:?}");
        }
    }
}

/// FNV-1a of 64 bits.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> String {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn byte_level_and_metaspace_bpe_are_those_of_the_peer() {
    for (key, want) in golden() {
        let Some((name, source)) = key.split_once('/') else { continue };
        let folder = if name.starts_with("whisper") { "whisper" } else { "tokenizers" };
        let Some(file) = asset(&format!("{folder}/{name}/tokenizer.json")) else { continue };
        let texts: Vec<String> = if source == "wiki" {
            let Some(path) = asset("text/wiki.test.raw") else { continue };
            fs::read_to_string(path).unwrap().split('\n').take(400).map(str::to_owned).collect()
        } else {
            let Some(path) = asset("tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf.inp") else { continue };
            fs::read_to_string(path).unwrap().split("\n__ggml_vocab_test__\n").map(str::to_owned).collect()
        };
        let (bare, whole) = (stage(&file, json!({"add_special_tokens": false})), stage(&file, json!({})));
        let hash = |stage: &Tokenize, text: &str| {
            fnv(ids(stage, text, None).0.into_iter().flat_map(u32::to_le_bytes))
        };
        let rows: Vec<[String; 2]> =
            texts.iter().map(|text| [hash(&bare, text), hash(&whole, text)]).collect();
        let rows = if rows.len() < 100 {
            rows
        } else {
            vec![
                [0, 1]
                    .map(|column| fnv(rows.iter().flat_map(|row| row[column].bytes()).collect::<Vec<u8>>())),
            ]
        };
        let want: Vec<[String; 2]> = want
            .as_array()
            .unwrap()
            .iter()
            .map(|row| [0, 1].map(|column| row[column].as_str().unwrap().to_owned()))
            .collect();
        let wrong: Vec<usize> = (0..want.len()).filter(|n| rows.get(*n) != want.get(*n)).collect();
        assert!(rows.len() == want.len() && wrong.is_empty(), "{key}: texts {wrong:?}");
    }
}
