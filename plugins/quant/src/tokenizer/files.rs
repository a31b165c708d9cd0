//! The tokenizer's files of a folder.

use pajamas_plugin_api::{PluginError, Result};
use serde_json::{Map, Value};

use crate::error::codes;
use crate::source::Source;

/// `tokenizer_config.json`; empty when there is none.
pub(super) fn config(source: &Source) -> Result<Map<String, Value>> {
    Ok(source.json("tokenizer_config.json", codes::TOKENIZER_INVALID)?.unwrap_or_default())
}

/// `tokenizer.json`.
pub(super) fn described(source: &Source) -> Result<Option<Map<String, Value>>> {
    source.json("tokenizer.json", codes::TOKENIZER_INVALID)
}

/// The model has no tokenizer of a kind that its family uses.
pub(super) fn missing(source: &Source, wanted: &str) -> PluginError {
    let what = format!("{} holds no {wanted}", source.folder().display());
    PluginError::new(codes::TOKENIZER_MISSING, what).help("download the tokenizer's files beside the weights")
}

/// The text of a token that stands as text, or as an object with its `content`.
pub(super) fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The kinds of special tokens that have names.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokens that the tokenizer's configuration gives a name, and its additional special ones: what transformers
/// calls `all_special_tokens`.
pub(super) fn special_tokens(source: &Source) -> Result<Vec<String>> {
    let mut config = config(source)?;
    if !config.contains_key("added_tokens_decoder") {
        let map = source.json("special_tokens_map.json", codes::TOKENIZER_INVALID)?.unwrap_or_default();
        for (key, value) in map {
            config.entry(key).or_insert(value);
        }
    }
    let mut tokens: Vec<String> = Vec::new();
    let additional = config.get("additional_special_tokens").and_then(Value::as_array);
    let named = NAMED.iter().filter_map(|key| config.get(*key));
    for token in named.chain(additional.into_iter().flatten()).filter_map(content) {
        if !tokens.iter().any(|t| t == token) {
            tokens.push(token.to_owned());
        }
    }
    Ok(tokens)
}
