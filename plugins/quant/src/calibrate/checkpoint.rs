//! What a calibration leaves when it is stopped, to go on from.

use std::fs;
use std::path::{Path, PathBuf};

use pajamas_llama_cpp::gguf::{Header, Value};
use pajamas_plugin_api::{PluginError, Result};
use serde::{Deserialize, Serialize};

use super::balance::Ledger;
use crate::error::{self, codes as own};
use crate::imatrix::Matrix;

/// Behind the name of the file that a calibration makes.
const ENDING: &str = ".checkpoint";
/// Where the state lies in the file, as JSON: the rest of it is an importance matrix as others.
const STATE: &str = "pajamas.checkpoint";
/// Where a finished file says what it came of.
const KEY: &str = "pajamas.calibration.key";

/// How far a calibration is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// A hash of what is computed: model, text, and how it is cut.
    pub key: String,
    /// Pieces that were computed.
    pub done: usize,
    /// What they reached.
    pub ledger: Ledger,
}

/// The path of the checkpoint of a file.
pub(super) fn path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(ENDING);
    output.with_file_name(name)
}

/// Writes a checkpoint, whole or not at all.
///
/// # Errors
/// `write-failed`.
pub(super) fn write(output: &Path, matrix: &Matrix, state: &State) -> Result<()> {
    let json = serde_json::to_string(state)
        .map_err(|e| PluginError::new(pajamas_plugin_api::codes::INTERNAL, e.to_string()))?;
    let written = matrix.write_with(&path(output), |writer| _ = writer.set(STATE, json.as_str()));
    written.map(drop)
}

/// Reads the checkpoint of a file; `None` when there is none.
///
/// # Errors
/// `importance-invalid` for a damaged one; `checkpoint-mismatch` for that of another calibration.
pub(super) fn read(output: &Path, key: &str) -> Result<Option<(Matrix, State)>> {
    let path = path(output);
    if !path.exists() {
        return Ok(None);
    }
    let matrix = Matrix::read(&path)?;
    let header = Header::open(&path).map_err(|e| error::at(own::IMPORTANCE_INVALID, &path, e))?;
    let state = header.value(STATE).and_then(Value::as_text).and_then(|text| serde_json::from_str(text).ok());
    let state: State = state.ok_or_else(|| {
        error::at(
            own::IMPORTANCE_INVALID,
            &path,
            format!("the metadata entry `{STATE}` is missing or damaged"),
        )
        .help("remove it, and begin anew")
    })?;
    if state.key != key {
        let what = "is of another model, another text, or one that was cut otherwise";
        return Err(error::at(own::CHECKPOINT_MISMATCH, &path, what)
            .help("remove it, or calibrate without --resume: it is then written over"));
    }
    Ok(Some((matrix, state)))
}

/// Writes what a calibration came to, and removes its checkpoint. Returns the file's size.
///
/// # Errors
/// `write-failed`.
pub(super) fn finish(output: &Path, matrix: &Matrix, key: &str) -> Result<u64> {
    let bytes = matrix.write_with(output, |writer| _ = writer.set(KEY, key))?;
    // One that stays is of no harm: it is of the same calibration, and only read when asked for.
    let _ = fs::remove_file(path(output));
    Ok(bytes)
}

/// What a calibration of this key came to, with the file's size, if it is there.
pub(super) fn finished(output: &Path, key: &str) -> Option<(Matrix, u64)> {
    let header = Header::open(output).ok()?;
    let same = header.value(KEY).and_then(Value::as_text) == Some(key);
    same.then(|| Matrix::read(output).ok()).flatten().map(|matrix| (matrix, header.file_bytes))
}
