//! One model of a load, the main one or its draft: its files, and what becomes of them.

use std::path::PathBuf;
use std::sync::Arc;

use pajamas_llama_cpp::{Context, ContextParams, Library, Model, ModelParams, Weights};
use pajamas_plugin_api::Result;

use crate::error::plugin_error;
use crate::files::ModelFiles;

/// A model to load, with its context.
pub(crate) struct Part {
    pub path: PathBuf,
    pub files: ModelFiles,
    pub model: ModelParams,
    pub context: ContextParams,
    pub adapters: Vec<Adapter>,
}

/// What of a part outlives its loading: contexts over the loaded model are made of it, each like the first.
pub(crate) struct Seed {
    model: Arc<Model>,
    params: ContextParams,
    scales: Vec<f32>,
}

impl Seed {
    fn params(&self, slots: u32) -> ContextParams {
        let all = self.params.sequences;
        if !is_divided(&self.params) || slots >= all {
            return self.params.clone();
        }
        ContextParams {
            context_length: self.params.context_length / all * slots,
            sequences: slots,
            ..self.params.clone()
        }
    }

    /// A context over the loaded model for so many requests at the same time, on the threads of another one if there is one.
    ///
    /// # Errors
    /// `out-of-memory`; `invalid-option` when llama.cpp cannot compute the model like this.
    pub fn context(&self, slots: u32, beside: Option<&Context>) -> Result<Context> {
        let model = Arc::clone(&self.model);
        let params = self.params(slots);
        let context = match beside {
            Some(other) => Context::beside(other, model, &params),
            None => Context::new(model, &params),
        };
        let mut context = context.map_err(plugin_error)?;
        context.set_adapters(&self.scales).map_err(plugin_error)?;
        Ok(context)
    }
}

/// Whether each request has a part of the cache for itself, so that fewer requests need less.
pub(crate) fn is_divided(params: &ContextParams) -> bool {
    !params.unified && params.sequences > 1
}

/// A LoRA adapter, checked against the model.
pub(crate) struct Adapter {
    pub path: PathBuf,
    pub scale: f32,
    pub bytes: u64,
}

impl Part {
    /// Loads the model and its adapters.
    ///
    /// # Errors
    /// `model-invalid`, `out-of-memory`, `cancelled`.
    pub fn load(&self, library: &Library, progress: &mut dyn FnMut(f32) -> bool) -> Result<Arc<Model>> {
        let mut model = Model::load(library, &self.path, &self.model, progress).map_err(plugin_error)?;
        if !self.vocab_only() {
            for adapter in &self.adapters {
                model.add_adapter(&adapter.path).map_err(plugin_error)?;
            }
        }
        Ok(Arc::new(model))
    }

    /// What its contexts are made of, with the loaded model.
    pub fn seed(&self, model: &Arc<Model>) -> Seed {
        let scales = self.adapters.iter().map(|a| a.scale).collect();
        Seed { model: Arc::clone(model), params: self.context.clone(), scales }
    }

    /// A context in which llama.cpp has laid out every buffer, copies for speed included, and allocated none.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`Seed::context`].
    pub fn simulate(&self, library: &Library) -> Result<Context> {
        let params = ModelParams { weights: Weights::Simulated, lock: false, ..self.model.clone() };
        let model = Model::load(library, &self.path, &params, &mut |_| true).map_err(plugin_error)?;
        Context::new(Arc::new(model), &self.context).map_err(plugin_error)
    }

    /// Whether only the vocabulary is loaded.
    pub fn vocab_only(&self) -> bool {
        self.model.weights == Weights::VocabularyOnly
    }

    /// Whether weights are the mapped file.
    pub fn mapped(&self) -> bool {
        self.model.weights == Weights::Mapped
    }

    /// Bytes of weights.
    pub fn weight_bytes(&self) -> u64 {
        self.files.data_bytes() + self.adapter_bytes()
    }

    /// Bytes of the adapters' weights.
    pub fn adapter_bytes(&self) -> u64 {
        self.adapters.iter().map(|a| a.bytes).sum()
    }
}
