//! Finding, checking, estimating and loading.

use pajamas_llama_cpp::{Library, Model};
use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DeviceInfo, HostContext, Level, LoadRequest, Memory, PluginError, Probe,
    ProgressSink, Result, Session, capability, codes,
};

use crate::engine::{Engine, Source};
use crate::error::plugin_error;
use crate::footprint::Held;
use crate::part::{Part, Seed, is_divided};
use crate::plan::{DraftPlan, Plan};
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
                let id = device.id();
                let (free, memory_total) =
                    if tells_memory(&id) && !device.shares_memory() { device.memory() } else { (0, 0) };
                // Where ggml does not know what is free, it calls all of it free.
                let memory_free = if free < memory_total { free } else { 0 };
                DeviceInfo { id, name: device.description(), memory_total, memory_free }
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
        if plan.main.vocab_only() {
            return Ok(footprint::vocabulary_memory(&plan.main.files));
        }
        let main = plan.main.simulate(library)?;
        let mut memory = footprint::memory(&main.memory(), &plan.main);
        if let Some(DraftPlan { part, .. }) = &plan.draft {
            let draft = part.simulate(library)?;
            check_draft(main.model(), draft.model(), part)?;
            footprint::add(&mut memory, footprint::memory(&draft.memory(), part));
        }
        Ok(memory)
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
        let draft_bytes = plan.draft.as_ref().map_or(0, |draft| draft.part.weight_bytes());
        let all = (plan.main.weight_bytes() + draft_bytes).max(1);
        let share = WEIGHTS_SHARE * (plan.main.weight_bytes() as f32 / all as f32);
        let model = plan.main.load(library, &mut |part| report(part * share, "loading weights"))?;
        if !report(share, "preparing the context") {
            return Err(PluginError::cancelled());
        }
        let session = if plan.main.vocab_only() {
            GgufSession::vocabulary(model, &plan)
        } else {
            let mut report_draft =
                |part: f32| report(share + part * (WEIGHTS_SHARE - share), "loading the draft model");
            let draft = match &plan.draft {
                Some(draft) => {
                    let seed = load_draft(draft, library, &model, &mut report_draft)?;
                    Some((seed, draft.settings.clone()))
                }
                None => None,
            };
            let source = Source { main: plan.main.seed(&model), draft };
            let tools = source.make(plan.settings.slots)?;
            let context = &tools.context;
            let mut awake = footprint::memory(&context.memory(), &plan.main);
            if let (Some(memory), Some(draft)) = (tools.draft_memory(), &plan.draft) {
                footprint::add(&mut awake, footprint::memory(&memory, &draft.part));
            }
            let parts = std::iter::once(&plan.main).chain(plan.draft.as_ref().map(|draft| &draft.part));
            let slots = is_divided(&plan.main.context).then(|| footprint::slots(&awake, plan.settings.slots));
            let held = Held { asleep: footprint::asleep(&awake, parts), awake, slots };
            let causal = context.is_causal() && context.has_cache();
            let engine = Engine::start(source, tools, plan.settings.clone())?;
            GgufSession::new(model, engine, &plan, causal, held)
        };
        if !report(1.0, "ready") {
            return Err(PluginError::cancelled());
        }
        Ok(Box::new(session))
    }
}

/// Whether a device is asked for its memory. CUDA, and what is made like it, creates a context on the GPU for the answer, which takes
/// memory itself; Vulkan looks it up. What Metal answers is how much it recommends to use of the memory that it shares. Nor has an
/// integrated GPU any of its own: what it takes is seen where it is taken from.
fn tells_memory(device: &str) -> bool {
    let kind = device.split_once(':').map_or(device, |(kind, _)| kind);
    ["cpu", "vulkan"].contains(&kind)
}

/// Loads the model that drafts for another.
fn load_draft(
    plan: &DraftPlan,
    library: &Library,
    main: &Model,
    progress: &mut dyn FnMut(f32) -> bool,
) -> Result<Seed> {
    let model = plan.part.load(library, progress)?;
    check_draft(main, &model, &plan.part)?;
    Ok(plan.part.seed(&model))
}

/// Whether one model can draft for another.
fn check_draft(main: &Model, draft: &Model, part: &Part) -> Result<()> {
    let refuse = |what: &str, help: &str| {
        let message = format!("{}: cannot draft for the model: {what}", part.path.display());
        Err(PluginError::new(codes::INVALID_OPTION, message).help(help))
    };
    if let Err(difference) = main.compare_vocabulary(draft) {
        return refuse(&difference, "a draft is a smaller model of the same family");
    }
    if main.is_recurrent() || draft.is_recurrent() {
        return refuse("a model's state cannot be taken back", "leave the option `draft` out");
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_need_no_context_to_answer_are_asked_for_their_memory() {
        assert!(["cpu", "vulkan:1"].into_iter().all(tells_memory));
        assert!(!["cuda:0", "rocm:0", "sycl:0", "metal:0", "vulkanish:0", ""].into_iter().any(tells_memory));
    }
}
