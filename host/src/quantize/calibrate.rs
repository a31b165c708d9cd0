//! Importance matrices: which columns of a model matter, found out by a plugin that computes texts with it.
//!
//! What is computed and how is the plugin's business: it is asked through the extension of its quantizer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, Extension};
use serde::Serialize;
use serde_json::{Value, json};

use super::origin;
use crate::artifact::{Manifest, describe_file};
use crate::error::{Error, Result};
use crate::plugins::{Plugins, extension};

/// The extension of quantizers that calibrate.
const CALIBRATE: &str = "pajamas.calibrate/1";

/// A model to calibrate, and the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Calibration {
    /// A Hugging Face folder, a model file, or an artifact, whose first form it then is.
    pub source: PathBuf,
    /// Text files.
    pub texts: Vec<PathBuf>,
    /// Domains that the plugin brings along.
    pub domains: Vec<String>,
    /// Whether the last fifth of the files is left for judging what is made.
    pub hold_out: bool,
    /// The file to write.
    pub output: PathBuf,
    /// The most pieces of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Tokens of a piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_size: Option<u32>,
    /// Threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Whether to go on where a run was stopped.
    pub resume: bool,
    /// Whether experts that few tokens reach are given more text.
    pub balance: bool,
}

/// What is told while a model is calibrated: how far it is (0 to 1), and a few words.
pub type Progress<'p> = dyn FnMut(f32, &str) -> ControlFlow<()> + 'p;

impl Calibration {
    /// Calibrates, and returns what the plugin says of it.
    ///
    /// # Errors
    /// `quantizer-not-found`; `model-not-found` and those of artifacts; the plugin's own, of which
    /// `calibration-too-short` and `cancelled` are the common ones.
    pub fn run(&self, plugins: &Plugins, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Value> {
        let origin = origin::of(&self.source)?;
        let extension =
            plugins.extension_of_quantizer(CALIBRATE, |q| q.info.sources.contains(&origin.format));
        let source = Self { source: origin.path, ..self.clone() };
        let mut call = serde_json::to_value(source).map_err(|e| Error::new("internal", e.to_string()))?;
        call["do"] = "collect".into();
        ask(extension, &call, progress, cancel)
    }
}

/// Adds matrices of one model, and returns what the plugin says of the sum.
///
/// # Errors
/// `quantizer-not-found`; `importance-invalid`, `importance-mismatch`.
pub fn merge(files: &[PathBuf], output: &Path, plugins: &Plugins) -> Result<Value> {
    let call = json!({ "do": "merge", "files": files, "output": output });
    ask(any(plugins), &call, &mut extension::silent, &Cancel::new())
}

/// What a matrix says of its model.
///
/// # Errors
/// `quantizer-not-found`; `importance-invalid`.
pub fn statistics(file: &Path, plugins: &Plugins) -> Result<Value> {
    ask(any(plugins), &json!({ "do": "show", "file": file }), &mut extension::silent, &Cancel::new())
}

/// The names of the domains that plugins bring along.
///
/// # Errors
/// `quantizer-not-found`.
pub fn domains(plugins: &Plugins) -> Result<Vec<String>> {
    let answer = ask(any(plugins), &json!({ "do": "domains" }), &mut extension::silent, &Cancel::new())?;
    let names = answer["domains"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(names.map(str::to_owned).collect())
}

/// Enters a file that lies in an artifact's folder into its manifest.
///
/// # Errors
/// `manifest-missing`, `manifest-invalid`, `io`.
pub fn enter(artifact: &Path, file: &str) -> Result<()> {
    let mut manifest = Manifest::read(artifact)?;
    let entry = describe_file(artifact, file, |_| Ok(()))?;
    if manifest.files.contains(&entry) {
        return Ok(());
    }
    manifest.files.retain(|known| known.path != file);
    manifest.files.push(entry);
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    manifest.write(artifact)
}

fn any(plugins: &Plugins) -> Option<Box<dyn Extension>> {
    plugins.extension_of_quantizer(CALIBRATE, |_| true)
}

fn ask(
    extension: Option<Box<dyn Extension>>,
    call: &Value,
    progress: &mut Progress<'_>,
    cancel: &Cancel,
) -> Result<Value> {
    let Some(extension) = extension else {
        return Err(Error::new("quantizer-not-found", "no plugin calibrates such models")
            .help("install the plugin `quant`; `pajamas plugins list` says where plugins are searched"));
    };
    extension::call(&*extension, call, progress, cancel)
}
