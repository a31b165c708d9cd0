//! Compared with the package `tokenizers`: `golden.json` of the stage `tokenize`, which `tests/peers/tokens.py` wrote.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::fs;
use std::path::{Path, PathBuf};

use detokenize::Vocabulary;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tokenize/tests").join(name)
}

#[test]
fn wordpiece_and_unigram_are_those_of_the_peer() {
    let golden: Json = serde_json::from_slice(&fs::read(beside("golden.json")).unwrap()).unwrap();
    for name in ["wordpiece", "unigram"] {
        let file = fs::read(beside(&format!("{name}.json"))).unwrap();
        let vocabulary = Vocabulary::new(name, &file).unwrap();
        for want in golden[name].as_array().unwrap() {
            let ids = || want["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
            assert_eq!(vocabulary.decode(ids(), true).unwrap(), want["decoded"], "{}", want["text"]);
            assert_eq!(vocabulary.decode(ids(), false).unwrap(), want["with_special"], "{}", want["text"]);
        }
    }
}

fn asset(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets").join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// FNV-1a of 64 bits.
fn fnv(text: &str) -> String {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn byte_level_and_metaspace_bpe_are_those_of_the_peer() {
    let golden: Json = serde_json::from_slice(&fs::read(beside("golden.json")).unwrap()).unwrap();
    for (key, want) in golden.as_object().unwrap() {
        let Some((name, "ggml-vocab")) = key.split_once('/') else { continue };
        let folder = if name.starts_with("whisper") { "whisper" } else { "tokenizers" };
        let Some(file) = asset(&format!("{folder}/{name}/tokenizer.json")) else { continue };
        let Some(texts) = asset("tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf.inp") else { continue };
        let tokenizer = Tokenizer::from_file(&file).unwrap();
        let vocabulary = Vocabulary::new(name, &fs::read(&file).unwrap()).unwrap();
        let texts = fs::read_to_string(texts).unwrap();
        for (text, want) in texts.split("\n__ggml_vocab_test__\n").zip(want.as_array().unwrap()) {
            for (special, column) in [(false, 2), (true, 3)] {
                let ids = tokenizer.encode(text, special).unwrap();
                let decoded = vocabulary.decode(ids.get_ids().iter().copied(), !special).unwrap();
                assert_eq!(fnv(&decoded), want[column].as_str().unwrap(), "{key}: {text:?}: {decoded:?}");
            }
        }
    }
}
