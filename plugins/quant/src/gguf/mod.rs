//! The quantizer `gguf`: Hugging Face folders and GGUF files to GGUF files in llama.cpp's precisions.

mod options;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, Extension, HostContext, OutputFile, PluginError, ProgressSink, QuantizePlan, QuantizeReport,
    QuantizeRequest, Quantizer, QuantizerInfo, Result, SUMS, Sums, SumsExtension,
};
use serde_json::{Value, json};

use crate::calibrate::{self, Calibrate};
use crate::convert::output::Written;
use crate::convert::{Conversion, OutType, Progress};
use crate::describe::{self, Describe};
use crate::error;
use crate::evaluate::{self, Evaluate};
use crate::imatrix::Identity;
use crate::quantize::{self, FileType, Folder, GgufFile, Importance, Original, Quantization, Strategy};
use crate::resume;
use crate::solve::{self, Solve, Solved};
use crate::source::Source;
use options::Options;

/// Makes GGUF files, and measures models.
#[derive(Clone)]
pub struct GgufQuantizer {
    host: HostContext,
    /// The folder that was written into last, and the sums of what came into it.
    sums: Arc<Mutex<(PathBuf, Sums)>>,
}

impl GgufQuantizer {
    /// Needs the host for the folder that llama.cpp's libraries lie in.
    pub fn new(host: HostContext) -> Self {
        Self { host, sums: Arc::default() }
    }

    /// The sums of what the last run wrote into a folder.
    fn sums(&self, folder: &Path) -> Sums {
        let last = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 == folder { last.1.clone() } else { Sums::new() }
    }
}

impl Quantizer for GgufQuantizer {
    fn describe(&self) -> QuantizerInfo {
        QuantizerInfo {
            id: "gguf".into(),
            description: "GGUF files for llama.cpp, byte for byte as its own tools make them".into(),
            sources: vec!["huggingface".into(), "gguf".into()],
            target: "gguf".into(),
            precisions: FileType::all().map(|t| t.name().to_owned()).collect(),
            options_schema: options::schema(),
        }
    }

    fn plan(&self, request: &QuantizeRequest) -> Result<QuantizePlan> {
        with_work(request, |work| {
            let solve = work.solve(&self.host);
            let (bytes, mut notes) = match &solve {
                Some(solve) => (solve.most_bytes()?, vec![SOLVED_WHEN_RUN.to_owned()]),
                None => (work.bytes()?, Vec::new()),
            };
            notes.extend_from_slice(work.notes());
            Ok(QuantizePlan {
                files: vec![OutputFile { path: work.file.clone(), bytes }],
                peak_memory: work.peak_memory(),
                notes,
            })
        })
    }

    fn run(
        &self,
        request: &QuantizeRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<QuantizeReport> {
        with_work(request, |work| {
            fs::create_dir_all(&request.output).map_err(|e| error::unwritable(&request.output, &e))?;
            let started = Instant::now();
            let mut report = |name: &str, done: u64, all: u64| match progress
                .progress((done as f64 / all.max(1) as f64) as f32, name)
            {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(PluginError::cancelled()),
            };
            let path = request.output.join(&work.file);
            let identity = resume::identity(request)?;
            let solved = match work.solve(&self.host) {
                Some(solve) => {
                    let mut told = |fraction: f32, what: &str| {
                        cancel.check()?;
                        report(what, (f64::from(fraction) * STEPS) as u64, STEPS as u64)
                    };
                    Some(solve.run(&path, &identity, &mut told, cancel)?)
                }
                None => None,
            };
            let written = match &solved {
                Some(solved) => Written { bytes: solved.bytes, resumed: 0, sha256: None },
                None => work.write(&path, &identity, cancel, &mut report)?,
            };
            if solved.is_none() {
                // What one that solved and was killed left there is of no use to anybody now.
                solve::forget(&path);
            }
            let sum = written.sha256.map(|sum| (work.file.clone(), sum));
            *self.sums.lock().unwrap_or_else(PoisonError::into_inner) =
                (request.output.clone(), sum.into_iter().collect());
            let bytes = written.bytes;
            let mut metadata = work.metadata(solved.as_ref());
            if written.resumed > 0 {
                metadata["resumed_bytes"] = json!(written.resumed);
            }
            metadata["seconds"] = json!(started.elapsed().as_secs_f64());
            Ok(QuantizeReport { files: vec![OutputFile { path: work.file.clone(), bytes }], metadata })
        })
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        match name {
            describe::NAME => Some(Box::new(Describe)),
            calibrate::NAME => Some(Box::new(Calibrate::new(self.host.clone()))),
            SUMS => {
                let quantizer = self.clone();
                Some(Box::new(SumsExtension(move |folder: &Path| quantizer.sums(folder))))
            }
            evaluate::NAME => Some(Box::new(Evaluate(self.host.clone()))),
            _ => None,
        }
    }
}

/// Steps in which progress is told that is a share and no number of bytes.
const STEPS: f64 = 1e6;
/// What a plan says that cannot say more.
const SOLVED_WHEN_RUN: &str = "solve: types are measured and chosen when it runs; the size is the most that it can be. The run needs room for four bytes a weight and for logits beside the output";

/// What a request comes to.
struct Work<'a> {
    making: Making<'a>,
    /// What is quantized.
    original: Option<&'a dyn Original>,
    quantizing: &'a quantize::Options<'a>,
    /// The name of the file.
    file: PathBuf,
    file_type: FileType,
    options: &'a Options,
    /// What is known of the model, for the manifest.
    facts: Value,
    /// The text that importance was collected on.
    calibration: Option<Identity>,
}

enum Making<'a> {
    /// Plain numbers and the plainest blocks, as llama.cpp's converter writes them.
    Converted(&'a Conversion<'a>),
    /// Anything else, as its quantizer does.
    Quantized(&'a Quantization<'a>),
}

/// Plans what a request asks for, and hands it to `then`.
fn with_work<T>(request: &QuantizeRequest, then: impl FnOnce(Work<'_>) -> Result<T>) -> Result<T> {
    let options = &Options::read(&request.options)?;
    let file_type: FileType = request.precision.parse()?;
    error::must_exist(&request.source)?;
    let importance = options.imatrix.as_deref().map(Importance::open).transpose()?;
    let calibration = importance.as_ref().and_then(|importance| importance.calibration.clone());
    let quantizing = &quantize::Options {
        strategy: options.strategy,
        wishes: options.wishes.clone(),
        types: None,
        importance: importance.as_ref(),
        importance_name: options.imatrix.as_deref().map(file_name).unwrap_or_default(),
        requantize: options.allow_requantize,
        allow_non_finite: options.allow_nan,
    };
    // What cannot be described in the manifest's words can be quantized all the same.
    let facts = describe::of(&request.source).unwrap_or(Value::Null);
    let with = |making, original, name: &str| {
        let file = PathBuf::from(format!("{}-{}.gguf", plain(name), file_type.name()));
        Work { making, original, quantizing, file, file_type, options, facts, calibration }
    };
    if request.source.is_file() {
        let file = GgufFile::open(&request.source)?;
        let quantization = Quantization::plan(&file, file_type, quantizing)?;
        let stem = request.source.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        return then(with(Making::Quantized(&quantization), Some(&file), &stem));
    }
    let source = Source::open(&request.source)?;
    let pre = options.pre.as_deref();
    let plain_type = options.is_plain().then(|| plain_type(file_type)).flatten();
    let conversion = Conversion::plan(&source, plain_type.unwrap_or(OutType::F32), pre)?;
    let conversion = conversion.allow_non_finite(options.allow_nan);
    if plain_type.is_some() {
        return then(with(Making::Converted(&conversion), None, &source.name()));
    }
    let folder = Folder::new(&conversion);
    let quantization = Quantization::plan(&folder, file_type, quantizing)?;
    then(with(Making::Quantized(&quantization), Some(&folder), &source.name()))
}

/// The types that the converter itself writes.
fn plain_type(file_type: FileType) -> Option<OutType> {
    match file_type {
        FileType::F32 => Some(OutType::F32),
        FileType::F16 => Some(OutType::F16),
        FileType::BF16 => Some(OutType::Bf16),
        FileType::Q8_0 => Some(OutType::Q8_0),
        _ => None,
    }
}

impl Work<'_> {
    /// What solves for types, where that is the strategy.
    fn solve<'s>(&'s self, host: &'s HostContext) -> Option<Solve<'s>> {
        let original = self.original.filter(|_| self.options.strategy == Strategy::Solve)?;
        let (file_type, options) = (self.file_type, self.quantizing);
        Some(Solve { host, original, file_type, options, settings: &self.options.solve })
    }

    fn bytes(&self) -> Result<u64> {
        match self.making {
            Making::Converted(conversion) => conversion.bytes(),
            Making::Quantized(quantization) => quantization.bytes(),
        }
    }

    fn notes(&self) -> &[String] {
        match self.making {
            Making::Converted(conversion) => conversion.notes(),
            Making::Quantized(quantization) => quantization.notes(),
        }
    }

    fn peak_memory(&self) -> u64 {
        match self.making {
            Making::Converted(conversion) => conversion.peak_memory(),
            Making::Quantized(quantization) => quantization.peak_memory(self.options.threads()),
        }
    }

    fn write(
        &self,
        path: &Path,
        identity: &str,
        cancel: &Cancel,
        progress: &mut Progress<'_>,
    ) -> Result<Written> {
        let identity = Some(identity);
        match self.making {
            Making::Converted(conversion) => conversion.write_on(path, identity, cancel, progress),
            Making::Quantized(quantization) => {
                quantization.write_on(path, identity, self.options.threads(), cancel, progress)
            }
        }
    }

    /// What goes into the manifest.
    fn metadata(&self, solved: Option<&Solved>) -> Value {
        let (tensors, bits) = match (solved, &self.making) {
            (Some(solved), _) => solved.types.clone(),
            (None, Making::Converted(conversion)) => conversion.types(),
            (None, Making::Quantized(quantization)) => quantization.types(),
        };
        let mut notes = solved.map(|solved| solved.notes.clone()).unwrap_or_default();
        notes.extend_from_slice(self.notes());
        let mut metadata = json!({
            "precision": self.file_type.name(),
            "strategy": self.options.strategy.name(),
            "tensors": tensors,
            "bits_per_weight": (bits * 1e4).round() / 1e4,
            "notes": notes,
            "calibration": self.calibration,
            "model": self.facts,
            "format_version": pajamas_llama_cpp::gguf::VERSION,
        });
        if let Some(solved) = solved {
            metadata["solve"] = solved.report.clone();
        }
        metadata
    }
}

/// A name of letters that every file system knows, without a precision that it ends in, or the number of a part.
fn plain(name: &str) -> String {
    let name = match name.rsplit_once("-of-").and_then(|(before, _)| before.strip_suffix("-00001")) {
        Some(whole) if !whole.is_empty() => whole,
        _ => name,
    };
    let is_precision = |end: &str| end.parse::<FileType>().is_ok();
    let name = match name.rsplit_once(['-', '.']) {
        Some((stem, end)) if is_precision(end) && !stem.is_empty() => stem,
        _ => name,
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    match name.trim_matches(['-', '.']) {
        "" => "model".into(),
        name => name.into(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_their_model() {
        for (name, wanted) in [
            ("Qwen3-0.6B", "Qwen3-0.6B"),
            ("tiny-F16", "tiny"),
            ("tiny.q8_0", "tiny"),
            ("a b/c", "a-b-c"),
            ("big-Q8_0-00001-of-00003", "big"),
            ("..", "model"),
            ("Q4_0", "Q4_0"),
        ] {
            assert_eq!(plain(name), wanted);
        }
    }
}
