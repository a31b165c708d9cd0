//! What is written down about a form: its `metadata.json`, and its place in the artifact's manifest.

use std::fs;
use std::path::Path;

use pajamas_plugin_api::QuantizeRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Form;
use crate::artifact::{
    Calibration, FileEntry, FormatEntry, MANIFEST, Manifest, SCHEMA, describe_file, write_whole,
};
use crate::error::{Error, Result};
use crate::hub;
use crate::plugins::ActiveQuantizer;

/// The record's name in the form's folder.
const METADATA: &str = "metadata.json";
/// What the manifest says of a form whose types were solved for.
const SOLVED: [&str; 6] = ["kept", "why", "goal", "predicted_kld", "measured_kld", "preset"];

/// How a form was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this layout.
    schema: u32,
    /// Its format.
    pub format: String,
    /// Its precision.
    pub precision: String,
    /// Who made it: plugin, quantizer, version.
    pub quantizer: Value,
    /// When, RFC 3339.
    pub quantized_at: String,
    /// A hash over what it was made of, by whom and how: the same again makes the same again.
    pub identity: String,
    /// The name of the source.
    pub source: String,
    /// The repository that the source was fetched from, with the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Value>,
    /// The options that were set.
    pub options: Value,
    /// Its files, with their hashes; paths are inside the artifact.
    pub files: Vec<FileEntry>,
    /// What the quantizer says of it.
    pub report: Value,
}

impl Record {
    pub(super) fn new(
        form: &Form,
        quantizer: &ActiveQuantizer,
        identity: String,
        files: Vec<FileEntry>,
        report: Value,
        request: &QuantizeRequest,
    ) -> Self {
        let origin = std::path::absolute(&request.source).ok().and_then(|path| hub::Origin::of(&path));
        let name = match &origin {
            Some(origin) => origin.name().to_owned(),
            None => {
                let path = fs::canonicalize(&request.source).unwrap_or_else(|_| request.source.clone());
                path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
            }
        };
        Self {
            schema: SCHEMA,
            format: form.format.clone(),
            precision: form.precision.clone(),
            quantizer: json!({
                "plugin": quantizer.plugin, "id": quantizer.info.id, "version": quantizer.version,
            }),
            quantized_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            identity,
            source: name,
            repository: origin.map(|origin| {
                let file = Some(origin.file).filter(|file| !file.is_empty());
                let told = [("id", Some(origin.repository)), ("commit", Some(origin.commit)), ("file", file)];
                told.into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))))
                    .collect()
            }),
            options: request.options.clone(),
            files,
            report,
        }
    }

    /// The record of a form, if it has one. A damaged one counts as none: the form is made again.
    pub(super) fn read(output: &Path, form: &Form) -> Result<Option<Self>> {
        let path = output.join(&form.format).join(&form.precision).join(METADATA);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    /// Whether its files still have the hashes that were written down.
    pub(super) fn is_there(&self, output: &Path) -> bool {
        let whole = |file: &FileEntry| {
            crate::config::text::stays_inside(&file.path)
                && describe_file(output, &file.path, |_| Ok(())).is_ok_and(|found| found == *file)
        };
        !self.files.is_empty() && self.files.iter().all(whole)
    }

    pub(super) fn write(&self, output: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Error::new("internal", e.to_string()))?;
        json.push(b'\n');
        let path = output.join(self.folder()).join(METADATA);
        write_whole(&path, |file| std::io::Write::write_all(file, &json))
    }

    /// The form's folder inside the artifact.
    fn folder(&self) -> String {
        format!("{}/{}", self.format, self.precision)
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Enters a form into the artifact's manifest, in the place of what was made of it before.
pub(super) fn into_manifest(output: &Path, record: &Record) -> Result<()> {
    let mut manifest = match output.join(MANIFEST).exists() {
        true => Manifest::read(output)?,
        false => Manifest { schema: SCHEMA, model_id: record.source.clone(), ..Manifest::default() },
    };
    let before = manifest.clone();
    let model = record.report.get("model").and_then(Value::as_object);
    if let Some(model) = model {
        manifest.architecture = architecture(model);
        manifest.task = manifest.task.or_else(|| serde_json::from_value(model.get("task")?.clone()).ok());
        if let Some(name) = model.get("name").and_then(Value::as_str).filter(|_| before.formats.is_empty()) {
            manifest.model_id = name.to_owned();
        }
    }
    manifest.quantized_at = Some(record.quantized_at.clone());
    manifest.pipeline_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    if let Some(calibration) = calibration(record) {
        manifest.calibration = Some(calibration);
    }
    if let Some(version) = record.report.get("format_version") {
        manifest.format_versions.insert(record.format.clone(), version.clone());
    }
    let entry = entry(record, model);
    let same = |f: &FormatEntry| {
        f.format == entry.format
            && f.method.as_deref().is_some_and(|m| m.eq_ignore_ascii_case(&record.precision))
    };
    match manifest.formats.iter_mut().find(|f| same(f)) {
        Some(old) => *old = entry,
        None => manifest.formats.push(entry),
    }
    let below = format!("{}/", record.folder());
    manifest.files.retain(|file| !file.path.starts_with(&below));
    manifest.files.extend(record.files.iter().cloned());
    manifest.files.push(describe_file(output, &format!("{below}{METADATA}"), |_| Ok(()))?);
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    match manifest == before {
        true => Ok(()),
        false => manifest.write(output),
    }
}

/// The text that a form was calibrated with.
fn calibration(record: &Record) -> Option<Calibration> {
    serde_json::from_value(record.report.get("calibration")?.clone()).ok()
}

fn entry(record: &Record, model: Option<&Map<String, Value>>) -> FormatEntry {
    let source = model.and_then(|m| m.get("file_bytes")).and_then(Value::as_u64);
    let compression = source.map(|bytes| hundredths(bytes as f64 / record.bytes().max(1) as f64));
    let mut other = Map::new();
    if let Some(bits) = record.report.get("bits_per_weight") {
        other.insert("bits_per_weight".into(), bits.clone());
    }
    // What was solved for is kept for a reason; the types one by one stay in the form's own record.
    if let Some(solved) = record.report.get("solve").and_then(Value::as_object) {
        let about = solved.iter().filter(|(key, _)| SOLVED.contains(&key.as_str()));
        let about: Map<String, Value> = about.map(|(key, value)| (key.clone(), value.clone())).collect();
        other.insert("solve".into(), about.into());
    }
    if let Some(repository) = &record.repository {
        other.insert("repository".into(), repository.clone());
    }
    // Forms of one artifact may have been calibrated with different texts: each says its own.
    if calibration(record).is_some() {
        other.insert("calibration".into(), record.report["calibration"].clone());
    }
    FormatEntry {
        format: record.format.clone(),
        // One file is named itself; of several the folder is.
        path: Some(match &record.files[..] {
            [one] => one.path.clone(),
            _ => record.folder(),
        }),
        method: Some(record.precision.clone()),
        size_mb: Some(hundredths(record.bytes() as f64 / 1e6)),
        compression: compression.map(Value::from),
        other,
        ..FormatEntry::default()
    }
}

/// What of a model's description is its architecture.
fn architecture(model: &Map<String, Value>) -> Map<String, Value> {
    const OTHERS: [&str; 7] = ["format", "name", "task", "precision", "file_bytes", "bytes", "advice"];
    let kept = model.iter().filter(|(key, value)| !OTHERS.contains(&key.as_str()) && !value.is_null());
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
