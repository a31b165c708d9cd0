//! A loaded model, as its callers see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pajamas_llama_cpp::{HeapTrim, Model, Pooling, Token as Id};
use pajamas_plugin_api::{
    Cancel, DType, ENGINE_STATS, EmbedRequest, EngineStatsExtension, Extension, GenerateRequest,
    GenerateSummary, Memory, PluginError, Prompt, Result, SLEEP, SLOTS, Session, Signature, SleepExtension,
    SlotsExtension, TensorSink, TensorView, TextSignature, Token, TokenSink, Usage, as_bytes, capability,
    codes,
};

use crate::constrain::Constraints;
use crate::engine::{Embed, Engine, Generate, Reduce};
use crate::error::plugin_error;
use crate::footprint::{self, Held};
use crate::joined;
use crate::plan::Plan;
use crate::sampling::sampler;

/// Metadata longer than this is left out of the signature: templates have their own field, licences are not needed.
const LONGEST_METADATA: usize = 1024;

/// A session of the gguf backend.
pub(crate) struct GgufSession {
    model: Arc<Model>,
    /// `None` when only the vocabulary is loaded.
    engine: Option<Engine>,
    constraints: Constraints,
    context_length: u32,
    signature: Signature,
    held: Held,
    /// Last, so that it finds everything freed.
    _trim: HeapTrim,
}

impl GgufSession {
    /// A session that computes. `causal` models generate; the others only embed.
    pub fn new(model: Arc<Model>, engine: Engine, plan: &Plan, causal: bool, held: Held) -> Self {
        let mut capabilities = vec![capability::TOKENIZE];
        // A classification head takes the place of embeddings.
        capabilities.push(if model.ranks() { capability::RERANK } else { capability::EMBED });
        if causal && model.has_decoder() && !model.has_encoder() {
            capabilities.extend([capability::GENERATE, capability::CONSTRAIN]);
            if model.infill_marks().is_some() {
                capabilities.push(capability::INFILL);
            }
        }
        let context_length = plan.settings.context_length;
        let signature = signature(&model, &capabilities, context_length);
        Self {
            model,
            engine: Some(engine),
            constraints: Constraints::default(),
            context_length,
            signature,
            held,
            _trim: HeapTrim::default(),
        }
    }

    /// A session that only tokenizes.
    pub fn vocabulary(model: Arc<Model>, plan: &Plan) -> Self {
        let context_length = plan.settings.context_length;
        let signature = signature(&model, &[capability::TOKENIZE], context_length);
        let memory = footprint::vocabulary_memory(&plan.main.files);
        Self {
            model,
            engine: None,
            constraints: Constraints::default(),
            context_length,
            signature,
            held: Held { awake: memory.clone(), asleep: memory, slots: None },
            _trim: HeapTrim::default(),
        }
    }

    /// The engine, for an operation that the model must be able to do.
    fn engine(&self, operation: &str) -> Result<&Engine> {
        self.engine
            .as_ref()
            .filter(|_| self.signature.capabilities.iter().any(|c| c == operation))
            .ok_or_else(|| PluginError::unsupported("this model", operation))
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<Id>> {
        match prompt {
            Prompt::Text { text, add_special, parse_special } => {
                self.model.tokenize(text, *add_special, *parse_special).map_err(plugin_error)
            }
            Prompt::Tokens(ids) => {
                ids.iter().map(|id| self.model.token(*id)).collect::<Result<_, _>>().map_err(plugin_error)
            }
            Prompt::Infill { prefix, suffix } => joined::infill(&self.model, prefix, suffix),
            Prompt::Pair { query, document } if self.model.ranks() => {
                joined::pair(&self.model, query, document)
            }
            Prompt::Pair { .. } => Err(PluginError::unsupported("this model", capability::RERANK)),
            _ => Err(PluginError::unsupported("this backend", "prompts of this form")),
        }
    }

    /// How many tokens may be generated; never more than fit.
    fn room(&self, prompt: usize, wanted: Option<u32>) -> Result<u32> {
        let context = self.context_length;
        let free = u32::try_from(prompt).ok().and_then(|prompt| context.checked_sub(prompt)).unwrap_or(0);
        match wanted {
            None if free > 0 => Ok(free),
            Some(wanted) if wanted <= free && free > 0 => Ok(wanted),
            wanted => {
                let answer =
                    wanted.map_or_else(|| "an answer".to_owned(), |n| format!("up to {n} generated ones"));
                Err(PluginError::new(
                    codes::CONTEXT_LENGTH_EXCEEDED,
                    format!("{prompt} prompt tokens and {answer} do not fit the context of {context} tokens"),
                )
                .help("shorten the prompt, ask for fewer tokens, or load the model with a larger context_length"))
            }
        }
    }
}

impl Session for GgufSession {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    fn usage(&self) -> Vec<Memory> {
        match &self.engine {
            Some(engine) if engine.is_asleep() => self.held.asleep.clone(),
            Some(engine) => self.held.with(engine.slots()),
            None => self.held.awake.clone(),
        }
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let engine = self.engine(capability::GENERATE)?;
        if let Some(name) = request.options.keys().next() {
            return Err(PluginError::new(
                codes::INVALID_OPTION,
                format!("the gguf backend has no option `{name}` for a request"),
            )
            .help("requests take no options of their own yet; those of loading go with the model"));
        }
        let prompt = self.tokens(&request.prompt)?;
        if prompt.is_empty() {
            return Err(PluginError::invalid_input("the prompt has no tokens")
                .help("send some text, or let special tokens be added"));
        }
        let max_tokens = self.room(prompt.len(), request.max_tokens)?;
        if max_tokens == 0 {
            return Err(PluginError::invalid_input("max_tokens is 0, and must be at least 1"));
        }
        let request = Generate {
            sampler: sampler(&self.model, &request.sampling, self.context_length)?,
            stops: request.stop.clone(),
            logprobs: request.logprobs,
            ignore_end: request.ignore_eos,
            special: request.special,
            priority: request.priority,
            guide: match &request.constraint {
                Some(constraint) => Some(self.constraints.compile(&self.model, constraint)?),
                None => None,
            },
            prompt,
            max_tokens,
        };
        engine.generate(request, tokens, cancel)
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        let reduce = match request.pooling.as_deref() {
            None if self.model.ranks() => Reduce::Score,
            None => Reduce::Pool(self.model.pooling().unwrap_or(Pooling::Mean)),
            Some("mean") => Reduce::Pool(Pooling::Mean),
            Some("cls") => Reduce::Pool(Pooling::Cls),
            Some("last") => Reduce::Pool(Pooling::Last),
            Some("rank") => Reduce::Score,
            Some(other) => {
                return Err(PluginError::invalid_input(format!("there is no pooling `{other}`"))
                    .help("pooling is mean, cls or last; for pairs of texts, rank"));
            }
        };
        let engine = self.engine(match reduce {
            Reduce::Pool(_) => capability::EMBED,
            Reduce::Score => capability::RERANK,
        })?;
        let inputs: Vec<Vec<Id>> = request.inputs.iter().map(|p| self.tokens(p)).collect::<Result<_>>()?;
        for (number, input) in inputs.iter().enumerate() {
            if input.is_empty() {
                return Err(PluginError::invalid_input(format!("input {number} has no tokens")));
            }
            if input.len() > self.context_length as usize {
                return Err(PluginError::new(
                    codes::CONTEXT_LENGTH_EXCEEDED,
                    format!(
                        "the {} tokens of input {number} do not fit the context of {} tokens",
                        input.len(),
                        self.context_length
                    ),
                )
                .help("split the text, or load the model with a larger context_length"));
            }
        }
        let count = inputs.len() as u64;
        let prompt_tokens = inputs.iter().map(Vec::len).sum::<usize>();
        let rows = match inputs.is_empty() {
            true => Vec::new(),
            false => engine.embed(Embed { inputs, reduce, normalize: request.normalize }, cancel)?,
        };
        match reduce {
            Reduce::Pool(_) => {
                let shape = [count, u64::from(self.model.embedding_size())];
                outputs.write("embeddings", TensorView::new(DType::F32, &shape, as_bytes(&rows))?)?;
            }
            Reduce::Score => {
                outputs.write("scores", TensorView::new(DType::F32, &[count], as_bytes(&rows))?)?;
            }
        }
        Ok(Usage { prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX), ..Usage::default() })
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        self.tokens(prompt)?
            .into_iter()
            .map(|id| {
                let bytes = self.model.piece(id, true).map_err(plugin_error)?;
                Ok(Token { id: id as u32, text: String::from_utf8_lossy(&bytes).into_owned() })
            })
            .collect()
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String> {
        let tokens = self.tokens(&Prompt::Tokens(tokens.to_vec()))?;
        let bytes = self.model.detokenize(&tokens, true).map_err(plugin_error)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        let engine = self.engine.as_ref()?;
        match name {
            ENGINE_STATS => Some(Box::new(EngineStatsExtension(engine.counters()))),
            SLEEP => Some(Box::new(SleepExtension(engine.bed(self.held.asleep.clone())))),
            SLOTS => Some(Box::new(SlotsExtension(engine.rack(self.held.slots.clone()?)))),
            _ => None,
        }
    }
}

fn signature(model: &Model, capabilities: &[&str], context_length: u32) -> Signature {
    let name = |token: Option<Id>| token.and_then(|t| model.token_name(t));
    let metadata: BTreeMap<String, String> =
        model.metadata().into_iter().filter(|(_, value)| value.len() <= LONGEST_METADATA).collect();
    Signature {
        capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        text: Some(TextSignature {
            architecture: metadata.get("general.architecture").cloned().unwrap_or_default(),
            vocab_size: u32::try_from(model.vocab_size()).unwrap_or(0),
            context_length,
            context_train: model.context_train(),
            embedding_size: model.embedding_size(),
            chat_template: model.chat_template(),
            bos_token: name(model.bos()),
            eos_token: name(model.eos()),
            parameters: model.parameters(),
        }),
        metadata,
        ..Signature::default()
    }
}
