//! From a load request to llama.cpp's parameters: one plan for estimating and for loading.

use std::path::{Path, PathBuf};

use pajamas_llama_cpp::{ContextParams, Device, DeviceKind, Library, ModelParams, Weights};
use pajamas_plugin_api::{LoadRequest, PluginError, Result, codes};

use crate::cpu::default_threads;
use crate::engine::{DraftSettings, Settings};
use crate::files::ModelFiles;
use crate::options::{AdapterOption, DraftOption, LoadOptions};
use crate::part::{Adapter, Part};

/// The context of a model that names a longer one, unless the options ask for more: memory grows with it.
const DEFAULT_CONTEXT: u32 = 4096;
/// Logits that may be computed in one batch of an embedding on a model that is no embedder: 8 MiB. llama.cpp computes
/// them for every token of an embedding, and keeps room for them even while it only generates.
const OUTPUT_LOGITS: u64 = 2 << 20;
/// Texts that an encoder embeds in one batch, at most.
const ENCODER_SEQUENCES: u32 = 64;

/// How a model will be loaded.
pub(crate) struct Plan {
    pub main: Part,
    pub draft: Option<DraftPlan>,
    pub settings: Settings,
}

/// The model that drafts for the main one.
pub(crate) struct DraftPlan {
    pub part: Part,
    pub settings: DraftSettings,
}

impl Plan {
    /// Checks a request, the file and the options.
    ///
    /// # Errors
    /// `model-not-found`, `model-invalid`, `invalid-option`.
    pub fn new(library: &Library, request: &LoadRequest) -> Result<Self> {
        let options = LoadOptions::parse(&request.options)?;
        let files = ModelFiles::open(&request.path)?;
        let vocab_only = options.vocab_only.unwrap_or(!files.has_weights());
        if !vocab_only && !files.has_weights() {
            return Err(PluginError::new(
                codes::MODEL_INVALID,
                format!("{}: has a vocabulary but no weights", request.path.display()),
            )
            .help("it can be loaded with vocab_only = true, for tokenizing"));
        }
        let device = device(library, &request.device)?;
        let gpu = device.kind() == DeviceKind::Gpu;
        let model = ModelParams {
            devices: if gpu { vec![device] } else { Vec::new() },
            gpu_layers: options.gpu_layers,
            weights: match (vocab_only, options.mmap) {
                (true, _) => Weights::VocabularyOnly,
                (false, true) => Weights::Mapped,
                (false, false) => Weights::Read,
            },
            lock: options.mlock,
        };
        let context_length = options
            .context_length
            .unwrap_or_else(|| files.context_train().map_or(DEFAULT_CONTEXT, |n| n.min(DEFAULT_CONTEXT)));
        // An encoder sees a text at once: the whole of it is one batch.
        let (batch, micro_batch) = match files.is_encoder() {
            true => (context_length, context_length),
            false => (options.batch_size, options.micro_batch_size),
        };
        let outputs = match files.is_embedder() {
            true => micro_batch,
            false => {
                let most = (OUTPUT_LOGITS / files.vocab_size().max(1)).max(16);
                micro_batch.min(u32::try_from(most).unwrap_or(u32::MAX))
            }
        };
        let threads = options.threads.unwrap_or_else(default_threads);
        let separate = u64::from(context_length) * u64::from(options.parallel);
        let cache = options.cache_tokens.map_or(separate, u64::from);
        if cache < u64::from(context_length) {
            return Err(PluginError::new(
                codes::INVALID_OPTION,
                format!("cache_tokens is {cache}: not one request of context_length {context_length} fits"),
            )
            .help("cache_tokens is for all requests together, and at least context_length"));
        }
        // Texts that leave nothing in a cache cost no memory: many of them share a batch.
        let sequences = match files.is_encoder() {
            true => options.parallel.max(ENCODER_SEQUENCES),
            false => options.parallel,
        };
        let mut context = ContextParams {
            context_length: u32::try_from(cache.min(separate)).unwrap_or(u32::MAX),
            batch_size: batch,
            micro_batch_size: micro_batch,
            sequences,
            outputs: outputs.max(sequences),
            unified: cache < separate || files.is_encoder(),
            threads,
            threads_batch: options.threads_batch.unwrap_or(threads),
            key_type: options.kv_type_k,
            value_type: options.kv_type_v,
            flash_attention: options.flash_attention,
            embeddings: false,
            rank: files.is_ranker(),
            watched: false,
        };
        let settings = Settings {
            context_length,
            slots: options.parallel,
            prompt_cache: options.prompt_cache,
            prompt_chunk: options.prompt_chunk,
        };
        let adapters = options
            .adapters
            .into_iter()
            .map(|AdapterOption { path, scale }| {
                let path = beside(&request.path, &path);
                let bytes = files.check_adapter(&path)?;
                Ok(Adapter { path, scale, bytes })
            })
            .collect::<Result<_>>()?;
        let draft = options.draft.map(|option| draft(request, option, &files, &model, &context, &settings));
        let draft = draft.transpose()?;
        if let Some(draft) = &draft {
            // Logits after every drafted token, beside those of each request.
            context.outputs = context.outputs.max(context.sequences + draft.settings.max);
        }
        let main = Part { path: request.path.clone(), files, model, context, adapters };
        Ok(Self { main, draft, settings })
    }
}

/// How the draft model is loaded: like the main one, with a cache that has room for all.
fn draft(
    request: &LoadRequest,
    option: DraftOption,
    files: &ModelFiles,
    model: &ModelParams,
    context: &ContextParams,
    settings: &Settings,
) -> Result<DraftPlan> {
    let path = beside(&request.path, &option.path);
    let own = ModelFiles::open(&path)?;
    if files.is_encoder() || own.is_encoder() || !own.has_weights() {
        return Err(PluginError::new(
            codes::INVALID_OPTION,
            format!("{}: a draft needs two models that generate", path.display()),
        )
        .help("leave the option `draft` out for models that only embed"));
    }
    let model = ModelParams { gpu_layers: None, ..model.clone() };
    let context = ContextParams {
        context_length: settings.context_length.saturating_mul(settings.slots),
        sequences: settings.slots,
        outputs: settings.slots,
        unified: false,
        rank: false,
        ..context.clone()
    };
    let part = Part { path, files: own, model, context, adapters: Vec::new() };
    Ok(DraftPlan { part, settings: DraftSettings { max: option.max, least: option.min_probability } })
}

/// A path as seen from the folder of another file.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn device(library: &Library, id: &str) -> Result<Device> {
    let devices = library.devices();
    let found = if id.is_empty() { devices.first() } else { devices.iter().find(|d| d.id() == id) };
    found.copied().ok_or_else(|| {
        let known: Vec<String> = devices.iter().map(|d| d.id()).collect();
        PluginError::new(codes::INVALID_OPTION, format!("the gguf backend has no device `{id}` here"))
            .help(format!("it has: {}", known.join(", ")))
    })
}
