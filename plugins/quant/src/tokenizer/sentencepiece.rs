//! Vocabularies of SentencePiece: from its own model file, or from a description made of one.

use pajamas_plugin_api::Result;
use serde_json::{Map, Value};

use super::files::{self, content};
use super::{Vocabulary, kind, looks_special, protobuf};
use crate::error;
use crate::source::Source;

/// The score of tokens that were added later.
const ADDED: f32 = -1000.0;
/// The score of places without a token.
const UNUSED: f32 = -10000.0;
/// SentencePiece's space.
const SPACE: char = '\u{2581}';

struct Table {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
}

impl Table {
    /// The pieces of `tokenizer.model`, in a table as long as the model's embeddings.
    fn of(source: &Source) -> Result<Self> {
        let Some(file) = source.bytes("tokenizer.model")? else {
            return Err(files::missing(source, "tokenizer.model"));
        };
        let pieces = protobuf::pieces(&file)?;
        let size = source.config.count(&["vocab_size"])?.map_or(pieces.len(), |n| n as usize);
        let mut table = Self {
            tokens: (0..size).map(|i| format!("[PAD{i}]")).collect(),
            scores: vec![UNUSED; size],
            kinds: vec![kind::UNUSED; size],
        };
        for (id, piece) in pieces.into_iter().enumerate().take(size) {
            let kind = match piece.kind {
                kind::USER_DEFINED => kind::NORMAL,
                other => other,
            };
            table.set(id, piece.text, piece.score, kind);
        }
        Ok(table)
    }

    /// Puts a token into its place; one beyond the table is left out.
    fn set(&mut self, id: usize, token: String, score: f32, kind: i32) {
        if id < self.tokens.len() {
            self.tokens[id] = token;
            self.scores[id] = score;
            self.kinds[id] = kind;
        }
    }

    /// Tokens of `added_tokens.json`.
    fn add(&mut self, source: &Source) -> Result<()> {
        let added = source.json("added_tokens.json", error::codes::TOKENIZER_INVALID)?.unwrap_or_default();
        for (token, id) in added {
            self.set(index(&id)?, token, ADDED, kind::USER_DEFINED);
        }
        Ok(())
    }

    fn done(self) -> Vocabulary {
        Vocabulary {
            model: "llama",
            pre: "default".to_owned(),
            tokens: self.tokens,
            scores: Some(self.scores),
            kinds: self.kinds,
            merges: false,
            bounded: true,
        }
    }
}

/// conversion/base.py, `_create_vocab_sentencepiece`.
pub(super) fn of(source: &Source) -> Result<Vocabulary> {
    let mut table = Table::of(source)?;
    table.add(source)?;
    for (id, token) in decoder(&files::config(source)?)? {
        let text = text(&token)?;
        let special = token.get("special").and_then(Value::as_bool) == Some(true);
        if special || looks_special(text) {
            table.set(id, text.to_owned(), ADDED, kind::CONTROL);
        } else {
            table.set(id, text.replace(SPACE, " "), ADDED, kind::USER_DEFINED);
        }
    }
    Ok(table.done())
}

/// conversion/phi.py, `Phi3MiniModel.set_vocab`: spaces stay as they are, and `tokenizer.json` has the last word.
pub(super) fn phi3(source: &Source) -> Result<Vocabulary> {
    let mut table = Table::of(source)?;
    table.add(source)?;
    let mut added = decoder(&files::config(source)?)?;
    let described = files::described(source)?.unwrap_or_default();
    for token in described.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        added.push((index(token.get("id").unwrap_or(&Value::Null))?, token.clone()));
    }
    for (id, token) in added {
        let special = token.get("special").and_then(Value::as_bool) == Some(true);
        let kind = if special { kind::CONTROL } else { kind::USER_DEFINED };
        table.set(id, text(&token)?.to_owned(), ADDED, kind);
    }
    Ok(table.done())
}

/// A vocabulary of SentencePiece that is there as `tokenizer.json` only; `None` for other kinds
/// (gguf-py/gguf/vocab.py, `LlamaHfVocab`).
pub(super) fn from_json(source: &Source) -> Result<Option<Vocabulary>> {
    let Some(described) = files::described(source)? else {
        return Err(files::missing(source, "tokenizer.model and no tokenizer.json"));
    };
    let model = described.get("model").and_then(Value::as_object).cloned().unwrap_or_default();
    let is = |key: &str, value: &str| model.get(key).and_then(Value::as_str) == Some(value);
    let bytes = model.get("byte_fallback").and_then(Value::as_bool) == Some(true);
    let decoder = described.get("decoder").and_then(|d| d.get("type")).and_then(Value::as_str);
    if !is("type", "BPE") || !bytes || decoder != Some("Sequence") {
        return Ok(None);
    }
    let vocab = model.get("vocab").and_then(Value::as_object).cloned().unwrap_or_default();
    let named = files::special_tokens(source)?;
    let mut table = Table {
        tokens: vec![String::new(); vocab.len()],
        scores: vec![ADDED; vocab.len()],
        kinds: vec![kind::NORMAL; vocab.len()],
    };
    for (token, id) in &vocab {
        let id = index(id)?;
        if id >= table.tokens.len() || !table.tokens[id].is_empty() {
            return Err(error::tokenizer(format!(
                "gives `{token}` the id {id}, and leaves others without a token"
            )));
        }
        let kind = match is_byte(token) {
            true => kind::BYTE,
            false if named.contains(token) => kind::CONTROL,
            false => kind::NORMAL,
        };
        table.set(id, token.clone(), ADDED, kind);
    }
    // What was added and has no place in the vocabulary comes after it.
    let mut added = Vec::new();
    for token in described.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        added.push((index(token.get("id").unwrap_or(&Value::Null))?, text(token)?.to_owned()));
    }
    added.sort();
    for (_, token) in added.into_iter().filter(|(id, _)| *id >= vocab.len()) {
        table.kinds.push(if named.contains(&token) { kind::CONTROL } else { kind::USER_DEFINED });
        table.scores.push(ADDED);
        table.tokens.push(token);
    }
    Ok(Some(table.done()))
}

/// `added_tokens_decoder`, in its order.
fn decoder(config: &Map<String, Value>) -> Result<Vec<(usize, Value)>> {
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    let entry = |(id, token): (&String, &Value)| {
        let id = id.parse().map_err(|_| error::tokenizer(format!("has an added token of the id `{id}`")))?;
        Ok((id, token.clone()))
    };
    decoder.into_iter().flatten().map(entry).collect()
}

fn text(token: &Value) -> Result<&str> {
    content(token).ok_or_else(|| error::tokenizer(format!("has an added token without a text: {token}")))
}

fn index(id: &Value) -> Result<usize> {
    let index = id.as_u64().filter(|n| *n <= u64::from(u32::MAX));
    index.map(|n| n as usize).ok_or_else(|| error::tokenizer(format!("has a token of the id {id}")))
}

/// `<0x0A>` and its like.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}
