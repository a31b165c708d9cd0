//! `manifest.json`: its keys, and what must hold for them.
//!
//! The keys follow the original project, whose artifacts are read too: they have no `schema`, `version` in its place,
//! and no hashes. Keys that this version does not know are kept when a manifest is written again.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::store;
use crate::config::Task;
use crate::config::text::stays_inside;
use crate::error::{Error, Result};

/// The file's name.
pub const MANIFEST: &str = "manifest.json";

/// The version of the layout that this host writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// What an artifact holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the layout; 0 for the original project's.
    #[serde(default)]
    pub schema: u32,
    /// The model's name, usually that of its source.
    pub model_id: String,
    /// What the model does, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_task")]
    pub task: Option<Task>,
    /// When it was made, RFC 3339.
    #[serde(default, alias = "generated_at", skip_serializing_if = "Option::is_none")]
    pub quantized_at: Option<String>,
    /// The version of what made it.
    #[serde(default, alias = "llama_pajamas_version", skip_serializing_if = "Option::is_none")]
    pub pipeline_version: Option<String>,
    /// The model's family and dimensions.
    #[serde(default)]
    pub architecture: Map<String, Value>,
    /// The forms in which it is here, the preferred one first. Never empty.
    pub formats: Vec<FormatEntry>,
    /// What was measured on the whole.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub validation: Map<String, Value>,
    /// What it needs to run.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub runtime_requirements: Map<String, Value>,
    /// The versions of the file formats used.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub format_versions: Map<String, Value>,
    /// The text that quantizing was calibrated with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Every file of the artifact but the manifest itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One form in which the model is here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FormatEntry {
    /// `gguf`, `onnx`, `mlx`, `coreml`, `tensorrt`, or what a third party's backend loads.
    #[serde(rename = "type", alias = "format")]
    pub format: String,
    /// The main file, or its folder, inside the artifact; `TYPE/PRECISION` when not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How it was quantized, which names the precision: `Q4_K_M`, `int8`, `f16`.
    #[serde(default, alias = "precision", skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Its size in millions of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_mb: Option<f64>,
    /// How many times smaller than its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Value>,
    /// What was measured on this form.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub quality: Map<String, Value>,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One file, and what proves that it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path inside the artifact, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content in lower-case hexadecimal.
    pub sha256: String,
}

/// The text that quantizing was calibrated with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the text.
    pub sha256: String,
    /// How many tokens of the model it is.
    pub tokens: u64,
}

impl Manifest {
    /// Reads the manifest of the artifact in `folder`.
    ///
    /// # Errors
    /// `manifest-missing`; `manifest-invalid` with the line or the key; `artifact-version` for a newer layout.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes).map_err(|error| error.within(path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let message =
                    format!("{}: an artifact needs a {MANIFEST}, and there is none", folder.display());
                Err(Error::new("manifest-missing", message))
            }
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    /// Reads a manifest from its text.
    ///
    /// # Errors
    /// As for [`read`](Self::read), without the path.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let invalid = |e: serde_json::Error| Error::new("manifest-invalid", e.to_string());
        // The version first: what is wrong with a newer manifest is that it is newer.
        #[derive(Deserialize)]
        struct Version {
            #[serde(default)]
            schema: u32,
        }
        let Version { schema } = serde_json::from_slice(json).map_err(invalid)?;
        if schema > SCHEMA {
            let message =
                format!("the artifact has layout {schema}, this pajamas reads layouts up to {SCHEMA}");
            return Err(Error::new("artifact-version", message).help("use a newer pajamas"));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(invalid)?;
        manifest.check().map_err(|message| Error::new("manifest-invalid", message))?;
        Ok(manifest)
    }

    /// Writes the manifest into `folder`, whole or not at all.
    ///
    /// # Errors
    /// `manifest-invalid` rather than writing one that could not be read again; `io`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.check().map_err(|message| Error::new("manifest-invalid", message))?;
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Error::new("internal", e.to_string()))?;
        json.push(b'\n');
        store::write_whole(&folder.join(MANIFEST), |file| std::io::Write::write_all(file, &json))
    }

    /// What is wrong beyond the types.
    fn check(&self) -> Result<(), String> {
        if self.formats.is_empty() {
            return Err("`formats` is empty: an artifact holds its model in at least one format".to_owned());
        }
        let paths =
            self.formats.iter().map(|f| f.relative_path()).chain(self.files.iter().map(|f| f.path.clone()));
        // A manifest comes with the artifact: it must not make the host read what lies elsewhere.
        for path in paths {
            if !stays_inside(&path) {
                return Err(format!("the path {path:?} leads out of the artifact"));
            }
        }
        for FileEntry { path, sha256, .. } in &self.files {
            if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("the sha256 of {path:?} is not 64 hexadecimal digits"));
            }
        }
        Ok(())
    }
}

impl FormatEntry {
    /// Where it lies inside the artifact: what `path` says, else where the layout puts it.
    pub(super) fn relative_path(&self) -> String {
        match (&self.path, &self.method) {
            (Some(path), _) => path.clone(),
            (None, Some(method)) => format!("{}/{method}", self.format),
            (None, None) => self.format.clone(),
        }
    }
}

/// The original project writes tasks in words of its own: those say nothing here, and are no reason to refuse.
fn known_task<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Task>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_read_and_written_without_loss() {
        let json = serde_json::json!({
            "schema": 1,
            "model_id": "tiny",
            "task": "chat",
            "quantized_at": "2026-01-01T00:00:00Z",
            "pipeline_version": "1.0.0",
            "architecture": { "type": "llama", "hidden_size": 256 },
            "formats": [{
                "type": "gguf", "path": "model.gguf", "method": "q8_0", "size_mb": 2.5, "compression": 1.9,
                "quality": { "metric": "answers", "value": 0.98 },
            }],
            "validation": { "passed": true },
            "runtime_requirements": { "min_memory_mb": 16 },
            "format_versions": { "gguf": 3 },
            "calibration": { "name": "general", "sha256": "ab", "tokens": 4096 },
            "files": [{ "path": "model.gguf", "bytes": 1, "sha256": "a".repeat(64) }],
            "licence": "MIT",
        });
        let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
        assert_eq!((manifest.task, manifest.schema), (Some(Task::Chat), 1));
        assert_eq!(manifest.other["licence"], "MIT");
        assert_eq!(serde_json::to_value(&manifest).unwrap(), json);
    }

    #[test]
    fn the_original_projects_is_read() {
        let json = serde_json::json!({
            "version": "1.0",
            "model_id": "Qwen/Qwen3-1.7B",
            "generated_at": "2025-11-09T13:30:00Z",
            "llama_pajamas_version": "0.1.0",
            "task": "text_generation",
            "architecture": { "family": "qwen" },
            "formats": [
                { "type": "gguf", "precision": "Q4_K_M", "size_gb": 1.1 },
                { "format": "coreml", "component": "encoder", "precision": "int8" },
            ],
        });
        let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
        assert_eq!((manifest.schema, manifest.task), (0, None));
        assert_eq!(manifest.pipeline_version.as_deref(), Some("0.1.0"));
        assert_eq!(manifest.formats[0].relative_path(), "gguf/Q4_K_M");
        assert_eq!(manifest.formats[1].format, "coreml");
        assert_eq!(manifest.formats[0].other["size_gb"], 1.1);
    }

    fn refusal(json: &str) -> String {
        Manifest::parse(json.as_bytes()).expect_err("the manifest should have been refused").to_string()
    }

    #[test]
    fn what_is_wrong_is_said() {
        insta::assert_snapshot!(refusal("{ \"model_id\": \"x\", }"), @"trailing comma at line 1 column 20 [manifest-invalid]");
        insta::assert_snapshot!(refusal("{ \"formats\": [] }"), @"missing field `model_id` at line 1 column 17 [manifest-invalid]");
        insta::assert_snapshot!(refusal("{ \"model_id\": \"x\", \"formats\": [] }"), @"`formats` is empty: an artifact holds its model in at least one format [manifest-invalid]");
        insta::assert_snapshot!(refusal("{ \"schema\": 2, \"new\": true }"), @"the artifact has layout 2, this pajamas reads layouts up to 1 [artifact-version]");
        insta::assert_snapshot!(
            refusal("{ \"model_id\": \"x\", \"formats\": [{ \"type\": \"gguf\", \"path\": \"../x.gguf\" }] }"),
            @r#"the path "../x.gguf" leads out of the artifact [manifest-invalid]"#
        );
        insta::assert_snapshot!(
            refusal(
                "{ \"model_id\": \"x\", \"formats\": [{ \"type\": \"gguf\" }], \
                 \"files\": [{ \"path\": \"a\", \"bytes\": 1, \"sha256\": \"12\" }] }"
            ),
            @r#"the sha256 of "a" is not 64 hexadecimal digits [manifest-invalid]"#
        );
    }

    #[test]
    fn a_manifest_that_could_not_be_read_again_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = Manifest::default().write(folder.path()).unwrap_err();
        assert_eq!(error.code(), "manifest-invalid");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_one_has_its_own_code() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap_err().code(), "manifest-missing");
    }
}
