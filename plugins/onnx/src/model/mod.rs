//! What a model file says about itself, read without any runtime and before any runtime touches it.
//!
//! An ONNX file has no magic number and no checksum: that it parses as a `ModelProto`, that every length fits and
//! that every initializer holds as many bytes as its shape needs is all there is to verify. The same pass yields
//! the signature, the metadata and the memory that the model will need.

mod graph;
mod liveness;
mod protobuf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Component, Path};

use pajamas_plugin_api::{Dim, Result};

use crate::error;
use graph::{External, Parser};
use protobuf::Fault;

/// The name of a dynamic dimension to which the model gives none. Two of them are not the same dimension.
pub(crate) const UNNAMED: &str = "?";

/// An input or output as the file declares it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// `None` when the file says nothing, not even the rank.
    pub(crate) shape: Option<Vec<Dim>>,
}

/// What an input or output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tensor with this ONNX element type; 0 when the file does not say.
    Tensor(i32),
    /// Something that is no dense tensor: `sequence`, `map` …
    Other(&'static str),
}

/// What a model file says about itself.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) inputs: Vec<Declared>,
    pub(crate) outputs: Vec<Declared>,
    /// The `metadata_props`.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Bytes of all initializers and constants, in the widths of the engine that asked.
    pub(crate) weights: u64,
    /// Bytes of the intermediate tensors at the fullest moment of a run in file order, as far as the file states
    /// their shapes, a dynamic dimension counting as 1.
    pub(crate) activations: u64,
    /// Further files that hold tensors, relative to the model's folder, in which they lie.
    pub(crate) external: BTreeSet<String>,
    /// How often each operator occurs, inner graphs included.
    pub(crate) operators: BTreeMap<String, usize>,
}

impl Summary {
    /// Reads and verifies the file at `path`. `bits` says how many bits an engine spends on one element of an
    /// ONNX type: engines that widen `float16` need more memory than the file.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`.
    pub(crate) fn read(path: &Path, bits: fn(i32) -> u64) -> Result<Self> {
        let file = File::open(path).map_err(|e| error::not_found(path, &e))?;
        let about = file.metadata().map_err(|e| error::not_found(path, &e))?;
        if about.is_dir() {
            return Err(error::not_found(path, &std::io::Error::other("is a folder, not a model file")));
        }
        if about.len() == 0 {
            return Err(error::invalid(path, "the file is empty (0 bytes)"));
        }
        Self::parse(file, about.len(), path, bits)
    }

    /// Reads and verifies a model of `length` bytes that stands for the file at `path`.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`.
    pub(crate) fn parse(
        source: impl Read + Seek,
        length: u64,
        path: &Path,
        bits: fn(i32) -> u64,
    ) -> Result<Self> {
        let mut parser = Parser::new(source, length, bits);
        let model = parser.model(length).map_err(|fault| match fault {
            Fault::Io(e) => error::not_found(path, &e),
            fault => error::invalid(path, explain(path, &fault)),
        })?;
        for external in &parser.external {
            verify_external(path, external).map_err(|what| error::invalid(path, what))?;
        }
        let activations = liveness::peak(&model.graph, bits);
        let graph::Graph { inputs, outputs, initializers, .. } = model.graph;
        // Up to IR version 3 every initializer is also listed as an input, later ones may be: they have a value.
        let inputs = inputs.into_iter().filter(|input| !initializers.contains(&input.name)).collect();
        let external = parser.external.into_iter().map(|external| external.location).collect();
        let (metadata, weights) = (model.metadata, parser.weights);
        Ok(Self { inputs, outputs, metadata, weights, activations, external, operators: parser.operators })
    }
}

/// A fault in words; when the file is obviously something else, says what.
fn explain(path: &Path, fault: &Fault) -> String {
    const OTHERS: &[(&[u8], &str)] = &[
        (b"GGUF", "a GGUF file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"ORTM", "an ONNX Runtime flatbuffer"),
        (b"RTEN", "an rten model"),
        (b"\x7fELF", "an ELF program or library"),
        (b"\x89HDF", "an HDF5 file"),
        (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` fetches the model itself"),
        (b"{", "JSON text"),
        (b"<", "markup text"),
    ];
    let mut head = Vec::new();
    // A file that cannot be read again is explained by the fault alone.
    let _ = File::open(path).and_then(|file| file.take(32).read_to_end(&mut head));
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return format!("not an ONNX model: it is {what}");
    }
    // The upper bits of the first byte number the first field; a model begins with one of the first eight.
    match (head.first().map(|tag| tag >> 3), fault) {
        (Some(9..), Fault::Truncated { .. }) => "not an ONNX model: it does not begin like one".to_owned(),
        _ => fault.to_string(),
    }
}

/// Checks that a tensor kept outside the model file is there, in the model's own folder, and long enough.
fn verify_external(model: &Path, external: &External) -> Result<(), String> {
    let External { tensor, location, offset, length } = external;
    let relative = Path::new(location);
    if location.is_empty()
        || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!("the data of `{tensor}` lies at `{location}`, outside the model's folder"));
    }
    let file = model.parent().unwrap_or(Path::new("")).join(relative);
    let has = match std::fs::metadata(&file) {
        Ok(about) if about.is_file() => about.len(),
        _ => return Err(format!("the data of `{tensor}` is missing: there is no file {}", file.display())),
    };
    let needs = offset.saturating_add(*length);
    if needs > has {
        return Err(format!(
            "the data of `{tensor}` is truncated: it ends at byte {needs} of {}, which has {has}",
            file.display()
        ));
    }
    Ok(())
}
