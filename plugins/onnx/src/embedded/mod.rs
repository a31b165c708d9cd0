//! The `rten` backend: a small engine in Rust, compiled in and always there.

mod convert;
mod repair;
mod session;
mod wire;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, HostContext, Level, LoadRequest, Memory, PluginError, Probe, ProgressSink,
    Result, Session, capability,
};
use rten::{LoadError, LoadErrorKind, Model, ModelOptions};

use crate::device;
use crate::error::{self, FETCH};
use crate::model::Summary;
use crate::options::{self, Optimization, RtenOptions};
use crate::ports::Ports;
use crate::seq2seq::{self, Seq2Seq};
use session::RtenSession;

/// The backend's id, and the engine's name in messages.
const ENGINE: &str = "rten";

/// How long a cancel flag may go unnoticed while a model loads.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs ONNX models with the embedded engine.
pub(crate) struct Rten {
    host: HostContext,
}

impl Rten {
    pub(crate) fn new(host: HostContext) -> Self {
        Self { host }
    }

    /// Checks the request's device and reads its options.
    fn options(request: &LoadRequest) -> Result<RtenOptions> {
        if !request.device.is_empty() && request.device != device::CPU {
            return Err(PluginError::new(
                "device-unavailable",
                format!("{ENGINE} has no device `{}`", request.device),
            )
            .help("rten runs on the processor: name `cpu`, or use the backend `onnxruntime`"));
        }
        options::parse(ENGINE, &request.options, &options::rten_schema())
    }

    /// What a model will hold. Weights that are packed ahead exist twice.
    fn memory(model: &Summary, options: &RtenOptions) -> Memory {
        let copies = if options.prepack_weights { 2 } else { 1 };
        let weights = model.weights.saturating_mul(copies);
        Memory {
            device: device::CPU.to_owned(),
            weights,
            kv: 0,
            scratch: options.parallel.scratch(model.activations),
        }
    }
}

impl Backend for Rten {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: ENGINE.to_owned(),
            description: "ONNX models by the embedded engine rten".to_owned(),
            formats: vec!["onnx".to_owned()],
            precisions: ["f32", "f16", "int8"].map(str::to_owned).to_vec(),
            device_kinds: vec![device::CPU.to_owned()],
            capabilities: vec![capability::INFER.to_owned()],
            options_schema: options::rten_schema(),
        }
    }

    fn probe(&self) -> Probe {
        Probe { score: 100, reason: "embedded, always there".to_owned(), devices: vec![device::cpu()] }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        let options = Self::options(request)?;
        let mut files = vec![request.path.clone()];
        files.extend(seq2seq::decoders(&request.path));
        let memory = files.iter().map(|file| Ok(Self::memory(&prepare(file)?.0, &options)));
        Ok(seq2seq::sum(memory.collect::<Result<Vec<_>>>()?))
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let options = Self::options(request)?;
        let mut step = |fraction: f32, message: &str| match progress.progress(fraction, message) {
            ControlFlow::Continue(()) => cancel.check(),
            ControlFlow::Break(()) => Err(PluginError::cancelled()),
        };
        let decoders = seq2seq::decoders(&request.path);
        let parts = 1 + decoders.len();
        let encoder =
            self.open(&request.path, &options, &mut |part, words| step(part / parts as f32, words))?;
        if decoders.is_empty() {
            step(1.0, "ready")?;
            return Ok(Box::new(encoder));
        }
        let mut decoder = Vec::with_capacity(decoders.len());
        for path in decoders {
            let done = 1 + decoder.len();
            let mut step = |part: f32, words: &str| step((done as f32 + part) / parts as f32, words);
            decoder.push(self.open(&path, &options, &mut step)?);
        }
        let model = Seq2Seq::new(encoder, decoder)?;
        step(1.0, "ready")?;
        Ok(Box::new(model))
    }
}

impl Rten {
    /// Verifies a file and loads it.
    fn open(
        &self,
        path: &Path,
        options: &RtenOptions,
        step: &mut dyn FnMut(f32, &str) -> Result<()>,
    ) -> Result<RtenSession> {
        step(0.0, "verifying the model")?;
        let (summary, repaired) = prepare(path)?;
        let ports = Ports::new(ENGINE, &convert::DTYPES, &summary.inputs, &summary.outputs)?;
        for (name, why) in &ports.omitted {
            let path = path.display();
            self.host.log(Level::Warn, format!("{path}: output `{name}` {why} and is left out"));
        }
        step(0.1, "loading the model")?;
        let memory = Self::memory(&summary, options);
        let model = read(path, repaired, summary.external, options, || step(0.5, "loading the model"))?;
        RtenSession::new(model, ports, summary.metadata, memory, options)
    }
}

/// Loads the model on a thread of its own, asking `go_on` meanwhile: rten's loading cannot be interrupted, but it
/// can be left behind. The thread then drops what it loaded.
fn read(
    path: &Path,
    repaired: Option<Vec<u8>>,
    external: BTreeSet<String>,
    options: &RtenOptions,
    mut go_on: impl FnMut() -> Result<()>,
) -> Result<Model> {
    let (done, loaded) = mpsc::sync_channel(1);
    let (file, options) = (path.to_path_buf(), options.clone());
    thread::Builder::new()
        .name("rten-load".to_owned())
        .spawn(move || {
            // Nobody listens any more once the load was cancelled.
            let _ = done.send(open(&file, repaired, &external, &options));
        })
        .map_err(|e| error::internal(ENGINE, e))?;
    loop {
        match loaded.recv_timeout(INTERVAL) {
            Ok(model) => return model.map_err(|e| load_error(path, &e)),
            Err(RecvTimeoutError::Timeout) => go_on()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(error::unsupported(ENGINE, path, "it panicked while loading the model")
                    .help(other_engine()));
            }
        }
    }
}

/// The model's summary, and its bytes where they had to be changed for rten to compute it rightly.
fn prepare(path: &Path) -> Result<(Summary, Option<Vec<u8>>)> {
    let summary = Summary::read(path, convert::bits)?;
    let count = summary.operators.iter().filter(|(name, _)| repair::concerns(name)).map(|(_, n)| n).sum();
    if count == 0 {
        return Ok((summary, None));
    }
    let bytes = std::fs::read(path).map_err(|e| error::not_found(path, &e))?;
    match repair::repair(&bytes, count) {
        Err(what) => Err(error::unsupported(ENGINE, path, what).help(other_engine())),
        Ok(None) => Ok((summary, None)),
        Ok(Some(repaired)) => {
            let summary = Summary::parse(Cursor::new(&repaired), repaired.len() as u64, path, convert::bits)?;
            Ok((summary, Some(repaired)))
        }
    }
}

/// rten opens a model only under a name that ends in `.onnx`. Under any other, and when it was changed, it gets the
/// bytes, and those of the further files: the summary has checked where they lie.
fn open(
    path: &Path,
    repaired: Option<Vec<u8>>,
    external: &BTreeSet<String>,
    options: &RtenOptions,
) -> Result<Model, LoadError> {
    let mut settings = ModelOptions::with_all_ops();
    settings
        .enable_optimization(options.optimization != Optimization::None)
        .prepack_weights(options.prepack_weights);
    let named_onnx = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
    let bytes = match repaired {
        Some(bytes) => Some(bytes),
        None if named_onnx => None,
        None => std::fs::read(path).ok(),
    };
    // A file that cannot be read now could be a moment ago: rten words what has become of it.
    let Some(bytes) = bytes else { return settings.load_file(path) };
    let folder = path.parent().unwrap_or(Path::new(""));
    for location in external {
        if let Ok(data) = std::fs::read(folder.join(location)) {
            settings.external_data(location, data);
        }
    }
    settings.load(bytes)
}

/// Why rten refused a model that the summary found well-formed.
fn load_error(path: &Path, error: &LoadError) -> PluginError {
    match error.kind() {
        LoadErrorKind::IoError => error::not_found(path, &std::io::Error::other(error.to_string())),
        LoadErrorKind::ExternalDataError => error::unsupported(ENGINE, path, error).help(format!(
            "rten takes data only from `*.data` and `*.onnx_data` in the model's own folder; {}",
            other_engine()
        )),
        _ => error::unsupported(ENGINE, path, error).help(other_engine()),
    }
}

fn other_engine() -> String {
    format!("use the backend `onnxruntime`, which runs every ONNX model: `{FETCH}` installs it")
}
