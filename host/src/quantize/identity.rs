//! Whether a form would come out the same: what it is made of, by whom, and how.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pajamas_plugin_api::QuantizeRequest;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::plugins::ActiveQuantizer;

/// Files up to this size are read whole. Of larger ones the ends are read, and their size and time count: to read a
/// model of many gigabytes only to do nothing would be no saving.
const READ_WHOLE: u64 = 16 << 20;
/// Bytes of each end.
const END: u64 = 1 << 20;
/// The most files of a source folder that count, beyond which something is not a model.
const MOST_FILES: usize = 10_000;

/// A hash over the source's files, the quantizer, the precision and the options.
pub(super) fn of(request: &QuantizeRequest, quantizer: &ActiveQuantizer) -> Result<String> {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(&quantizer.plugin);
    text(&quantizer.version);
    text(&quantizer.info.id);
    text(&request.precision);
    // How many threads work changes nothing.
    let mut options = request.options.clone();
    if let Value::Object(options) = &mut options {
        options.remove("threads");
    }
    text(&options.to_string());
    for path in files(&request.source)? {
        let name = path.strip_prefix(&request.source).unwrap_or(&path).to_string_lossy().into_owned();
        text(&name);
        text(&fingerprint(&path)?);
    }
    // An option that names a file, or several, means what is in them.
    let texts = |value: &Value| match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect::<Vec<_>>(),
    };
    let named: Vec<String> =
        options.as_object().into_iter().flatten().flat_map(|(_, value)| texts(value)).collect();
    for path in named.iter().map(Path::new).filter(|path| path.is_file()) {
        text(&fingerprint(path)?);
    }
    Ok(hex(hash))
}

/// The source's own files, sorted.
fn files(source: &Path) -> Result<Vec<PathBuf>> {
    if !source.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let entries = fs::read_dir(source).map_err(|e| Error::io(source, &e))?;
    let paths = entries.take(MOST_FILES).flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn fingerprint(path: &Path) -> Result<String> {
    let failed = |e: std::io::Error| Error::io(path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let mut hash = Sha256::new();
    hash.update(about.len().to_le_bytes());
    let mut bytes = Vec::new();
    if about.len() <= READ_WHOLE {
        file.read_to_end(&mut bytes).map_err(failed)?;
    } else {
        let time = about.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        hash.update(time.unwrap_or_default().as_nanos().to_le_bytes());
        file.by_ref().take(END).read_to_end(&mut bytes).map_err(failed)?;
        file.seek(SeekFrom::End(-(END as i64))).map_err(failed)?;
        file.read_to_end(&mut bytes).map_err(failed)?;
    }
    hash.update(&bytes);
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
