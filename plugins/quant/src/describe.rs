//! The extension `pajamas.describe/1`: what a source model is, without a look at its weights' values.

use std::path::{Path, PathBuf};

use pajamas_llama_cpp::gguf::Value as Entry;
use pajamas_plugin_api::{Cancel, EventSink, Extension, NamedTensor, PluginError, Result, TensorSink, codes};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::architecture::{Advice, Facts};
use crate::error;
use crate::quantize::{FileType, whole_header};
use crate::source::Source;

/// The extension's name.
pub(crate) const NAME: &str = "pajamas.describe/1";

/// `{"source": PATH}` in; out what [`of`] says.
pub(crate) struct Describe;

#[derive(Deserialize)]
struct Call {
    source: PathBuf,
}

impl Extension for Describe {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: Call = serde_json::from_slice(input)
            .map_err(|e| PluginError::invalid_input(format!("the call of {NAME}: {e}")))?;
        serde_json::to_vec(&of(&call.source)?).map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))
    }
}

/// What a folder or a GGUF file holds: its facts, with `format`, `task`, `precision` and `file_bytes` beside them.
///
/// # Errors
/// `model-not-found`, `model-invalid`; those of [`Source::open`] and [`Facts::of`].
pub(crate) fn of(path: &Path) -> Result<Value> {
    error::must_exist(path)?;
    let (facts, mut more) = if path.is_file() { of_file(path)? } else { of_folder(path)? };
    more["advice"] = serde_json::to_value(Advice::of(&facts, more["file_bytes"].as_u64().unwrap_or(0)))
        .map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))?;
    let mut facts =
        serde_json::to_value(facts).map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))?;
    if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
        facts.extend(more);
    }
    Ok(facts)
}

fn of_folder(path: &Path) -> Result<(Facts, Value)> {
    let source = Source::open(path)?;
    let facts = Facts::of(&source)?;
    let class = source.json("tokenizer_config.json", error::codes::TOKENIZER_INVALID)?.unwrap_or_default();
    let chats = class.get("chat_template").is_some_and(|t| !t.is_null())
        || source.path("chat_template.jinja").is_file();
    let mut types: Vec<&str> = source.weights.iter().map(|t| t.info.dtype.name()).collect();
    types.sort_unstable();
    types.dedup();
    let more = json!({
        "format": "huggingface",
        "name": source.name(),
        "task": task(&facts, chats),
        "precision": types.join(", "),
        "file_bytes": source.weights.bytes(),
    });
    Ok((facts, more))
}

fn of_file(path: &Path) -> Result<(Facts, Value)> {
    let header = whole_header(path)?;
    let facts = Facts::of_gguf(&header)?;
    let number = header.value("general.file_type").and_then(Entry::as_u64);
    let name = header.value("general.name").and_then(Entry::as_text);
    let more = json!({
        "format": "gguf",
        "name": name,
        "task": task(&facts, header.value("tokenizer.chat_template").is_some()),
        "precision": number.and_then(FileType::from_number).map(FileType::name),
        "file_bytes": header.file_bytes,
    });
    Ok((facts, more))
}

/// What the model is for.
fn task(facts: &Facts, chats: bool) -> &'static str {
    match facts.family {
        crate::architecture::Family::Encoder => "embed",
        _ if chats => "chat",
        _ => "generate",
    }
}
