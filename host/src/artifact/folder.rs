//! An artifact on disk: what it holds, whether it is whole, and which of its forms to take.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, ProgressSink};
use serde::Serialize;

use super::manifest::{FormatEntry, Manifest};
use super::store;
use crate::error::{Error, Result};

/// A folder with a manifest.
#[derive(Debug, Clone)]
pub struct Artifact {
    folder: PathBuf,
    manifest: Manifest,
}

/// One form of the model, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variant {
    /// What a backend must be able to load, for example `gguf`.
    pub format: String,
    /// In lower case, for example `q4_k_m`; `None` when nobody said.
    pub precision: Option<String>,
    /// The model's main file; its folder for formats that are folders.
    pub path: PathBuf,
}

/// Which form of a model is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'w> {
    /// Only this format.
    pub format: Option<&'w str>,
    /// Only this precision, in any case.
    pub precision: Option<&'w str>,
}

/// What a verification found to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files whose size and hash were compared; 0 for an artifact without hashes.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Artifact {
    /// Opens the artifact in `folder`: reads its manifest and nothing else.
    ///
    /// # Errors
    /// As for [`Manifest::read`]. A missing manifest comes with the models that the folder does hold.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder).map_err(|error| match error.code() {
            "manifest-missing" => match first_model(folder) {
                Some(file) => error.help(format!("name the model's file itself: {}", file.display())),
                None => error.help("name an artifact's folder, or a .gguf or .onnx file"),
            },
            _ => error,
        })?;
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A file of the artifact by its path in it, when it is there.
    pub fn file(&self, path: &str) -> Option<PathBuf> {
        let full = self.folder.join(path);
        (crate::config::text::stays_inside(path) && full.is_file()).then_some(full)
    }

    /// The path inside the artifact of the file with the names of the model's classes: what `architecture.labels`
    /// says, else `labels.txt`.
    pub fn labels(&self) -> Option<&str> {
        let named = self.manifest.architecture.get("labels").and_then(|name| name.as_str());
        [named, Some("labels.txt")].into_iter().flatten().find(|name| self.file(name).is_some())
    }

    /// The forms of the model, the preferred one first.
    pub fn variants(&self) -> impl Iterator<Item = Variant> {
        self.manifest.formats.iter().map(|entry| self.variant(entry))
    }

    /// The first form that is wanted, when its file is there.
    ///
    /// # Errors
    /// `variant-not-found` with the forms there are; `artifact-corrupt` when the file is missing.
    pub fn pick(&self, wanted: Wanted<'_>) -> Result<Variant> {
        let Some(variant) = self.variants().find(|variant| wanted.admits(variant)) else {
            let known: Vec<String> = self.variants().map(|variant| variant.to_string()).collect();
            let message = format!("{}: the artifact has no {wanted}", self.folder.display());
            return Err(Error::new("variant-not-found", message).help(format!("it has {}", known.join(", "))));
        };
        match variant.path.exists() {
            true => Ok(variant),
            false => Err(corrupt(&[format!("{}: missing", variant.path.display())])),
        }
    }

    /// Whether every file of the manifest is there with the right size: cheap, for before a load.
    ///
    /// # Errors
    /// `artifact-corrupt` with each file that is not.
    pub fn check_sizes(&self) -> Result<()> {
        let wrong: Vec<String> = self
            .manifest
            .files
            .iter()
            .filter_map(|entry| {
                let path = self.folder.join(&entry.path);
                match std::fs::metadata(&path) {
                    Ok(found) if found.len() == entry.bytes => None,
                    Ok(found) => {
                        Some(format!("{}: {} bytes, {} expected", path.display(), found.len(), entry.bytes))
                    }
                    Err(_) => Some(format!("{}: missing", path.display())),
                }
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(corrupt(&wrong)) }
    }

    /// Reads every file and compares sizes and hashes. An artifact of the original project has none: then only the
    /// model's files must be there.
    ///
    /// # Errors
    /// `artifact-corrupt` with each file that is not what the manifest says; `cancelled`; `io`.
    pub fn verify(&self, progress: &mut dyn ProgressSink, cancel: &Cancel) -> Result<Verified> {
        self.check_sizes()?;
        if self.manifest.files.is_empty() {
            self.variants().try_for_each(|v| {
                self.pick(Wanted { format: Some(&v.format), precision: v.precision.as_deref() }).map(drop)
            })?;
        }
        let total: u64 = self.manifest.files.iter().map(|entry| entry.bytes).sum();
        let (mut done, mut wrong) = (0, Vec::new());
        for entry in &self.manifest.files {
            let path = self.folder.join(&entry.path);
            let (_, sha256) = store::digest(&path, |bytes| {
                done += bytes;
                cancel.check()?;
                match progress.progress(done as f32 / total.max(1) as f32, &entry.path) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::new("cancelled", "the verification was cancelled")),
                }
            })?;
            if !sha256.eq_ignore_ascii_case(&entry.sha256) {
                wrong.push(format!("{}: SHA-256 {sha256}, {} expected", path.display(), entry.sha256));
            }
        }
        match wrong.is_empty() {
            true => Ok(Verified { files: self.manifest.files.len(), bytes: total }),
            false => Err(corrupt(&wrong)),
        }
    }

    fn variant(&self, entry: &FormatEntry) -> Variant {
        let path = self.folder.join(entry.relative_path());
        let path = match path.is_dir() {
            true => files_of_format(&path, &entry.format).into_iter().next().unwrap_or(path),
            false => path,
        };
        let precision = entry.method.as_ref().map(|method| method.to_ascii_lowercase());
        Variant { format: entry.format.to_ascii_lowercase(), precision, path }
    }
}

impl Wanted<'_> {
    /// Whether `variant` is what is wanted.
    pub fn admits(&self, variant: &Variant) -> bool {
        let is = |wanted: Option<&str>, has: Option<&str>| {
            wanted.is_none_or(|wanted| has.is_some_and(|has| has.eq_ignore_ascii_case(wanted)))
        };
        is(self.format, Some(&variant.format)) && is(self.precision, variant.precision.as_deref())
    }
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.format, self.precision) {
            (Some(format), Some(precision)) => write!(f, "{format} in {precision}"),
            (Some(one), None) | (None, Some(one)) => f.write_str(one),
            (None, None) => f.write_str("model"),
        }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Wanted { format: Some(&self.format), precision: self.precision.as_deref() }.fmt(f)
    }
}

fn corrupt(files: &[String]) -> Error {
    Error::new("artifact-corrupt", format!("the artifact is not whole\n  {}", files.join("\n  ")))
        .help("fetch or make it again")
}

/// The first model file directly in `folder`, in alphabetical order: of a model in several parts that is the first.
fn first_model(folder: &Path) -> Option<PathBuf> {
    ["gguf", "onnx"].iter().flat_map(|format| files_of_format(folder, format)).next()
}

fn files_of_format(folder: &Path, format: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_format =
        |path: &PathBuf| path.is_file() && path.extension().is_some_and(|e| e.eq_ignore_ascii_case(format));
    let mut files: Vec<PathBuf> = entries.filter(is_format).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{FileEntry, describe_files};

    fn entry(format: &str, method: &str, path: Option<&str>) -> FormatEntry {
        FormatEntry {
            format: format.to_owned(),
            method: Some(method.to_owned()),
            path: path.map(str::to_owned),
            ..FormatEntry::default()
        }
    }

    /// An artifact of two GGUF precisions, one in a folder of its own, with hashes.
    fn artifact() -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("gguf/Q8_0")).unwrap();
        std::fs::write(root.join("small.gguf"), "GGUF small").unwrap();
        std::fs::write(root.join("gguf/Q8_0/big-00001-of-00002.gguf"), "GGUF one").unwrap();
        std::fs::write(root.join("gguf/Q8_0/big-00002-of-00002.gguf"), "GGUF two").unwrap();
        std::fs::write(root.join("labels.txt"), "a\nb\n").unwrap();
        let files = ["small.gguf", "gguf/Q8_0/big-00001-of-00002.gguf", "gguf/Q8_0/big-00002-of-00002.gguf"];
        let manifest = Manifest {
            schema: 1,
            model_id: "m".to_owned(),
            formats: vec![entry("gguf", "Q4_K_M", Some("small.gguf")), entry("gguf", "Q8_0", None)],
            files: describe_files(root, files).unwrap(),
            ..Manifest::default()
        };
        manifest.write(root).unwrap();
        let artifact = Artifact::open(root).unwrap();
        (folder, artifact)
    }

    fn verify(artifact: &Artifact) -> Result<Verified> {
        artifact.verify(&mut |_: f32, _: &str| ControlFlow::Continue(()), &Cancel::new())
    }

    #[test]
    fn a_form_is_picked_by_format_and_precision_in_any_case() {
        let (folder, artifact) = artifact();
        let pick = |format, precision| artifact.pick(Wanted { format, precision });
        assert_eq!(pick(None, None).unwrap().path, folder.path().join("small.gguf"));
        let big = pick(Some("GGUF"), Some("q8_0")).unwrap();
        assert_eq!(big.path, folder.path().join("gguf/Q8_0/big-00001-of-00002.gguf"));
        assert_eq!(big.precision.as_deref(), Some("q8_0"));
        let error = pick(Some("onnx"), Some("int8")).unwrap_err();
        assert_eq!(error.code(), "variant-not-found");
        assert!(error.message().ends_with("the artifact has no onnx in int8"), "{}", error.message());
        assert_eq!(error.how_to_fix(), "it has gguf in q4_k_m, gguf in q8_0");
    }

    #[test]
    fn labels_are_a_file_of_the_artifact() {
        let (_folder, artifact) = artifact();
        assert_eq!(artifact.labels(), Some("labels.txt"));
        assert!(artifact.file("../labels.txt").is_none());
    }

    #[test]
    fn a_whole_artifact_verifies_with_progress_to_the_end() {
        let (_folder, artifact) = artifact();
        let mut last = 0.0;
        let mut progress = |fraction: f32, _: &str| {
            last = fraction;
            ControlFlow::Continue(())
        };
        let verified = artifact.verify(&mut progress, &Cancel::new()).unwrap();
        assert_eq!((verified, last), (Verified { files: 3, bytes: 26 }, 1.0));
    }

    #[test]
    fn every_file_that_is_not_what_the_manifest_says_is_named() {
        let (folder, artifact) = artifact();
        std::fs::write(folder.path().join("small.gguf"), "GGUF smalL").unwrap();
        let error = verify(&artifact).unwrap_err();
        assert_eq!(error.code(), "artifact-corrupt");
        assert!(error.message().contains("small.gguf: SHA-256 ") && error.message().ends_with(" expected"));
        artifact.check_sizes().unwrap();

        std::fs::write(folder.path().join("small.gguf"), "GGUF").unwrap();
        std::fs::remove_file(folder.path().join("gguf/Q8_0/big-00002-of-00002.gguf")).unwrap();
        let message =
            verify(&artifact).unwrap_err().message().replace(&format!("{}/", folder.path().display()), "");
        insta::assert_snapshot!(message, @r"
        the artifact is not whole
          small.gguf: 4 bytes, 10 expected
          gguf/Q8_0/big-00002-of-00002.gguf: missing
        ");
    }

    #[test]
    fn verifying_can_be_stopped_from_both_sides() {
        let (_folder, artifact) = artifact();
        let cancel = Cancel::new();
        cancel.cancel();
        let error = artifact.verify(&mut |_: f32, _: &str| ControlFlow::Continue(()), &cancel).unwrap_err();
        assert_eq!(error.code(), "cancelled");
        let error =
            artifact.verify(&mut |_: f32, _: &str| ControlFlow::Break(()), &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "cancelled");
    }

    #[test]
    fn without_hashes_the_models_files_must_at_least_be_there() {
        let (folder, artifact) = artifact();
        let manifest = Manifest { schema: 0, files: Vec::<FileEntry>::new(), ..artifact.manifest().clone() };
        manifest.write(folder.path()).unwrap();
        let artifact = Artifact::open(folder.path()).unwrap();
        assert_eq!(verify(&artifact).unwrap(), Verified { files: 0, bytes: 0 });
        std::fs::remove_file(folder.path().join("small.gguf")).unwrap();
        assert_eq!(verify(&artifact).unwrap_err().code(), "artifact-corrupt");
    }

    #[test]
    fn a_folder_without_a_manifest_says_which_file_may_be_meant() {
        let (folder, _) = artifact();
        std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
        let error = Artifact::open(folder.path()).unwrap_err();
        assert_eq!(error.code(), "manifest-missing");
        assert!(error.how_to_fix().ends_with("small.gguf"), "{}", error.how_to_fix());
    }

    #[test]
    fn the_artifacts_of_this_repository_are_whole() {
        for name in ["chat", "detect", "classify"] {
            let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models")).join(name);
            let artifact = Artifact::open(&folder).unwrap();
            let verified = verify(&artifact).unwrap();
            assert!(verified.files > 0 && artifact.manifest().task.is_some(), "{name}");
            artifact.pick(Wanted::default()).unwrap();
        }
    }
}
