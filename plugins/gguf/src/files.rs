//! The files of a model, checked before llama.cpp opens them.

use std::path::Path;

use pajamas_llama_cpp::Error;
use pajamas_llama_cpp::gguf::{self, Header, Value};
use pajamas_plugin_api::{PluginError, Result, codes};

use crate::error::plugin_error;

/// llama.cpp's number for the pooling `rank`.
const POOLING_RANK: u64 = 4;

/// The checked headers of a model: one, or as many as the parts it was split into.
pub(crate) struct ModelFiles {
    headers: Vec<Header>,
}

impl ModelFiles {
    /// Reads and checks every part of a model.
    ///
    /// # Errors
    /// `model-not-found` naming the missing part, `model-invalid`.
    pub fn open(path: &Path) -> Result<Self> {
        let first = open_header(path)?;
        first.check_model().map_err(|source| plugin_error(Error::File { path: path.to_owned(), source }))?;
        let parts = first
            .parts(path)
            .map_err(|source| plugin_error(Error::File { path: path.to_owned(), source }))?;
        let mut headers = vec![first];
        for part in &parts[1..] {
            headers.push(open_header(part)?);
        }
        Ok(Self { headers })
    }

    /// Checks that a file is an adapter for this model, and returns the bytes of its tensors.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`.
    pub fn check_adapter(&self, path: &Path) -> Result<u64> {
        let header = open_header(path)?;
        header.check_adapter(&self.headers).map_err(|source| {
            plugin_error(Error::File { path: path.to_owned(), source })
                .help("use an adapter that was made for this model, converted to GGUF")
        })?;
        Ok(header.data_bytes())
    }

    /// The header with the model's metadata.
    pub fn main(&self) -> &Header {
        &self.headers[0]
    }

    /// Whether there are weights at all; vocabularies alone are files too.
    pub fn has_weights(&self) -> bool {
        self.headers.iter().any(|h| !h.tensors.is_empty())
    }

    /// Bytes of tensor data in all parts.
    pub fn data_bytes(&self) -> u64 {
        self.headers.iter().map(Header::data_bytes).sum()
    }

    /// The context the model was trained with.
    pub fn context_train(&self) -> Option<u32> {
        self.main().family_u64("context_length").and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
    }

    /// Whether the model sees a whole text at once (an encoder such as BERT).
    pub fn is_encoder(&self) -> bool {
        let header = self.main();
        let key = header.architecture().map(|a| format!("{a}.attention.causal"));
        key.and_then(|k| header.value(&k)).is_some_and(|v| *v == Value::Bool(false))
    }

    /// Whether the model was made to embed texts.
    pub fn is_embedder(&self) -> bool {
        self.is_encoder() || self.main().family_u64("pooling_type").is_some_and(|p| p > 0)
    }

    /// Whether the model was made to score pairs of texts.
    pub fn is_ranker(&self) -> bool {
        self.main().family_u64("pooling_type") == Some(POOLING_RANK)
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> u64 {
        self.list_len("tokenizer.ggml.tokens").max(self.main().family_u64("vocab_size").unwrap_or(0))
    }

    /// The length of a list in the metadata.
    pub fn list_len(&self, key: &str) -> u64 {
        match self.main().value(key) {
            Some(Value::Array(array)) => array.len,
            _ => 0,
        }
    }
}

fn open_header(path: &Path) -> Result<Header> {
    if path.is_dir() {
        return Err(PluginError::new(codes::MODEL_NOT_FOUND, format!("{}: is a folder", path.display()))
            .help("name the .gguf file in it"));
    }
    Header::open(path)
        .map_err(|source: gguf::Error| plugin_error(Error::File { path: path.to_owned(), source }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_missing_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let error = ModelFiles::open(folder.path()).err().unwrap();
        assert!(error.message.contains("is a folder"), "{error}");
        let error = ModelFiles::open(&folder.path().join("none.gguf")).err().unwrap();
        assert_eq!(error.code, codes::MODEL_NOT_FOUND);
        std::fs::write(folder.path().join("zero.gguf"), b"").unwrap();
        let error = ModelFiles::open(&folder.path().join("zero.gguf")).err().unwrap();
        assert_eq!(error.code, codes::MODEL_INVALID);
        assert!(error.message.contains("empty"), "{error}");
    }
}
