//! What is quantized, and what is known of it.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;
use serde_json::{Value, json};

use crate::artifact::{MANIFEST, Source, Wanted};
use crate::error::{Error, Result};
use crate::plugins::{ActiveQuantizer, Plugins, extension};

/// The extension of quantizers that describe what they read.
const DESCRIBE: &str = "pajamas.describe/1";

/// The file that tells a Hugging Face folder.
const HUGGING_FACE: &str = "config.json";

/// A source model.
pub(super) struct Origin {
    /// `huggingface`, or a model file's format.
    pub format: String,
    /// The folder or the file that quantizers are given.
    pub path: PathBuf,
}

/// What lies at `path`: a Hugging Face folder, an artifact (its first form), or a model file.
///
/// # Errors
/// `model-not-found`, `model-invalid`, and those of artifacts.
pub(super) fn of(path: &Path) -> Result<Origin> {
    if path.is_dir() && !path.join(MANIFEST).is_file() && path.join(HUGGING_FACE).is_file() {
        return Ok(Origin { format: "huggingface".into(), path: path.to_owned() });
    }
    let source = Source::open(path).map_err(|error| match error.code() {
        "manifest-missing" => {
            let message = format!("{}: neither {HUGGING_FACE} nor {MANIFEST} is in it", path.display());
            Error::new("model-not-found", message)
                .help("name a Hugging Face model's folder, an artifact's folder, or a model file")
        }
        "model-not-found" => {
            let help = error.how_to_fix().to_owned();
            Error::new(error.code(), format!("{}, and no repository is named so", error.message()))
                .help(format!("{help}; a model of Hugging Face is named org/name"))
        }
        _ => error,
    })?;
    let variant = source.pick(Wanted::default())?;
    Ok(Origin { format: variant.format, path: variant.path })
}

/// What is known of the model at `path`, as whoever reads its format describes it.
///
/// # Errors
/// Those of opening it; `quantizer-not-found` when no plugin describes such a source; the plugin's own.
pub fn describe(path: &Path, plugins: &Plugins) -> Result<Value> {
    let origin = of(path)?;
    let reads = |q: &ActiveQuantizer| q.info.sources.contains(&origin.format);
    let Some(extension) = plugins.extension_of_quantizer(DESCRIBE, reads) else {
        let message = format!("{}: no plugin describes {} models", path.display(), origin.format);
        return Err(Error::new("quantizer-not-found", message)
            .help("install the plugin `quant`; `pajamas plugins list` says where plugins are searched"));
    };
    let asked = json!({ "source": origin.path });
    extension::call(&*extension, &asked, &mut extension::silent, &Cancel::new())
}

/// The folder or file of the weights that stand behind `path`.
///
/// # Errors
/// As for [`describe`].
pub fn weights(path: &Path) -> Result<PathBuf> {
    Ok(of(path)?.path)
}
