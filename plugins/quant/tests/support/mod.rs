//! Models of every family, small and random, the same on every machine: what a file made of them must be was
//! recorded from llama.cpp's own converter (tests/peers/gguf_parity.py).

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses its part, and all are helpers of tests")]

pub mod families;
pub mod gguf;
pub mod mlx;
pub mod plan;
pub mod tokenizers;
pub mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weights::Tensor;

/// A model.
pub struct Model {
    /// The folder's name, which names the model.
    pub name: &'static str,
    /// `config.json`.
    pub config: Value,
    /// Its tensors.
    pub tensors: Vec<Tensor>,
    /// In how many files they lie.
    pub shards: usize,
    /// Other files, by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// What llama.cpp's converter has to be told about the splitting of text, since it knows published tokenizers only.
    pub pre: Option<&'static str>,
}

impl Model {
    /// Writes the model into a folder of its name below `parent`.
    pub fn write(&self, parent: &Path) -> PathBuf {
        let folder = parent.join(self.name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), pretty(&self.config)).unwrap();
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        weights::write(&folder, &self.tensors, self.shards);
        folder
    }
}

/// JSON as a file.
pub fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap()
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}
