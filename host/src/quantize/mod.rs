//! Makes artifacts: finds the quantizer for each format among the plugins, lets it write, and keeps the books: hashes,
//! `metadata.json` for each form, and the manifest.
//!
//! It knows no format: what can be made, out of what and with which options is what quantizers say of themselves.

pub mod batch;
mod busy;
pub mod calibrate;
mod identity;
mod origin;
mod record;
mod select;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Cancel, OutputFile, QuantizePlan, QuantizeReport, QuantizeRequest, Sums, sums_of};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::artifact::{FileEntry, describe_file};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
pub(crate) use busy::Busy;
pub use calibrate::Calibration;
pub use origin::{describe, weights};
pub use record::Record;
use select::Selected;
pub use select::names_files;

/// A format in a precision, as a person writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Form {
    /// For example `gguf`.
    pub format: String,
    /// For example `Q4_K_M`, in any case.
    pub precision: String,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// A Hugging Face folder, a model file, or an artifact, whose first form it then is.
    pub source: PathBuf,
    /// The artifact's folder. Forms that it has already stay.
    pub output: PathBuf,
    /// The forms to make.
    pub forms: Vec<Form>,
    /// Options after the quantizers' schemas; each quantizer is given those that it knows.
    pub options: Map<String, Value>,
}

/// What a form would come to.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// The form, spelled as its quantizer does.
    #[serde(flatten)]
    pub form: Form,
    /// Files, memory and notes.
    #[serde(flatten)]
    pub plan: QuantizePlan,
}

/// What became of a form.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// The form, spelled as its quantizer does.
    #[serde(flatten)]
    pub form: Form,
    /// Whether it was there already, made of the same source in the same way.
    pub skipped: bool,
    /// Its files, with their hashes.
    pub files: Vec<FileEntry>,
    /// What its quantizer says of it.
    pub report: Value,
}

/// What is told to be done while what was written is read back, after the form itself.
pub const HASHING: &str = "hashing";

/// What is told while artifacts are made: the form at work, how far it is (0 to 1), and a few words.
pub type Progress<'p> = dyn FnMut(&Form, f32, &str) -> ControlFlow<()> + 'p;

/// The formats that are made where nobody names any.
pub fn usual_formats() -> Vec<String> {
    vec!["gguf".to_owned()]
}

/// The forms that a list of formats and their precisions stand for: one list of precisions for each format, with colons
/// between them; several precisions of one format with commas.
///
/// # Errors
/// `invalid-option` when there are not as many of both.
pub fn forms(formats: &[String], precision: &str) -> Result<Vec<Form>> {
    let lists: Vec<&str> = precision.split(':').collect();
    if lists.len() != formats.len() {
        let message = format!(
            "the precision {precision} is for {} formats, and there are {}",
            lists.len(),
            formats.len()
        );
        return Err(Error::new("invalid-option", message)
            .help("write one precision for each format, with colons between: Q4_K_M:4bit"));
    }
    let pairs = formats.iter().zip(lists).flat_map(|(format, list)| {
        list.split(',')
            .map(|precision| Form { format: format.clone(), precision: precision.trim().to_owned() })
    });
    Ok(pairs.collect())
}

impl Job {
    /// Whether there is a quantizer for every form, with such precisions and options; opens no model.
    ///
    /// # Errors
    /// `quantizer-not-found`, `invalid-option`, `model-not-found`.
    pub fn check(&self, plugins: &Plugins) -> Result<()> {
        select::all(self, plugins).map(drop)
    }

    /// As [`check`](Self::check), for a source of this format that is not here yet.
    ///
    /// # Errors
    /// `quantizer-not-found`, `invalid-option`.
    pub fn check_for(&self, format: &str, plugins: &Plugins) -> Result<()> {
        let source = origin::Origin { format: format.to_owned(), path: self.source.clone() };
        select::of(self, &source, plugins).map(drop)
    }

    /// What [`run`](Self::run) would write, with exact sizes, without writing or reading a weight's value.
    ///
    /// # Errors
    /// `quantizer-not-found`, `invalid-option`, `model-not-found`, and what the quantizers refuse.
    pub fn plan(&self, plugins: &Plugins) -> Result<Vec<Planned>> {
        let selected = select::all(self, plugins)?;
        let plan = |one: &Selected<'_>| {
            let plan = one.quantizer.quantizer.plan(&one.request)?;
            Ok(Planned { form: one.form.clone(), plan })
        };
        selected.iter().map(plan).collect()
    }

    /// Makes every form, one after the other. What was made stays when a later one fails.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan); `output-busy` while another run writes into the same folder; `cancelled`; `io`.
    pub fn run(&self, plugins: &Plugins, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Vec<Made>> {
        let selected = select::all(self, plugins)?;
        // What a later form is refused for is known before an earlier one is written; a single one plans for itself.
        if selected.len() > 1 {
            selected.iter().try_for_each(|one| one.quantizer.quantizer.plan(&one.request).map(drop))?;
        }
        let _busy = Busy::take(&self.output)?;
        let mut made = Vec::new();
        for one in &selected {
            let result = self.make(one, progress, cancel);
            if result.is_err() {
                // Folders that nothing came into go again; those that hold something stay.
                [Some(one.request.output.as_path()), one.request.output.parent()]
                    .into_iter()
                    .flatten()
                    .for_each(|folder| {
                        let _ = std::fs::remove_dir(folder);
                    });
            }
            made.push(result?);
        }
        Ok(made)
    }

    fn make(&self, one: &Selected<'_>, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Made> {
        let Selected { form, request, quantizer } = one;
        let identity = identity::of(request, quantizer)?;
        if let Some(record) = Record::read(&self.output, form)?
            && record.identity == identity
            && record.is_there(&self.output)
        {
            record::into_manifest(&self.output, &record)?;
            return Ok(Made {
                form: form.clone(),
                skipped: true,
                files: record.files,
                report: record.report,
            });
        }
        let report = {
            let mut tell = |fraction: f32, what: &str| progress(form, fraction, what);
            quantizer.quantizer.run(request, &mut tell, cancel)?
        };
        // A quantizer that cannot say them leaves it to us.
        let sums = sums_of(&*quantizer.quantizer, &request.output).unwrap_or_default();
        let files = self.hash(request, form, &report, &sums, progress, cancel)?;
        let record = Record::new(form, quantizer, identity, files, report.metadata, request);
        record.write(&self.output)?;
        record::into_manifest(&self.output, &record)?;
        Ok(Made { form: form.clone(), skipped: false, files: record.files, report: record.report })
    }

    /// What was written, with its hashes: read back, unless the quantizer took them as it wrote.
    fn hash(
        &self,
        request: &QuantizeRequest,
        form: &Form,
        report: &QuantizeReport,
        sums: &Sums,
        progress: &mut Progress<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<FileEntry>> {
        let all: u64 = report.files.iter().map(|f| f.bytes).sum();
        let mut done = 0;
        let folder = relative(&self.output, &request.output);
        let mut hash = |file: &OutputFile| {
            let path = &file.path;
            let sum = sums.get(path);
            let Some(path) = path.to_str().filter(|p| crate::config::text::stays_inside(p)) else {
                let message =
                    format!("the quantizer wrote {}, which is no path in its folder", path.display());
                return Err(Error::new("internal", message));
            };
            let path = format!("{folder}/{path}");
            let there = std::fs::metadata(self.output.join(&path)).is_ok_and(|f| f.len() == file.bytes);
            if let Some(sha256) = sum.filter(|_| there) {
                return Ok(FileEntry { path, bytes: file.bytes, sha256: sha256.clone() });
            }
            describe_file(&self.output, &path, |bytes| {
                cancel.check()?;
                done += bytes;
                match progress(form, done as f32 / all.max(1) as f32, HASHING) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::new("cancelled", "stopped")),
                }
            })
        };
        report.files.iter().map(&mut hash).collect()
    }
}

/// The path of a form's folder inside the artifact, with `/`.
fn relative(output: &Path, folder: &Path) -> String {
    let inside = folder.strip_prefix(output).unwrap_or(folder);
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
