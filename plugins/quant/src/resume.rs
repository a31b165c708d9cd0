//! What tells one run from another: only the same run goes on where one was killed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pajamas_plugin_api::{PluginError, QuantizeRequest, Result};
use serde_json::Value;

use crate::hash;

/// Bytes of each end of a file that are read: its size and its time tell the rest.
const END: u64 = 1 << 20;

/// A hash over what a run is made of and how: its source, precision and options with the files that they name, and this
/// version of the plugin.
///
/// # Errors
/// `model-not-found` when a file cannot be read.
pub(crate) fn identity(request: &QuantizeRequest) -> Result<String> {
    let mut options = request.options.clone();
    if let Value::Object(options) = &mut options {
        // How many threads work changes nothing.
        options.remove("threads");
    }
    let mut parts =
        vec![env!("CARGO_PKG_VERSION").to_owned(), request.precision.clone(), options.to_string()];
    for file in files(&request.source)? {
        parts.push(fingerprint(&file)?);
    }
    let texts = |value: &Value| match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(PathBuf::from).collect(),
        value => value.as_str().map(PathBuf::from).into_iter().collect::<Vec<_>>(),
    };
    let named = options.as_object().into_iter().flatten().flat_map(|(_, value)| texts(value));
    for file in named.filter(|path| path.is_file()) {
        parts.push(fingerprint(&file)?);
    }
    Ok(hash::of(&[parts.join("\n").as_bytes()]))
}

fn files(source: &Path) -> Result<Vec<PathBuf>> {
    if !source.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let entries = fs::read_dir(source).map_err(|e| PluginError::model_unreadable(source, &e))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
    files.sort();
    Ok(files)
}

fn fingerprint(path: &Path) -> Result<String> {
    let missing = |e: std::io::Error| PluginError::model_unreadable(path, &e);
    let mut file = File::open(path).map_err(missing)?;
    let about = file.metadata().map_err(missing)?;
    let time = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let (mut start, mut end) = (Vec::new(), Vec::new());
    file.by_ref().take(END).read_to_end(&mut start).map_err(missing)?;
    file.seek(SeekFrom::Start(about.len().saturating_sub(END))).map_err(missing)?;
    file.take(END).read_to_end(&mut end).map_err(missing)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let time = time.unwrap_or_default().as_nanos();
    Ok(format!("{name} {} {time} {}", about.len(), hash::of(&[&start, &end])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_the_same_as_long_as_nothing_of_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, text) = (folder.path().join("model"), folder.path().join("text"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("config.json"), "{}").unwrap();
        fs::write(&text, "a").unwrap();
        let of = |precision: &str, options: Value| {
            let (source, output) = (source.clone(), folder.path().join("out"));
            identity(&QuantizeRequest { source, output, precision: precision.into(), options }).unwrap()
        };
        let options = || json!({ "texts": [text], "threads": 1 });
        let first = of("Q8_0", options());
        assert_eq!(of("Q8_0", json!({ "texts": [text], "threads": 7 })), first);
        assert_ne!(of("Q4_0", options()), first);
        assert_ne!(of("Q8_0", json!({ "texts": [text], "pure": true })), first);
        fs::write(&text, "b").unwrap();
        let second = of("Q8_0", options());
        assert_ne!(second, first, "a file that an option names is another");
        fs::write(source.join("config.json"), "[]").unwrap();
        assert_ne!(of("Q8_0", options()), second);
    }
}
