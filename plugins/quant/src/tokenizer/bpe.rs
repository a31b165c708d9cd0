//! Vocabularies described by `tokenizer.json`: byte pairs, and pieces of words.

use std::collections::{HashMap, HashSet};

use pajamas_plugin_api::Result;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::files::{self, content};
use super::{Vocabulary, kind, looks_special, pre};
use crate::error;
use crate::source::Source;

/// A vocabulary of byte pairs (conversion/base.py, `_set_vocab_gpt2`).
pub(super) fn of(source: &Source, pre: Option<&str>) -> Result<Vocabulary> {
    let (tokens, kinds, pre) = base(source, pre)?;
    Ok(Vocabulary { model: "gpt2", pre, tokens, scores: None, kinds, merges: true, bounded: false })
}

/// A vocabulary of pieces of words, each with its space before it instead of signs for what has none
/// (conversion/bert.py, `BertModel.set_vocab`).
pub(super) fn word_pieces(source: &Source, pre: Option<&str>) -> Result<Vocabulary> {
    let (tokens, kinds, pre) = base(source, pre)?;
    let spaced = |(token, kind): (String, &i32)| match token.strip_prefix("##") {
        _ if *kind == kind::CONTROL => token,
        Some(rest) => rest.to_owned(),
        None => format!("\u{2581}{token}"),
    };
    let tokens = tokens.into_iter().zip(&kinds).map(spaced).collect();
    Ok(Vocabulary { model: "bert", pre, tokens, scores: None, kinds, merges: false, bounded: true })
}

/// Tokens, their kinds, and how text is split before them (conversion/base.py, `get_vocab_base`).
fn base(source: &Source, pre: Option<&str>) -> Result<(Vec<String>, Vec<i32>, String)> {
    let Some(text) = source.text("tokenizer.json")? else {
        return Err(files::missing(source, "tokenizer.json"));
    };
    let described: Map<String, Value> =
        serde_json::from_str(&text).map_err(|e| error::tokenizer(format!("does not parse: {e}")))?;
    let invalid = |e: tokenizers::Error| error::tokenizer(format!("in tokenizer.json is refused: {e}"));
    let mut tokenizer: Tokenizer = text.parse().map_err(invalid)?;
    drop(text);
    add(source, &mut tokenizer)?;

    let vocab = tokenizer.get_vocab(true);
    let size = source.config.count(&["vocab_size"])?.map_or(vocab.len(), |n| n as usize);
    if let Some((token, id)) = vocab.iter().find(|(_, id)| **id as usize >= size) {
        let what = format!("has the token `{token}` with the id {id}, beyond the {size} of config.json");
        return Err(error::tokenizer(what));
    }
    let pre = match pre {
        Some(pre) => pre.to_owned(),
        None => pre::of(&tokenizer, &described)?,
    };
    let by_id: HashMap<u32, &String> = vocab.iter().map(|(token, id)| (*id, token)).collect();
    let added = tokenizer.get_added_tokens_decoder();
    let mut tokens = Vec::with_capacity(size);
    let mut kinds = Vec::with_capacity(size);
    for id in 0..size as u32 {
        let (token, kind) = match (by_id.get(&id), added.get(&id)) {
            (None, _) => (format!("[PAD{id}]"), kind::UNUSED),
            (Some(token), None) => ((*token).clone(), kind::NORMAL),
            (Some(token), Some(flags)) => {
                // llama.cpp compares with text that was normalized: so must be what it compares.
                let token = match flags.normalized {
                    true => (*token).clone(),
                    false => {
                        let encoded = tokenizer.encode(token.as_str(), false).map_err(invalid)?;
                        tokenizer.decode(encoded.get_ids(), false).map_err(invalid)?
                    }
                };
                match flags.special || looks_special(&token) {
                    true => (token, kind::CONTROL),
                    false => (token.replace('\u{2581}', " "), kind::USER_DEFINED),
                }
            }
        };
        tokens.push(token);
        kinds.push(kind);
    }
    Ok((tokens, kinds, pre))
}

/// Adds what `tokenizer_config.json` adds to `tokenizer.json`, as transformers does when it loads a tokenizer.
fn add(source: &Source, tokenizer: &mut Tokenizer) -> Result<()> {
    let config = files::config(source)?;
    let special = files::special_tokens(source)?;
    let mut known: HashSet<String> =
        tokenizer.get_added_tokens_decoder().into_values().map(|t| t.content).collect();
    let mut tokens = Vec::new();
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    for token in decoder.into_iter().flatten().map(|(_, token)| token) {
        let Some(text) = content(token) else { continue };
        let flag = |key: &str| token.get(key).and_then(Value::as_bool);
        let is_special = flag("special").unwrap_or(false) || special.iter().any(|s| s == text);
        let added = AddedToken::from(text, is_special)
            .normalized(flag("normalized").unwrap_or(!is_special))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .single_word(flag("single_word").unwrap_or(false));
        known.insert(text.to_owned());
        tokens.push(added);
    }
    tokens.extend(special.iter().filter(|s| !known.contains(*s)).map(|s| AddedToken::from(s.as_str(), true)));
    for token in tokens {
        // A token that transformers would give a new place would not fit the embeddings.
        if tokenizer.token_to_id(&token.content).is_none() {
            continue;
        }
        match token.special {
            true => tokenizer.add_special_tokens(&[token]),
            false => tokenizer.add_tokens(&[token]),
        };
    }
    Ok(())
}
