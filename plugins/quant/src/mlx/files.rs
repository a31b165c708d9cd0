//! What lies beside the weights: the index, the tokenizer's files as they are, and, last of all, the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{OutputFile, PluginError, Result, codes as shared};
use serde::Serialize;
use serde_json::{Map, Value};

use super::drafts::{self, Drafts};
use super::plan::{Plan, Shard};
use crate::error::{self, codes};
use crate::source::Source;

/// Files of tokenizers, and of how to generate.
const COPIED: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
];

/// Files beside the weights.
#[derive(Debug)]
pub(super) struct Files {
    /// Names, and what stands in them.
    texts: Vec<(&'static str, Vec<u8>)>,
    /// Paths of files that are copied, with their sizes.
    copies: Vec<(&'static str, PathBuf, u64)>,
}

impl Files {
    /// Prepares them.
    ///
    /// # Errors
    /// `tokenizer-missing`; `source-not-found` when a file cannot be read.
    pub fn of(source: &Source, plan: &Plan<'_>, config: Map<String, Value>) -> Result<Self> {
        let mut copies = Vec::new();
        for name in COPIED {
            let path = source.path(name);
            if path.is_file() {
                let bytes = fs::metadata(&path).map_err(|e| error::unreadable(&path, &e))?.len();
                copies.push((name, path, bytes));
            }
        }
        let has = |name: &str| copies.iter().any(|c| c.0 == name);
        if !(has("tokenizer.json") || has("tokenizer.model") || has("vocab.json") && has("merges.txt")) {
            let what = "holds neither tokenizer.json nor tokenizer.model: mlx_lm loads no model without them";
            return Err(error::at(codes::TOKENIZER_MISSING, source.folder(), what)
                .help("copy the tokenizer's files from the original model"));
        }
        let texts = vec![
            ("model.safetensors.index.json", pretty(&plan.index)?),
            ("config.json", pretty(&Value::Object(config))?),
        ];
        Ok(Self { texts, copies })
    }

    /// Names and sizes.
    pub fn listed(&self) -> impl Iterator<Item = OutputFile> {
        let copies = self.copies.iter().map(|(name, _, bytes)| (*name, *bytes));
        let texts = self.texts.iter().map(|(name, text)| (*name, text.len() as u64));
        copies.chain(texts).map(|(name, bytes)| OutputFile { path: name.into(), bytes })
    }

    /// Bytes of what is in memory, and of the largest that will be.
    pub fn bytes_in_memory(&self) -> u64 {
        let texts: usize = self.texts.iter().map(|(_, text)| text.len()).sum();
        texts as u64 + self.copies.iter().map(|c| c.2).max().unwrap_or(0)
    }

    /// Writes them. A folder with config.json has all the rest.
    ///
    /// # Errors
    /// `source-not-found`, `write-failed`.
    pub fn write(&self, drafts: &mut Drafts) -> Result<()> {
        for (name, path, _) in &self.copies {
            let bytes = fs::read(path).map_err(|e| error::unreadable(path, &e))?;
            write(drafts, name, &bytes)?;
        }
        self.texts.iter().try_for_each(|(name, text)| write(drafts, name, text))
    }
}

fn write(drafts: &mut Drafts, name: &str, bytes: &[u8]) -> Result<()> {
    let file = drafts.begin(name, bytes.len() as u64)?;
    drafts::write_at(file, bytes, 0).map_err(|e| error::unwritable(Path::new(name), &e))
}

/// JSON as Python's `json.dump(…, indent=4)` lays it out.
fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let four = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, four));
    written.map_err(|e| PluginError::new(shared::INTERNAL, format!("JSON: {e}")))?;
    Ok(text)
}

/// Refuses a folder with weights of another run: mlx_lm loads every `model*.safetensors` that it finds.
pub(super) fn refuse_strangers(folder: &Path, shards: &[Shard]) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let weights = name.starts_with("model") && name.ends_with(".safetensors");
        if weights && !shards.iter().any(|s| s.name == name) {
            let what = format!("holds {name} of another model, which mlx_lm would load too");
            return Err(error::at(codes::WRITE_FAILED, folder, what).help("give an empty folder"));
        }
    }
    Ok(())
}
