//! Finding, checking, estimating and loading.

use std::sync::Arc;

use pajamas_llama_cpp::{Context, DeviceKind, Library, Model, ModelParams, Weights};
use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DeviceInfo, HostContext, Level, LoadRequest, Memory, PluginError, Probe,
    ProgressSink, Result, Session, capability,
};

use crate::engine::Engine;
use crate::error::plugin_error;
use crate::plan::Plan;
use crate::session::GgufSession;
use crate::{footprint, options};

/// The folder beside the plugin in which llama.cpp's libraries lie.
const LIBRARY_FOLDER: &str = "llama";
/// The share of progress that loading weights takes; the context comes after.
const WEIGHTS_SHARE: f32 = 0.95;

/// The backend `gguf`.
pub struct GgufBackend {
    host: HostContext,
}

impl GgufBackend {
    /// A backend that has loaded nothing yet.
    pub fn new(host: HostContext) -> Self {
        Self { host }
    }

    fn library(&self) -> Result<&'static Library> {
        let host = self.host.clone();
        Library::open(&self.host.plugin_dir().join(LIBRARY_FOLDER), move |level, line| {
            // llama.cpp calls an error what may be a wrong file, and warns about what it then copes with: the
            // request's own error tells what matters.
            let level = match level {
                pajamas_llama_cpp::Level::Error => Level::Warn,
                pajamas_llama_cpp::Level::Warn => Level::Info,
                pajamas_llama_cpp::Level::Info => Level::Debug,
                pajamas_llama_cpp::Level::Debug => return,
            };
            host.log(level, line);
        })
        .map_err(plugin_error)
    }
}

impl Backend for GgufBackend {
    fn describe(&self) -> BackendInfo {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        BackendInfo {
            id: "gguf".into(),
            description: "GGUF models by llama.cpp".into(),
            formats: list(&["gguf"]),
            precisions: list(&[
                "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_0", "q5_1", "q4_k_m", "q4_k_s",
                "q4_0", "q4_1", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s", "iq4_xs", "iq4_nl", "iq3_m",
                "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
                "tq1_0", "tq2_0", "mxfp4", "nvfp4",
            ]),
            device_kinds: list(&["cpu", "cuda", "metal", "vulkan", "rocm", "sycl"]),
            capabilities: list(&[
                capability::GENERATE,
                capability::EMBED,
                capability::TOKENIZE,
                capability::CONSTRAIN,
                capability::INFILL,
                capability::RERANK,
            ]),
            options_schema: options::schema(),
        }
    }

    fn probe(&self) -> Probe {
        let library = match self.library() {
            Ok(library) => library,
            Err(error) => return Probe { score: 0, reason: error.message, devices: Vec::new() },
        };
        let devices: Vec<DeviceInfo> = library
            .devices()
            .into_iter()
            .map(|device| {
                // Asking a GPU for its memory would create a context on it. ggml calls all of the processor's free.
                let memory_total = if device.kind() == DeviceKind::Cpu { device.memory().1 } else { 0 };
                DeviceInfo { id: device.id(), name: device.description(), memory_total, memory_free: 0 }
            })
            .collect();
        let gpus: Vec<&str> = devices.iter().filter(|d| d.id != "cpu").map(|d| d.id.as_str()).collect();
        let mut reason = format!("llama.cpp {}, CPU variant {}", library.version(), cpu(library));
        if !gpus.is_empty() {
            reason += &format!(", GPUs {}", gpus.join(", "));
        }
        Probe { score: if gpus.is_empty() { 200 } else { 300 }, reason, devices }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        let library = self.library()?;
        let plan = Plan::new(library, request)?;
        if plan.vocab_only() {
            return Ok(footprint::vocabulary_memory(&plan.files));
        }
        // llama.cpp lays out every buffer, copies for speed included, and allocates none.
        let params = ModelParams { weights: Weights::Simulated, lock: false, ..plan.model.clone() };
        let model = Model::load(library, &request.path, &params, &mut |_| true).map_err(plugin_error)?;
        let context = Context::new(Arc::new(model), &plan.context).map_err(plugin_error)?;
        Ok(footprint::memory(&context.memory(), &plan))
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let library = self.library()?;
        let plan = Plan::new(library, request)?;
        cancel.check()?;
        let mut report = |fraction: f32, what: &str| {
            progress.progress(fraction, what).is_continue() && !cancel.is_cancelled()
        };
        let mut model = Model::load(library, &request.path, &plan.model, &mut |fraction| {
            report(fraction * WEIGHTS_SHARE, "loading weights")
        })
        .map_err(plugin_error)?;
        if !report(WEIGHTS_SHARE, "preparing the context") {
            return Err(PluginError::cancelled());
        }
        let session = if plan.vocab_only() {
            GgufSession::vocabulary(Arc::new(model), &plan)
        } else {
            for adapter in &plan.adapters {
                model.add_adapter(&adapter.path).map_err(plugin_error)?;
            }
            let model = Arc::new(model);
            let mut context = Context::new(Arc::clone(&model), &plan.context).map_err(plugin_error)?;
            let scales: Vec<f32> = plan.adapters.iter().map(|a| a.scale).collect();
            context.set_adapters(&scales).map_err(plugin_error)?;
            let memory = footprint::memory(&context.memory(), &plan);
            let causal = context.is_causal() && context.has_cache();
            let engine = Engine::start(context, plan.settings.clone())?;
            GgufSession::new(model, engine, &plan, causal, memory)
        };
        if !report(1.0, "ready") {
            return Err(PluginError::cancelled());
        }
        Ok(Box::new(session))
    }
}

/// The chosen CPU variant with the features that set it apart, for example `sapphirerapids (AVX512, AMX_INT8)`.
fn cpu(library: &Library) -> String {
    let features = library.cpu_features();
    let telling: Vec<&str> = features
        .iter()
        .map(String::as_str)
        .filter(|f| {
            ["AVX", "AMX", "NEON", "SVE", "SME", "MATMUL", "DOTPROD", "RVV", "VSX"]
                .iter()
                .any(|t| f.starts_with(t))
        })
        .collect();
    let variant = library.cpu_variant().unwrap_or("chosen by another plugin");
    if telling.is_empty() { variant.to_owned() } else { format!("{variant} ({})", telling.join(", ")) }
}
