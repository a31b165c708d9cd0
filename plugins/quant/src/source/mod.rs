//! A model as Hugging Face keeps it: a folder with `config.json`, weights and a tokenizer.

mod config;
mod dtype;
pub mod safetensors;
mod weights;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use config::Config;
pub use dtype::Dtype;
pub use weights::{View, Weights};

use crate::error::{self, Result, codes};

/// The largest text file of a model that is read: tokenizers of large vocabularies take some 35 MB.
const MAX_TEXT_BYTES: u64 = 512 << 20;

/// A folder that was opened: configuration read, headers of the weights checked.
#[derive(Debug)]
pub struct Source {
    folder: PathBuf,
    /// `config.json`, with the defaults of its family.
    pub config: Config,
    /// The tensors.
    pub weights: Weights,
}

impl Source {
    /// Opens a folder.
    ///
    /// # Errors
    /// `source-not-found` and `model-config-invalid`; those of [`Weights::open`].
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(error::at(codes::SOURCE_NOT_FOUND, folder, "is no folder")
                .help("give the folder that config.json and the weights lie in"));
        }
        let folder = fs::canonicalize(folder).map_err(|e| error::unreadable(folder, &e))?;
        let path = folder.join("config.json");
        let Some(config) = read_object(&path, codes::CONFIG_INVALID)? else {
            return Err(error::at(codes::SOURCE_NOT_FOUND, &folder, "holds no config.json")
                .help("give the folder of a Hugging Face model"));
        };
        Ok(Self { config: Config::new(config)?, weights: Weights::open(&folder)?, folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder's own name, from which a model without another takes its; in a hub's cache, where folders are named by
    /// commits, the repository's.
    pub fn name(&self) -> String {
        let text = |part: Option<&OsStr>| part.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        repository(&self.folder).unwrap_or_else(|| text(self.folder.file_name()))
    }

    /// Whether the weights hold the output only, and the configuration says that the embeddings are the same.
    pub fn output_is_embeddings(&self) -> bool {
        let has = |end: &str| self.weights.iter().any(|t| t.info.name.ends_with(end));
        self.config.flag("tie_word_embeddings") == Some(true)
            && has("lm_head.weight")
            && !has("embed_tokens.weight")
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An object in a JSON file of the folder; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read or is no object, with the code of the caller.
    pub fn json(&self, name: &str, code: &'static str) -> Result<Option<Map<String, Value>>> {
        read_object(&self.path(name), code)
    }

    /// A text file of the folder; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is no UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.path(name);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|e| error::at(codes::SOURCE_NOT_FOUND, &path, format!("is no UTF-8: {e}")))
    }

    /// A file of the folder; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read(&self.path(name))
    }
}

/// The name of the repository that a folder of the cache is a commit of: `models--ORG--NAME/snapshots/COMMIT`.
fn repository(folder: &Path) -> Option<String> {
    let commit = folder.file_name()?.to_str()?;
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    let is = commit.len() == 40
        && commit.bytes().all(|b| b.is_ascii_hexdigit())
        && snapshots.file_name().is_some_and(|name| name == "snapshots");
    is.then(|| repository.rsplit("--").next().unwrap_or(repository).to_owned())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Ok(about) = fs::metadata(path) else { return Ok(None) };
    if !about.is_file() {
        return Ok(None);
    }
    if about.len() > MAX_TEXT_BYTES {
        let what = format!("has {} bytes, more than {MAX_TEXT_BYTES}", about.len());
        return Err(error::at(codes::SOURCE_NOT_FOUND, path, what));
    }
    fs::read(path).map(Some).map_err(|e| error::unreadable(path, &e))
}

fn read_object(path: &Path, code: &'static str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let object = serde_json::from_slice(&bytes);
    object.map(Some).map_err(|e| error::at(code, path, format!("is no JSON object: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_of_a_cache_is_named_after_its_repository() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let of = |path: String| repository(Path::new(&path));
        assert_eq!(of(format!("/c/models--org--Some-1B/snapshots/{commit}")).as_deref(), Some("Some-1B"));
        assert_eq!(of(format!("/c/models--gpt2/snapshots/{commit}")).as_deref(), Some("gpt2"));
        assert_eq!(of(format!("/c/models--org--name/elsewhere/{commit}")), None);
        assert_eq!(of("/c/models--org--name/snapshots/main".into()), None);
        assert_eq!(of("/models/Some-1B".into()), None);
    }
}
