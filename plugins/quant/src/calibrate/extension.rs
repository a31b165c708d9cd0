//! The extension `pajamas.calibrate/1`: importance matrices made, merged and looked at.

use std::ops::ControlFlow;
use std::path::PathBuf;

use pajamas_plugin_api::{
    Cancel, EventSink, Extension, HostContext, NamedTensor, PluginError, Result, TensorSink, codes,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Calibration, Coverage, domains};
use crate::error;
use crate::imatrix::{Matrix, Statistics};

/// The extension's name.
pub const NAME: &str = "pajamas.calibrate/1";
/// The name of the events that say how far it is.
const PROGRESS: &str = "progress";

/// The most threads, and the most files to merge: beyond it, a number is a mistake.
const MOST: usize = 1024;

/// Makes, merges and shows importance matrices: one object in, one out.
pub struct Calibrate(HostContext);

impl Calibrate {
    /// Needs the host for the folder that llama.cpp's libraries lie in.
    pub fn new(host: HostContext) -> Self {
        Self(host)
    }
}

/// What may be asked for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Call {
    /// Calibrate a model.
    Collect(Collect),
    /// Add matrices of one model.
    Merge { files: Vec<PathBuf>, output: PathBuf },
    /// What a matrix says.
    Show { file: PathBuf },
    /// Which domains there are.
    Domains,
}

#[derive(Debug, Deserialize)]
struct Collect {
    source: PathBuf,
    #[serde(default)]
    texts: Vec<PathBuf>,
    #[serde(default)]
    domains: Vec<String>,
    output: PathBuf,
    chunks: Option<usize>,
    chunk_size: Option<u32>,
    threads: Option<u32>,
    #[serde(default)]
    resume: bool,
    #[serde(default)]
    hold_out: bool,
    #[serde(default = "yes")]
    balance: bool,
    pre: Option<String>,
}

fn yes() -> bool {
    true
}

impl Extension for Calibrate {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: Call = serde_json::from_slice(input)
            .map_err(|e| PluginError::invalid_input(format!("the call of {NAME}: {e}")))?;
        let answer = match call {
            Call::Collect(collect) => {
                let mut progress = |fraction: f32, message: &str| {
                    let payload = json!({ "fraction": fraction, "message": message }).to_string();
                    match events.event(PROGRESS, payload.as_bytes()) {
                        ControlFlow::Continue(()) => Ok(()),
                        ControlFlow::Break(()) => Err(PluginError::cancelled()),
                    }
                };
                value(&collect.calibration()?.run(&self.0, &mut progress, cancel)?)
            }
            Call::Merge { files, output } => merge(&files, &output),
            Call::Show { file } => show(&Matrix::read(&file)?),
            Call::Domains => Ok(json!({ "domains": domains().collect::<Vec<_>>() })),
        };
        Ok(answer?.to_string().into_bytes())
    }
}

impl Collect {
    fn calibration(self) -> Result<Calibration> {
        let invalid = |what: &str| PluginError::new(codes::INVALID_OPTION, what.to_owned());
        if self.texts.is_empty() && self.domains.is_empty() {
            let known: Vec<&str> = domains().collect();
            return Err(invalid("there is no text to calibrate with")
                .help(format!("name a text or a domain; domains are {}", known.join(", "))));
        }
        if self.chunks == Some(0) {
            return Err(invalid("0 pieces of text are none").help("leave `chunks` out for all"));
        }
        if self.threads.is_some_and(|n| !(1..=MOST).contains(&(n as usize))) {
            return Err(invalid("threads are 1 to 1024"));
        }
        error::must_exist(&self.source)?;
        Ok(Calibration {
            source: self.source,
            texts: self.texts,
            domains: self.domains,
            output: self.output,
            chunks: self.chunks,
            chunk_size: self.chunk_size,
            threads: self.threads,
            resume: self.resume,
            hold_out: self.hold_out,
            balance: self.balance,
            pre: self.pre,
        })
    }
}

fn merge(files: &[PathBuf], output: &std::path::Path) -> Result<Value> {
    let (Some((first, rest)), true) = (files.split_first(), files.len() <= MOST) else {
        let what = format!("{} matrices: 1 to {MOST} can be merged", files.len());
        return Err(PluginError::new(codes::INVALID_OPTION, what));
    };
    let mut sum = Matrix::read(first)?;
    rest.iter().try_for_each(|file| sum.merge(Matrix::read(file)?))?;
    let bytes = sum.write(output)?;
    let mut answer = facts(&sum)?;
    answer["output"] = value(&output)?;
    answer["bytes"] = bytes.into();
    Ok(answer)
}

fn show(matrix: &Matrix) -> Result<Value> {
    let statistics = Statistics::of(matrix);
    let mut answer = facts(matrix)?;
    answer["statistics"] = value(&statistics.tensors)?;
    answer["layers"] = value(&statistics.layers)?;
    Ok(answer)
}

fn facts(matrix: &Matrix) -> Result<Value> {
    Ok(json!({
        "datasets": matrix.datasets,
        "chunks": matrix.chunks,
        "chunk_size": matrix.chunk_size,
        "tensors": matrix.entries.len(),
        "calibration": value(&matrix.calibration)?,
        "experts": value(&Coverage::of(matrix))?,
    }))
}

fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|e| PluginError::new(codes::INTERNAL, e.to_string()))
}
