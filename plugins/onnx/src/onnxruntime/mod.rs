//! The `onnxruntime` backend: ONNX Runtime, loaded when it is first needed, from wherever it is installed.

mod kept;
mod library;
mod memory;
mod providers;
mod search;
mod session;
mod value;
mod watch;

use std::ops::ControlFlow;
use std::path::PathBuf;

use ort::ErrorCode;
use ort::ep;
use ort::session::Session as Ort;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{Outlet, ValueType};
use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, Dim, Extension, HostContext, LoadRequest, Memory, PluginError,
    Probe, ProgressSink, Result, Session, capability, codes,
};
use serde_json::Value;

use crate::device;
use crate::element;
use crate::error::{self, FETCH, RUNTIME_NOT_FOUND};
use crate::fitness::{self, Fit, Fitness};
use crate::model::{Declared, Kind, Summary, UNNAMED};
use crate::options::{self, OnnxRuntimeOptions, Optimization, Parallel, RtenOptions, Threads};
use crate::ports::Ports;
use crate::seq2seq::{self, Seq2Seq};
use library::{Runtime, Tried};
use search::Surroundings;
use session::OrtSession;
use watch::Watcher;

/// The backend's id, and the engine's name in messages.
const ENGINE: &str = "onnxruntime";

/// The device could not be used, or a provider for it not started.
const DEVICE_UNAVAILABLE: &str = "device-unavailable";

/// Runs ONNX models with an ONNX Runtime library of the machine.
pub(crate) struct OnnxRuntime {
    host: HostContext,
    surroundings: Surroundings,
}

impl OnnxRuntime {
    /// A backend that looks for the library in `configured`, where given, and else in the usual places.
    pub(crate) fn new(host: HostContext, configured: Option<PathBuf>) -> Self {
        let surroundings = Surroundings::of_process(configured, host.plugin_dir());
        Self { host, surroundings }
    }

    fn runtime(&self) -> Result<&'static Runtime, Tried> {
        library::runtime(&self.host, &self.surroundings)
    }

    fn schema() -> Value {
        options::onnxruntime_schema(&providers::names())
    }

    fn options(request: &LoadRequest) -> Result<OnnxRuntimeOptions> {
        options::parse(ENGINE, &request.options, &Self::schema())
    }
}

/// Below the embedded engine's score.
const BEHIND_EMBEDDED: u32 = 90;

/// On x86-64 ONNX Runtime multiplies the bytes of `ConvInteger` in an order of its own making and without the
/// processor's instructions for them: a YOLOv8n quantized so takes 2.2 times as long as in rten, and 4 times as long as
/// unquantized (docs/src/benchmarks.md). Only where rten could run the request as it stands.
fn judge(request: &LoadRequest) -> Result<Fit> {
    let takes_it = options::parse::<RtenOptions>(ENGINE, &request.options, &options::rten_schema()).is_ok();
    if !cfg!(target_arch = "x86_64") || !takes_it || !["", device::CPU].contains(&&*request.device) {
        return Ok(None);
    }
    let slow = Summary::read(&request.path, element::bits)?.operators.get("ConvInteger").copied();
    Ok(slow.map(|n| (BEHIND_EMBEDDED, format!("has no fast kernel for the model's {n} ConvInteger nodes"))))
}

/// Where a session shall run.
struct Placement {
    device: String,
    providers: Vec<ep::ExecutionProviderDispatch>,
}

impl Placement {
    /// From the request's device and its list of providers: a device `cuda:1` means the provider `cuda` on GPU 1.
    fn of(request: &LoadRequest, options: &OnnxRuntimeOptions) -> Result<Self> {
        let device = if request.device.is_empty() { device::CPU } else { &request.device };
        let mut names = options.execution_providers.clone();
        let gpu = match device.strip_prefix("cuda:").map(str::parse::<i32>) {
            Some(Ok(index)) if index >= 0 => {
                if !names.iter().any(|name| name == "cuda") {
                    names.push("cuda".to_owned());
                }
                index
            }
            None if device == device::CPU => 0,
            _ => {
                return Err(PluginError::new(
                    DEVICE_UNAVAILABLE,
                    format!("{ENGINE} has no device `{device}`"),
                )
                .help("name `cpu` or `cuda:N`, or choose an accelerator by `execution_providers`"));
            }
        };
        Ok(Self { device: device.to_owned(), providers: providers::dispatch(&names, gpu)? })
    }

    fn estimate(&self, model: &Summary, parallel: Parallel) -> Memory {
        let scratch = parallel.scratch(model.activations);
        Memory { device: self.device.clone(), weights: model.weights, kv: 0, scratch }
    }
}

impl Backend for OnnxRuntime {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: ENGINE.to_owned(),
            description: "ONNX models by the ONNX Runtime library installed on this machine".to_owned(),
            formats: vec!["onnx".to_owned()],
            precisions: ["f32", "f16", "int8"].map(str::to_owned).to_vec(),
            device_kinds: ["cpu", "cuda"].map(str::to_owned).to_vec(),
            capabilities: vec![capability::INFER.to_owned()],
            options_schema: Self::schema(),
        }
    }

    /// 200 with a library, 0 without. Accelerators do not raise the score: they are used when a request names one.
    fn probe(&self) -> Probe {
        let runtime = match self.runtime() {
            Ok(runtime) => runtime,
            Err(tried) => {
                let reason = format!("no ONNX Runtime library (`{FETCH}` fetches one); looked at {tried}");
                return Probe { score: 0, reason, devices: Vec::new() };
            }
        };
        let compiled_in = providers::compiled_in(&runtime.providers);
        let mut devices = vec![device::cpu()];
        if compiled_in.contains(&"cuda") {
            devices.extend(device::nvidia());
        }
        let mut reason = format!("ONNX Runtime {} at {}", runtime.version, runtime.path.display());
        if !compiled_in.is_empty() {
            reason = format!("{reason}; on request: {}", compiled_in.join(", "));
        }
        Probe { score: 200, reason, devices }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        let options = Self::options(request)?;
        let placement = Placement::of(request, &options)?;
        let mut files = vec![request.path.clone()];
        files.extend(seq2seq::decoders(&request.path));
        let memory = files
            .iter()
            .map(|file| Ok(placement.estimate(&Summary::read(file, element::bits)?, options.parallel)));
        Ok(seq2seq::sum(memory.collect::<Result<Vec<_>>>()?))
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let runtime = self.runtime().map_err(|tried| {
            PluginError::new(RUNTIME_NOT_FOUND, format!("no ONNX Runtime library; looked at {tried}"))
                .help(format!("fetch one with `{FETCH}`, set ORT_DYLIB_PATH, or use the backend `rten`"))
        })?;
        let options = Self::options(request)?;
        let placement = Placement::of(request, &options)?;
        let mut step = |fraction: f32, message: &str| match progress.progress(fraction, message) {
            ControlFlow::Continue(()) => cancel.check(),
            ControlFlow::Break(()) => Err(PluginError::cancelled()),
        };
        let opening = Opening { backend: self, runtime, options: &options, placement: &placement, cancel };
        let decoders = seq2seq::decoders(&request.path);
        let parts = 1 + decoders.len();
        let encoder = opening.open(request, &mut |fraction, words| step(fraction / parts as f32, words))?;
        if decoders.is_empty() {
            step(1.0, "ready")?;
            return Ok(Box::new(encoder));
        }
        let mut decoder = Vec::with_capacity(decoders.len());
        for path in decoders {
            let done = 1 + decoder.len();
            let request = LoadRequest { path, ..request.clone() };
            let mut step = |fraction: f32, words: &str| step((done as f32 + fraction) / parts as f32, words);
            decoder.push(opening.open(&request, &mut step)?);
        }
        let model = Seq2Seq::new(encoder, decoder)?;
        step(1.0, "ready")?;
        Ok(Box::new(model))
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        (name == fitness::NAME).then(|| -> Box<dyn Extension> { Box::new(Fitness(judge)) })
    }
}

/// What opening a file takes.
struct Opening<'o> {
    backend: &'o OnnxRuntime,
    runtime: &'o Runtime,
    options: &'o OnnxRuntimeOptions,
    placement: &'o Placement,
    cancel: &'o Cancel,
}

impl Opening<'_> {
    /// Verifies the file of `request` and loads it.
    fn open(
        &self,
        request: &LoadRequest,
        step: &mut dyn FnMut(f32, &str) -> Result<()>,
    ) -> Result<OrtSession> {
        let Self { backend, runtime, options, placement, cancel } = *self;
        step(0.0, "verifying the model")?;
        let model = Summary::read(&request.path, element::bits)?;
        step(0.1, "loading the model")?;

        let watcher = Watcher::of_process().map_err(|e| error::internal(ENGINE, e))?;
        let mut builder = configure(runtime, options).map_err(|e| error::internal(ENGINE, e))?;
        builder = builder.with_execution_providers(&placement.providers).map_err(|e| {
            PluginError::new(DEVICE_UNAVAILABLE, format!("{ENGINE} {}: {e}", runtime.version)).help(
                "install a build of ONNX Runtime with this execution provider and what it needs, or drop it",
            )
        })?;
        let session = {
            let canceler = builder.canceler();
            let _watching = watcher.watch(cancel, move || {
                // A load that cannot be stopped goes on to its end; its result is then thrown away.
                let _ = canceler.cancel();
            });
            builder.commit_from_file(&request.path).map_err(|e| load_error(request, &e, cancel))?
        };
        step(0.95, "describing the model")?;

        let every = DType::ALL;
        let ports = Ports::new(ENGINE, &every, &model.inputs, &outputs(&session, &model))?;
        for (name, why) in &ports.omitted {
            backend.host.log(
                pajamas_plugin_api::Level::Warn,
                format!("{}: output `{name}` {why} and is left out", request.path.display()),
            );
        }
        let estimate = placement.estimate(&model, options.parallel);
        let signature = ports.signature(model.metadata);
        OrtSession::new(session, ports, signature, estimate, options.parallel, watcher, backend.host.clone())
    }
}

/// A builder with the options that concern the graph and its threads.
fn configure(runtime: &Runtime, options: &OnnxRuntimeOptions) -> ort::Result<SessionBuilder> {
    let level = match options.optimization {
        Optimization::None => GraphOptimizationLevel::Disable,
        Optimization::Basic => GraphOptimizationLevel::Level1,
        Optimization::Extended => GraphOptimizationLevel::Level2,
        Optimization::Layout => GraphOptimizationLevel::Level3,
        Optimization::All => GraphOptimizationLevel::All,
    };
    let mut builder: SessionBuilder = Ort::builder(&runtime.environment)?
        .with_optimization_level(level)?
        .with_memory_pattern(options.memory_pattern)?
        .with_intra_op_spinning(options.spinning)?
        .with_execution_providers([ep::CPU::default().with_arena_allocator(options.cpu_arena).build()])?;
    if let Some(Threads(n)) = options.threads {
        builder = builder.with_intra_threads(n)?;
    }
    if let Some(Threads(n)) = options.inter_op_threads {
        builder = builder.with_inter_threads(n)?.with_parallel_execution(n > 1)?;
    }
    Ok(builder)
}

/// Why the runtime refused a model that the summary found well-formed.
fn load_error(request: &LoadRequest, error: &ort::Error, cancel: &Cancel) -> PluginError {
    match error.code() {
        _ if cancel.is_cancelled() => PluginError::cancelled(),
        ErrorCode::NoSuchFile => error::not_found(&request.path, &std::io::Error::other(error.to_string())),
        // A graph with an operator that this runtime does not know counts as invalid for it.
        _ if ["No Op registered", "not a registered function/op"]
            .iter()
            .any(|s| error.message().contains(s)) =>
        {
            error::unsupported(ENGINE, &request.path, error)
                .help("a newer ONNX Runtime, or an export with an older opset, may help")
        }
        ErrorCode::InvalidProtobuf | ErrorCode::InvalidGraph => error::invalid(&request.path, error),
        _ if error.message().contains("llocat") => {
            PluginError::new(codes::OUT_OF_MEMORY, format!("{ENGINE}: {}: {error}", request.path.display()))
                .help("unload another model, or load a smaller or more strongly quantized one")
        }
        _ => error::unsupported(ENGINE, &request.path, error),
    }
}

/// The outputs as the runtime infers them, which may know more than the file declares.
fn outputs(session: &Ort, model: &Summary) -> Vec<Declared> {
    let declared = |output: &Outlet| {
        let in_file = model.outputs.iter().find(|o| o.name == output.name()).and_then(|o| o.shape.clone());
        let (kind, shape) = match output.dtype() {
            ValueType::Tensor { ty, shape, dimension_symbols } => {
                let dims = shape.iter().enumerate().map(|(axis, size)| match u64::try_from(*size) {
                    Ok(size) => Dim::Fixed(size),
                    Err(_) => match dimension_symbols.get(axis).filter(|name| !name.is_empty()) {
                        Some(name) => Dim::Dynamic(name.clone()),
                        None => Dim::Dynamic(UNNAMED.to_owned()),
                    },
                });
                let dims: Vec<Dim> = dims.collect();
                // The runtime shows a tensor of unknown rank as a scalar: only the file tells them apart.
                let known = !dims.is_empty() || in_file.is_some();
                let number = ort::sys::ONNXTensorElementDataType::from(*ty) as i32;
                (Kind::Tensor(number), known.then_some(dims))
            }
            ValueType::Sequence(_) => (Kind::Other("sequence"), None),
            ValueType::Map { .. } => (Kind::Other("map"), None),
            ValueType::Optional(_) => (Kind::Other("optional"), None),
        };
        Declared { name: output.name().to_owned(), kind, shape }
    };
    session.outputs().iter().map(declared).collect()
}
