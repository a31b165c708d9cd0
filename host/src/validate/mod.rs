//! How close the forms of an artifact are to the model that they were made of: lets a plugin measure each, compares with
//! limits, and writes down what came out.
//!
//! It computes nothing itself: measuring is what the extension `pajamas.evaluate/1` of quantizers does.

mod chart;
mod limits;
mod measures;
mod report;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;
use serde::Serialize;
use serde_json::{Value, json};

pub use limits::{Check, Limits};
pub use measures::{Distribution, Estimate, Generation, Measures, Routing, Size, TensorBits, Worst};

use crate::artifact::{Artifact, FileEntry, FormatEntry, MANIFEST, Manifest, Source, describe_file};
use crate::config::text::stays_inside;
use crate::error::{Error, Result};
use crate::plugins::{Plugins, extension};
use crate::quantize::{self, Busy};

/// The extension of quantizers that measure models.
const EVALUATE: &str = "pajamas.evaluate/1";
/// Formats that it reads.
const FORMATS: [&str; 2] = ["gguf", "mlx"];
/// What tells a folder of MLX.
const MLX_CONFIG: &str = "config.json";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Job {
    /// An artifact, a GGUF file, or a folder of MLX.
    pub candidate: PathBuf,
    /// The model that it was made of.
    pub original: PathBuf,
    /// A file of text.
    pub text: PathBuf,
    /// Which forms of an artifact, as `FORMAT` or `FORMAT:PRECISION`; empty for all that can be measured.
    pub forms: Vec<String>,
    /// Texts to continue; empty for beginnings of windows.
    pub prompts: Vec<String>,
    /// Tokens to continue each by.
    pub tokens: u64,
    /// Tokens of a window.
    pub window: Option<u32>,
    /// The most windows.
    pub chunks: Option<u64>,
    /// Threads.
    pub threads: Option<u32>,
    /// How far a form may be from the original.
    pub limits: Limits,
}

/// What was measured on one form.
#[derive(Debug, Clone, Serialize)]
pub struct Validated {
    /// For example `gguf`.
    pub format: String,
    /// For example `Q4_K_M`; a file's name when it is not part of an artifact.
    pub precision: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Every limit, and whether it was kept.
    pub checks: Vec<Check>,
    /// Whether all were.
    pub passed: bool,
    /// What was measured.
    #[serde(flatten)]
    pub measures: Measures,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// The original's name.
    pub original: String,
    /// The text: name, size and hash.
    pub text: FileEntry,
    /// When, RFC 3339.
    pub validated_at: String,
    /// The limits.
    pub limits: Limits,
    /// Whether every form keeps to them.
    pub passed: bool,
    /// The forms.
    pub forms: Vec<Validated>,
    /// Forms that cannot be measured.
    pub skipped: Vec<String>,
}

/// What is told while forms are measured: the form at work, how far it is (0 to 1), and a few words.
pub type Progress<'p> = dyn FnMut(&str, f32, &str) -> ControlFlow<()> + 'p;

/// A form that is measured.
struct Form {
    format: String,
    precision: String,
    path: PathBuf,
}

impl Job {
    /// Measures every form, one after the other, and enters what came out into the artifact's manifest.
    ///
    /// # Errors
    /// `model-not-found`, `variant-not-found`, `quantizer-not-found` when no plugin measures, those of the extension;
    /// `output-busy` while a run writes into the artifact; `cancelled`; `io`. The manifest is then as it was. A form beyond
    /// the limits is no error of this function.
    pub fn run(&self, plugins: &Plugins, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Report> {
        let Some(extension) = plugins.extension_of_quantizer(EVALUATE, |_| true) else {
            return Err(Error::new("quantizer-not-found", "no plugin here measures models")
                .help("install the plugin `quant`; `pajamas plugins list` says where plugins are searched"));
        };
        let (artifact, forms, skipped) = self.forms()?;
        let original = quantize::weights(&self.original)?;
        let text = describe(&self.text)?;
        let mut validated = Vec::new();
        for form in &forms {
            let scratch = tempfile::Builder::new().prefix("pajamas-validate-").tempdir();
            let scratch = scratch.map_err(|e| Error::io(std::env::temp_dir(), &e))?;
            let asked = json!({
                "original": original, "candidate": form.path, "text": self.text, "scratch": scratch.path(),
                "window": self.window, "chunks": self.chunks, "prompts": self.prompts, "tokens": self.tokens,
                "threads": self.threads,
            });
            let name = format!("{} {}", form.format, form.precision);
            let mut tell = |fraction: f32, what: &str| progress(&name, fraction, what);
            let answer = extension::call(&*extension, &asked, &mut tell, cancel)?;
            let measures: Measures = serde_json::from_value(answer)
                .map_err(|e| Error::new("plugin-protocol", format!("what was measured on {name}: {e}")))?;
            let checks = self.limits.check(&measures);
            let passed = checks.iter().all(|check| check.passed);
            let (format, precision) = (form.format.clone(), form.precision.clone());
            validated.push(Validated {
                format,
                precision,
                bytes: bytes(&form.path),
                checks,
                passed,
                measures,
            });
        }
        let report = Report {
            model: match &artifact {
                Some(artifact) => artifact.manifest().model_id.clone(),
                None => name(&self.candidate),
            },
            original: name(&self.original),
            text,
            validated_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            limits: self.limits,
            passed: validated.iter().all(|form| form.passed),
            forms: validated,
            skipped,
        };
        if let Some(artifact) = &artifact {
            report.enter(artifact.folder())?;
        }
        Ok(report)
    }

    /// The artifact, if it is one, the forms to measure, and what is left out.
    fn forms(&self) -> Result<(Option<Artifact>, Vec<Form>, Vec<String>)> {
        let path = &self.candidate;
        let single = |format: &str| {
            if !self.forms.is_empty() {
                let message = format!("{}: this is one model, not an artifact with forms", path.display());
                return Err(Error::new("invalid-option", message).help("leave out --format"));
            }
            let form = Form { format: format.to_owned(), precision: name(path), path: path.clone() };
            Ok((None, vec![form], Vec::new()))
        };
        if path.is_dir() && !path.join(MANIFEST).is_file() && path.join(MLX_CONFIG).is_file() {
            return single("mlx");
        }
        let artifact = match Source::open(path)? {
            Source::File(file) if FORMATS.contains(&&*file.format) => return single(&file.format),
            Source::File(file) => {
                let message = format!("{}: {} models are not measured", path.display(), file.format);
                return Err(Error::new("unsupported", message)
                    .help(format!("those in {} are", FORMATS.join(" and "))));
            }
            Source::Artifact(artifact) => *artifact,
        };
        let (forms, skipped) = chosen(&artifact, &self.forms)?;
        Ok((Some(artifact), forms, skipped))
    }
}

/// The forms of an artifact that are wanted, and those that nobody measures.
fn chosen(artifact: &Artifact, wanted: &[String]) -> Result<(Vec<Form>, Vec<String>)> {
    let (mut forms, mut skipped) = (Vec::new(), Vec::new());
    let mut found = vec![false; wanted.len()];
    for (variant, entry) in artifact.variants().zip(&artifact.manifest().formats) {
        let precision = entry.method.clone().unwrap_or_default();
        let matches = |wanted: &String| match wanted.split_once(':') {
            Some((format, of)) => {
                format.eq_ignore_ascii_case(&variant.format) && of.eq_ignore_ascii_case(&precision)
            }
            None => wanted.eq_ignore_ascii_case(&variant.format) || wanted.eq_ignore_ascii_case("all"),
        };
        let hits: Vec<usize> = (0..wanted.len()).filter(|at| matches(&wanted[*at])).collect();
        if !wanted.is_empty() && hits.is_empty() {
            continue;
        }
        hits.iter().for_each(|at| found[*at] = true);
        let measured = FORMATS.contains(&&*variant.format);
        match measured {
            true => forms.push(Form { format: variant.format, precision, path: variant.path }),
            false => skipped.push(format!("{} {precision}", variant.format).trim_end().to_owned()),
        }
    }
    let known: Vec<String> = artifact.variants().map(|variant| variant.to_string()).collect();
    let missing = |what: String| {
        Err(Error::new("variant-not-found", format!("{}: {what}", artifact.folder().display()))
            .help(format!("it has {}", known.join(", "))))
    };
    if let Some(at) = found.iter().position(|found| !found) {
        return missing(format!("the artifact has no form `{}`", wanted[at].escape_debug()));
    }
    if forms.is_empty() {
        return missing(format!("it has no form in {}, which can be measured", FORMATS.join(" or ")));
    }
    Ok((forms, skipped))
}

impl Report {
    /// Enters what was measured into the manifest: whole, or not at all.
    fn enter(&self, folder: &Path) -> Result<()> {
        let _busy = Busy::take(folder)?;
        // Read again: forms may have been added while others were measured.
        let mut manifest = Manifest::read(folder)?;
        for form in &self.forms {
            let is = |entry: &&mut FormatEntry| {
                entry.format.eq_ignore_ascii_case(&form.format)
                    && entry.method.as_deref().unwrap_or_default() == form.precision
            };
            let Some(entry) = manifest.formats.iter_mut().find(is) else { continue };
            entry.quality.extend(form.measures.quality());
            entry.quality.insert("passed".into(), form.passed.into());
            entry.quality.insert("text_sha256".into(), self.text.sha256.clone().into());
            entry.quality.insert("validated_at".into(), self.validated_at.clone().into());
        }
        let forms: Vec<String> = self.forms.iter().map(|f| format!("{} {}", f.format, f.precision)).collect();
        let of = |read: fn(&Measures) -> u64| self.forms.first().map(|f| read(&f.measures));
        let validation = json!({
            "validated_at": self.validated_at,
            "pipeline_version": env!("CARGO_PKG_VERSION"),
            "original": self.original,
            "text": self.text,
            "window": of(|m| m.window),
            "chunks": of(|m| m.chunks),
            "limits": self.limits,
            "forms": forms,
            "passed": self.passed,
        });
        if let Value::Object(validation) = validation {
            manifest.validation.extend(validation);
        }
        manifest.write(folder)
    }

    /// What was not kept to, form by form; `None` when everything was.
    pub fn failure(&self) -> Option<Error> {
        let failed: Vec<String> = self
            .forms
            .iter()
            .filter(|form| !form.passed)
            .flat_map(|form| form.checks.iter().filter(|c| !c.passed).map(move |c| (form, c)))
            .map(|(form, check)| format!("{} {}: {check}", form.format, form.precision))
            .collect();
        (!failed.is_empty()).then(|| {
            Error::new("validation-failed", failed.join("\n  ")).help(
                "take more bits, or an importance matrix; or set limits that suit what the model is for",
            )
        })
    }

    /// Writes the report as Markdown, with its charts as SVG files beside it: each whole or not at all.
    ///
    /// # Errors
    /// `io`.
    pub fn write(&self, path: &Path) -> Result<()> {
        report::write(self, path)
    }
}

/// Size and hash of a file, under its name alone.
fn describe(path: &Path) -> Result<FileEntry> {
    let entry = describe_file(Path::new(""), &path.to_string_lossy(), |_| Ok(()))?;
    Ok(FileEntry { path: name(path), ..entry })
}

/// The last part of a path: reports leave their machine.
fn name(path: &Path) -> String {
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if stays_inside(&name) { name } else { String::new() }
}

/// Bytes of a file, or of the files of a folder.
fn bytes(path: &Path) -> u64 {
    match fs::metadata(path) {
        Ok(about) if about.is_file() => about.len(),
        _ => fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|about| about.len())
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> (tempfile::TempDir, Artifact) {
        let folder = tempfile::tempdir().unwrap();
        let entry = |format: &str, method: &str| FormatEntry {
            format: format.into(),
            method: Some(method.into()),
            ..FormatEntry::default()
        };
        let formats = vec![entry("gguf", "Q8_0"), entry("gguf", "Q4_K_M"), entry("onnx", "int8")];
        let manifest = Manifest { schema: 1, model_id: "m".into(), formats, ..Manifest::default() };
        manifest.write(folder.path()).unwrap();
        let artifact = Artifact::open(folder.path()).unwrap();
        (folder, artifact)
    }

    #[test]
    fn forms_are_chosen_and_what_is_not_measured_is_said() {
        let (_folder, artifact) = artifact();
        let chosen = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
            let (forms, skipped) = chosen(&artifact, &wanted)?;
            Ok::<_, Error>((forms.into_iter().map(|f| f.precision).collect::<Vec<_>>(), skipped))
        };
        let (both, left) = (["Q8_0", "Q4_K_M"].map(str::to_owned), ["onnx int8".to_owned()]);
        assert_eq!(chosen(&[]).unwrap(), (both.to_vec(), left.to_vec()));
        assert_eq!(chosen(&["all"]).unwrap(), (both.to_vec(), left.to_vec()));
        assert_eq!(chosen(&["GGUF:q4_k_m"]).unwrap(), (vec!["Q4_K_M".to_owned()], vec![]));
        for wanted in ["mlx", "gguf:Q2_K", "onnx"] {
            assert_eq!(chosen(&[wanted]).unwrap_err().code(), "variant-not-found", "{wanted}");
        }
    }

    #[test]
    fn what_was_measured_stands_in_the_manifest_beside_what_stood_there() {
        let (folder, artifact) = artifact();
        let mut manifest = artifact.manifest().clone();
        manifest.formats[1].quality.insert("metric".into(), "answers".into());
        manifest.write(folder.path()).unwrap();
        let measures = Measures { chunks: 3, window: 64, ..Measures::default() };
        let form = Validated {
            format: "gguf".into(),
            precision: "Q4_K_M".into(),
            bytes: 1,
            checks: Limits::default().check(&measures),
            passed: false,
            measures,
        };
        let report = Report {
            model: "m".into(),
            original: "original".into(),
            text: FileEntry { path: "text".into(), bytes: 2, sha256: "a".repeat(64) },
            validated_at: "2026-01-01T00:00:00Z".into(),
            limits: Limits::default(),
            passed: false,
            forms: vec![form],
            skipped: Vec::new(),
        };
        report.enter(folder.path()).unwrap();
        let written = Manifest::read(folder.path()).unwrap();
        assert!(written.formats[0].quality.is_empty());
        let quality = &written.formats[1].quality;
        assert_eq!((&quality["metric"], &quality["passed"]), (&"answers".into(), &false.into()));
        assert_eq!((&written.validation["chunks"], &written.validation["window"]), (&3.into(), &64.into()));
        assert_eq!(report.failure().unwrap().code(), "validation-failed");

        // Nobody writes beside a run.
        let _busy = Busy::take(folder.path()).unwrap();
        assert_eq!(report.enter(folder.path()).unwrap_err().code(), "output-busy");
    }
}
