//! How a tokenizer splits text before it merges: llama.cpp knows ways by name, tokenizers carry patterns.
//!
//! llama.cpp's converter encodes one text and knows the ids of some hundred published tokenizers by their hash; it
//! refuses every other, a vocabulary trained anew among them. Here the patterns are compared when the hash is not known.

use pajamas_plugin_api::{PluginError, Result};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::pre_table::{CHECK_TEXT, HASHES, PATTERNS};
use crate::error::{self, codes};

/// llama.cpp's name for how this tokenizer splits.
///
/// # Errors
/// `pre-tokenizer-unknown`.
pub(super) fn of(tokenizer: &Tokenizer, described: &Map<String, Value>) -> Result<String> {
    let hash = hash(tokenizer)?;
    if let Some((_, name)) = HASHES.iter().find(|(known, _)| *known == hash) {
        return Ok((*name).to_owned());
    }
    by_pattern(described).map(str::to_owned).ok_or_else(|| {
        let splits = described.get("pre_tokenizer").map_or_else(|| "nothing".to_owned(), Value::to_string);
        let what = format!("the tokenizer splits text in a way that llama.cpp has no name for: {splits}");
        PluginError::new(codes::PRE_TOKENIZER_UNKNOWN, what).help(
            "set `pre` to llama.cpp's name for it, for example llama-bpe, if you know one that does the same",
        )
    })
}

/// The hash of what the tokenizer makes of the known text.
pub(super) fn hash(tokenizer: &Tokenizer) -> Result<String> {
    let encoded = tokenizer.encode(CHECK_TEXT, true);
    let encoded = encoded.map_err(|e| error::tokenizer(format!("does not encode a text: {e}")))?;
    let ids: Vec<String> = encoded.get_ids().iter().map(u32::to_string).collect();
    let digest = Sha256::digest(format!("[{}]", ids.join(", ")));
    Ok(digest.iter().map(|b| format!("{b:02x}")).collect())
}

/// The name that belongs to the tokenizer's pattern.
fn by_pattern(described: &Map<String, Value>) -> Option<&'static str> {
    let model = described.get("model")?;
    if model.get("type")?.as_str()? == "WordPiece" {
        // llama.cpp splits words for it by rules of its own, and asks for no name in particular.
        return Some("bert-bge");
    }
    let first = described.get("pre_tokenizer")?;
    let parts: Vec<&Value> = match first.get("pretokenizers").and_then(Value::as_array) {
        Some(parts) => parts.iter().collect(),
        None => vec![first],
    };
    let kind = |part: &Value| part.get("type").and_then(Value::as_str).map(str::to_owned);
    let kinds: Vec<String> = parts.iter().filter_map(|p| kind(p)).collect();
    match kinds.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ByteLevel"] if parts[0].get("use_regex").and_then(Value::as_bool) != Some(false) => Some("gpt-2"),
        ["Split", "ByteLevel"] => {
            let pattern = parts[0].get("pattern")?.get("Regex")?.as_str()?;
            let isolated = parts[0].get("behavior")?.as_str()? == "Isolated";
            let inverted = parts[0].get("invert").and_then(Value::as_bool) == Some(true);
            let twice = parts[1].get("use_regex").and_then(Value::as_bool) != Some(false);
            let known = PATTERNS.iter().find(|(known, _)| *known == pattern)?;
            (isolated && !inverted && !twice).then_some(known.1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(pre_tokenizer: Value) -> Option<&'static str> {
        let described = json!({"model": {"type": "BPE"}, "pre_tokenizer": pre_tokenizer});
        by_pattern(described.as_object().unwrap())
    }

    #[test]
    fn patterns_have_names() {
        for (pattern, wanted) in PATTERNS {
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            let bytes = json!({"type": "ByteLevel", "use_regex": false});
            assert_eq!(name(json!({"type": "Sequence", "pretokenizers": [split, bytes]})), Some(*wanted));
        }
        assert_eq!(name(json!({"type": "ByteLevel", "use_regex": true})), Some("gpt-2"));
        assert_eq!(name(json!({"type": "ByteLevel", "use_regex": false})), None);
        assert_eq!(name(json!({"type": "Whitespace"})), None);
    }

    /// A published tokenizer, where the test data beside the repository is at hand.
    #[test]
    fn a_published_tokenizer_is_known_by_its_hash() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/assets/tokenizers/roberta-base");
        let path = std::path::Path::new(folder).join("tokenizer.json");
        if !path.is_file() {
            eprintln!("skipped: no {}", path.display());
            return;
        }
        let tokenizer = Tokenizer::from_file(path).unwrap();
        assert_eq!(of(&tokenizer, &Map::new()).unwrap(), "roberta-bpe");
    }

    #[test]
    fn hashes_are_hashes() {
        for (hash, name) in HASHES {
            assert!(hash.len() == 64 && !name.is_empty(), "{hash} {name}");
        }
    }
}
