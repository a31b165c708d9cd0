//! A model to measure, whatever it is kept as: llama.cpp gets a GGUF file, which folders become for the time of the run.

use std::path::Path;
use std::sync::Arc;

use pajamas_llama_cpp::gguf::{Header, Value};
use pajamas_llama_cpp::{Error, Level, Library, Model, ModelParams};
use pajamas_plugin_api::{Cancel, HostContext, Level as HostLevel, PluginError, Result, codes};
use serde::Serialize;

use crate::convert::{Conversion, OutType};
use crate::error::{self, codes as own};
use crate::mlx;
use crate::quantize::whole_header;
use crate::source::{Dtype, Source};

/// The folder beside the plugin in which llama.cpp's libraries lie.
const LIBRARY_FOLDER: &str = "llama";

/// How large a model is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Size {
    /// Bytes of its tensors.
    tensor_bytes: u64,
    /// Bits that a weight takes on average.
    bits_per_weight: f64,
}

/// How many bits the numbers of a tensor take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorBits {
    /// Its name in a GGUF file; in an MLX folder, its own.
    pub name: String,
    /// How it is stored.
    #[serde(rename = "type")]
    pub stored: String,
    /// Its numbers.
    pub elements: u64,
    /// Bits of each, scales and the like counted in.
    pub bits: f64,
}

/// A model that was loaded.
pub(super) struct Loaded {
    pub model: Arc<Model>,
    pub size: Size,
    pub tensors: Vec<TensorBits>,
    /// How many experts a layer has; 0 for a model without.
    pub experts: u64,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Loaded {
    /// Loads the model at `path`. Folders are made into a file called `name` in `scratch`.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`, `unsupported` for a model that writes no text, those of a conversion,
    /// `out-of-memory`, `cancelled`.
    pub fn open(library: &Library, path: &Path, scratch: &Path, name: &str, cancel: &Cancel) -> Result<Self> {
        let mut notes = Vec::new();
        let mut tensors = None;
        let mut made = None;
        if path.is_dir() {
            let file = scratch.join(format!("{name}.gguf"));
            if let Some(folder) = mlx::Folder::open(path)? {
                let plain = scratch.join(format!("{name}-plain"));
                tensors = Some(folder.tensors());
                folder.restore(&plain, cancel)?;
                convert(&plain, &file, OutType::F32, cancel)?;
                // Its space is wanted by nobody any more; what stays goes with the caller's folder.
                let _ = std::fs::remove_dir_all(&plain);
                notes.push(format!("the {name} is an MLX folder: its numbers were measured in llama.cpp"));
            } else {
                let source = Source::open(path)?;
                let kept = stored(&source);
                drop(source);
                convert(path, &file, kept, cancel)?;
                notes.push(format!("the {name} was converted to {} for the measurement", kept.name()));
            }
            made = Some(file);
        }
        let file = made.as_deref().unwrap_or(path);
        let header = open_header(file)?;
        let tensors = tensors.unwrap_or_else(|| bits(&header));
        let experts = header.family_u64("expert_count").unwrap_or(0);
        let load = || Model::load(library, file, &ModelParams::default(), &mut |_| !cancel.is_cancelled());
        let model = Arc::new(load().map_err(refused)?);
        if let Some(file) = &made {
            // On systems that let go of names, the space is free as soon as the model is.
            let _ = std::fs::remove_file(file);
        }
        Ok(Self { model, size: size(&tensors), tensors, experts, notes })
    }
}

/// llama.cpp, ready to compute.
///
/// # Errors
/// `backend-unavailable`.
pub(crate) fn library(host: &HostContext) -> Result<&'static Library> {
    let log = host.clone();
    let opened = Library::open(&host.plugin_dir().join(LIBRARY_FOLDER), move |level, line| {
        // What fails is said by the call's own error.
        match level {
            Level::Error | Level::Warn => log.log(HostLevel::Info, line),
            Level::Info => log.log(HostLevel::Debug, line),
            Level::Debug => {}
        }
    });
    opened.map_err(refused)
}

/// llama.cpp's failures in the words of the plugin API.
pub(super) fn refused(error: Error) -> PluginError {
    let message = error.to_string();
    let (code, help) = match &error {
        Error::Cancelled => return PluginError::cancelled(),
        Error::LibraryFolder { .. } | Error::NoCpuLibrary { .. } => {
            (own::BACKEND_UNAVAILABLE, "reinstall the plugin `quant` together with its folder `llama`")
        }
        Error::OutOfMemory { .. } => {
            (codes::OUT_OF_MEMORY, "both models must fit: measure on a machine with more memory")
        }
        Error::Load { .. } | Error::File { .. } => {
            (codes::MODEL_INVALID, "the file may be damaged, or of an architecture newer than this llama.cpp")
        }
        Error::NoVocabulary | Error::VocabularyOnly => {
            (codes::UNSUPPORTED, "measure a model with weights and a tokenizer")
        }
        Error::Text | Error::UnknownToken { .. } => (codes::INVALID_INPUT, ""),
        _ => (codes::INTERNAL, ""),
    };
    PluginError::new(code, message).help(help)
}

fn open_header(path: &Path) -> Result<Header> {
    error::must_exist(path)?;
    let header = whole_header(path)?;
    header.check_model().map_err(|e| error::at(codes::MODEL_INVALID, path, e))?;
    let causal = header.architecture().map(|a| format!("{a}.attention.causal"));
    if causal.and_then(|key| header.value(&key)) == Some(&Value::Bool(false))
        || matches!(header.architecture(), Some("t5" | "t5encoder"))
    {
        return Err(error::at(codes::UNSUPPORTED, path, "predicts no next token: there is nothing to score"));
    }
    Ok(header)
}

/// The type that a folder's numbers are kept in; 32 bits where there are several.
fn stored(source: &Source) -> OutType {
    let all = |dtype: Dtype| source.weights.iter().all(|t| t.info.dtype == dtype);
    match () {
        () if all(Dtype::BF16) => OutType::Bf16,
        () if all(Dtype::F16) => OutType::F16,
        () => OutType::F32,
    }
}

fn convert(folder: &Path, file: &Path, to: OutType, cancel: &Cancel) -> Result<()> {
    let source = Source::open(folder)?;
    let conversion = Conversion::plan(&source, to, None)?;
    conversion.write(file, cancel, &mut |_, _, _| Ok(())).map(drop)
}

fn bits(header: &Header) -> Vec<TensorBits> {
    let of = |tensor: &pajamas_llama_cpp::gguf::TensorInfo| TensorBits {
        name: tensor.name.clone(),
        stored: tensor.tensor_type.name().to_owned(),
        elements: tensor.elements(),
        bits: tensor.bytes as f64 * 8.0 / tensor.elements().max(1) as f64,
    };
    header.tensors.iter().map(of).collect()
}

fn size(tensors: &[TensorBits]) -> Size {
    let elements: u64 = tensors.iter().map(|t| t.elements).sum();
    let bits: f64 = tensors.iter().map(|t| t.bits * t.elements as f64).sum();
    Size { tensor_bytes: (bits / 8.0).round() as u64, bits_per_weight: bits / elements.max(1) as f64 }
}
