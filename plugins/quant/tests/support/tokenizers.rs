//! Small tokenizers of each kind, as files.

use serde_json::{Map, Value, json};

use super::pretty;

type Files = Vec<(String, Vec<u8>)>;

const SPECIAL: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"];
const TEMPLATE: &str =
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}";

/// Patterns of published tokenizers by llama.cpp's name for them.
pub fn pattern(pre: &str) -> &'static str {
    match pre {
        "llama-bpe" => {
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
        "qwen2" => {
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
        "gpt-4o" => {
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
        other => panic!("no pattern for {other}"),
    }
}

/// The characters that stand for bytes in a byte-level vocabulary.
fn alphabet() -> Vec<char> {
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    let stands_for = |b: u32| match plain(b) {
        true => char::from_u32(b).unwrap(),
        false => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    };
    (0..256).map(stands_for).collect()
}

/// Byte pairs: 256 bytes, some merges, special tokens after them; `split` is llama.cpp's name of the pattern. The last
/// special token is not marked as one.
pub fn bpe(split: &str, bos: bool) -> Files {
    let bytes = alphabet();
    let text = |word: &str| word.bytes().map(|b| bytes[b as usize]).collect::<String>();
    let mut vocab: Vec<String> = bytes.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    for word in [" t", " th", " the", "in", "er", " a", "  ", "    ", "33", "'s", "ing"] {
        let at = match word {
            "    " | "ing" => 2,
            _ => word.char_indices().last().unwrap().0,
        };
        merges.push(json!([text(&word[..at]), text(&word[at..])]));
        vocab.push(text(word));
    }
    let ids: Map<String, Value> = vocab.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    let first = vocab.len();
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(|(i, t)| token(first + i, t, i < 3)).collect();
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex});
    let pre_tokenizer = match split {
        "gpt-2" => byte_level(true),
        _ => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern(split)}, "behavior": "Isolated", "invert": false},
            byte_level(false)
        ]}),
    };
    let post = match bos {
        false => byte_level(false),
        true => {
            json!({"type": "Sequence", "processors": [byte_level(false), template(SPECIAL[0], first, None)]})
        }
    };
    let described = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": if split == "qwen2" { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer, "post_processor": post, "decoder": byte_level(false),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": split != "qwen2" && split != "gpt-2", "vocab": ids, "merges": merges
        }
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": false,
        "bos_token": if bos { json!(SPECIAL[0]) } else { Value::Null }, "eos_token": SPECIAL[2], "pad_token": SPECIAL[0],
        "clean_up_tokenization_spaces": false, "chat_template": TEMPLATE, "added_tokens_decoder": decoder(&added)
    });
    files([("tokenizer.json", described), ("tokenizer_config.json", config)])
}

fn token(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
}

fn decoder(added: &[Value]) -> Value {
    let entry = |token: &Value| {
        let mut token = token.as_object().unwrap().clone();
        let id = token.remove("id").unwrap();
        (id.to_string(), Value::Object(token))
    };
    added.iter().map(entry).collect::<Map<_, _>>().into()
}

fn template(bos: &str, id: usize, eos: Option<(&str, usize)>) -> Value {
    let special = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let mut single = vec![special(bos, 0), text("A", 0)];
    let mut pair = single.clone();
    let mut specials = json!({bos: {"id": bos, "ids": [id], "tokens": [bos]}});
    match eos {
        None => pair.extend([special(bos, 1), text("B", 1)]),
        Some((eos, id)) => {
            single.push(special(eos, 0));
            pair.extend([special(eos, 0), text("B", 1), special(eos, 1)]);
            specials[eos] = json!({"id": eos, "ids": [id], "tokens": [eos]});
        }
    }
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials})
}

fn files<const N: usize>(files: [(&str, Value); N]) -> Files {
    files.into_iter().map(|(name, value)| (name.to_owned(), pretty(&value))).collect()
}

/// Which family's SentencePiece vocabulary.
#[derive(Clone, Copy, PartialEq)]
pub enum Pieces {
    Llama,
    Gemma,
    Phi,
}

/// A SentencePiece model: special pieces, bytes, some words. Kinds: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte.
pub fn pieces(of: Pieces) -> Files {
    let mut pieces: Vec<(String, f32, u8)> = match of {
        Pieces::Gemma => vec![("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2), ("<start_of_turn>", 4)],
        _ => vec![("<unk>", 2), ("<s>", 3), ("</s>", 3)],
    }
    .into_iter()
    .map(|(text, kind)| (text.to_owned(), 0.0, kind))
    .collect();
    pieces.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
    let words = ["\u{2581}t", "he", "\u{2581}the", "in", "\u{2581}", "e", "t", "a", "\u{2581}a", "é", "中"];
    pieces.extend(words.iter().enumerate().map(|(i, w)| ((*w).to_owned(), -(i as f32) - 0.5, 1)));
    let next = pieces.len();
    let (bos, eos, unk) =
        if of == Pieces::Gemma { ("<bos>", "<eos>", "<unk>") } else { ("<s>", "</s>", "<unk>") };
    let at = |text: &str| pieces.iter().position(|p| p.0 == text).unwrap();
    let mut added = vec![token(at(bos), bos, true), token(at(eos), eos, true), token(at(unk), unk, true)];
    if of == Pieces::Gemma {
        added.push(token(at("<start_of_turn>"), "<start_of_turn>", true));
    }
    if of == Pieces::Phi {
        added.extend([token(next, "<|end|>", true), token(next + 1, "\u{2581}odd\u{2581}", false)]);
    }
    let config = json!({
        "tokenizer_class": if of == Pieces::Gemma { "GemmaTokenizer" } else { "LlamaTokenizer" },
        "add_bos_token": true, "add_eos_token": false, "bos_token": {"content": bos, "special": true}, "eos_token": eos,
        "unk_token": unk, "pad_token": if of == Pieces::Gemma { json!("<pad>") } else { Value::Null },
        "clean_up_tokenization_spaces": false, "added_tokens_decoder": decoder(&added),
        "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "tool-use", "template": "{{ tools }}"}]
    });
    let mut files = files([("tokenizer_config.json", config)]);
    files.push(("tokenizer.model".into(), model(&pieces)));
    if of == Pieces::Phi {
        let described = described(&pieces, added, bos);
        files.push(("tokenizer.json".into(), pretty(&described)));
        files
            .push(("added_tokens.json".into(), pretty(&json!({"<|end|>": next, "<|assistant|>": next + 2}))));
    }
    files
}

/// The pieces as `tokenizer.json` alone.
pub fn pieces_as_json() -> Files {
    let mut pieces: Vec<(String, f32, u8)> =
        ["<unk>", "<s>", "</s>"].iter().map(|t| ((*t).to_owned(), 0.0, 3)).collect();
    pieces.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
    pieces.extend(["\u{2581}", "t", "h", "e", "he", "\u{2581}t"].map(|t| (t.to_owned(), 0.0, 1)));
    let next = pieces.len();
    let mut added: Vec<Value> =
        ["<unk>", "<s>", "</s>"].iter().enumerate().map(|(i, t)| token(i, t, true)).collect();
    added.push(token(next, "<tool>", false));
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": false, "added_tokens_decoder": decoder(&added)
    });
    files([("tokenizer.json", described(&pieces, added, "<s>")), ("tokenizer_config.json", config)])
}

fn described(pieces: &[(String, f32, u8)], added: Vec<Value>, bos: &str) -> Value {
    let vocab: Map<String, Value> = pieces.iter().enumerate().map(|(i, p)| (p.0.clone(), json!(i))).collect();
    let id = vocab[bos].as_u64().unwrap() as usize;
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}
        ]},
        "pre_tokenizer": null, "post_processor": template(bos, id, None),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": if vocab.contains_key("he") && vocab.contains_key("h") { json!([["h", "e"]]) } else { json!([]) }
        }
    })
}

/// `ModelProto` of SentencePiece: pieces, and in field 2 that the kind is byte pairs, with bytes for what is unknown.
fn model(pieces: &[(String, f32, u8)]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend(bytes);
        out
    };
    let mut out = Vec::new();
    for (text, score, kind) in pieces {
        let mut piece = field(1, text.as_bytes());
        piece.push(2 << 3 | 5);
        piece.extend(score.to_le_bytes());
        piece.extend([3 << 3, *kind]);
        out.extend(field(1, &piece));
    }
    // trainer_spec: model_type (3) = BPE (2), byte_fallback (35) = true.
    out.extend(field(2, &[3 << 3, 2, 0x98, 0x02, 1]));
    // normalizer_spec: name (1) = identity.
    out.extend(field(3, &field(1, b"identity")));
    out
}

/// Pieces of words, as BERT has them.
pub fn word_pieces() -> Files {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let mut tokens: Vec<String> = special.iter().map(|t| (*t).to_owned()).collect();
    tokens.extend(('a'..='z').map(String::from));
    tokens.extend(('a'..='z').map(|c| format!("##{c}")));
    tokens.extend(["the", "##ing", "3", ",", "中"].map(str::to_owned));
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    let added: Vec<Value> = special.iter().enumerate().map(|(i, t)| token(i, t, true)).collect();
    let described = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": template("[CLS]", 2, Some(("[SEP]", 3))),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab}
    });
    let config = json!({
        "tokenizer_class": "BertTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "unk_token": "[UNK]", "mask_token": "[MASK]", "do_lower_case": true, "clean_up_tokenization_spaces": true,
        "added_tokens_decoder": decoder(&added)
    });
    files([("tokenizer.json", described), ("tokenizer_config.json", config)])
}
