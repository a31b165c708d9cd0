//! A loaded model, as its callers see it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use pajamas_llama_cpp::{HeapTrim, Model, Pooling, Sampler, Token as Id};
use pajamas_plugin_api::{
    Cancel, DType, ENGINE_STATS, EmbedRequest, EngineStatsExtension, Extension, GenerateRequest,
    GenerateSummary, Memory, PluginError, Prompt, Result, Sampling, Session, Signature, TensorSink,
    TensorView, TextSignature, Token, TokenSink, Usage, as_bytes, capability, codes,
};

use crate::engine::{Embed, Engine, Generate, Reduce};
use crate::error::plugin_error;
use crate::footprint;
use crate::plan::Plan;

/// Metadata longer than this is left out of the signature: templates have their own field, licences are not needed.
const LONGEST_METADATA: usize = 1024;

/// A session of the gguf backend.
pub(crate) struct GgufSession {
    model: Arc<Model>,
    /// `None` when only the vocabulary is loaded.
    engine: Option<Engine>,
    context_length: u32,
    signature: Signature,
    memory: Vec<Memory>,
    /// Last, so that it finds everything freed.
    _trim: HeapTrim,
}

impl GgufSession {
    /// A session that computes. `causal` models generate; the others only embed.
    pub fn new(model: Arc<Model>, engine: Engine, plan: &Plan, causal: bool, memory: Vec<Memory>) -> Self {
        let mut capabilities = vec![capability::TOKENIZE, capability::EMBED];
        if causal && model.has_decoder() && !model.has_encoder() {
            capabilities.push(capability::GENERATE);
        }
        let context_length = plan.settings.context_length;
        let signature = signature(&model, &capabilities, context_length);
        Self { model, engine: Some(engine), context_length, signature, memory, _trim: HeapTrim::default() }
    }

    /// A session that only tokenizes.
    pub fn vocabulary(model: Arc<Model>, plan: &Plan) -> Self {
        let context_length = plan.settings.context_length;
        let signature = signature(&model, &[capability::TOKENIZE], context_length);
        Self {
            model,
            engine: None,
            context_length,
            signature,
            memory: footprint::vocabulary_memory(&plan.files),
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
            Prompt::Infill { .. } => Err(PluginError::unsupported("this model", capability::INFILL)),
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
        self.memory.clone()
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
        if request.constraint.is_some() {
            return Err(PluginError::unsupported("this model", capability::CONSTRAIN));
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
            priority: request.priority,
            prompt,
            max_tokens,
        };
        engine.generate(request, tokens, cancel)
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        let engine = self.engine(capability::EMBED)?;
        let pooling = match request.pooling.as_deref() {
            None => self.model.pooling().unwrap_or(Pooling::Mean),
            Some("mean") => Pooling::Mean,
            Some("cls") => Pooling::Cls,
            Some("last") => Pooling::Last,
            Some(other) => {
                return Err(PluginError::invalid_input(format!("there is no pooling `{other}`"))
                    .help("pooling is mean, cls or last"));
            }
        };
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
        let shape = [inputs.len() as u64, u64::from(self.model.embedding_size())];
        let prompt_tokens = inputs.iter().map(Vec::len).sum::<usize>();
        let rows = engine
            .embed(Embed { inputs, reduce: Reduce::Pool(pooling), normalize: request.normalize }, cancel)?;
        outputs.write("embeddings", TensorView::new(DType::F32, &shape, as_bytes(&rows))?)?;
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
        let engine = self.engine.as_ref().filter(|_| name == ENGINE_STATS)?;
        Some(Box::new(EngineStatsExtension(engine.counters())))
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

/// Builds the chain of samplers, in llama.cpp's own order.
fn sampler(model: &Model, sampling: &Sampling, context_length: u32) -> Result<Sampler> {
    let ranges = [
        ("temperature", sampling.temperature, 0.0, f32::MAX),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repeat_penalty", sampling.repeat_penalty, f32::MIN_POSITIVE, f32::MAX),
        ("presence_penalty", sampling.presence_penalty, f32::MIN, f32::MAX),
        ("frequency_penalty", sampling.frequency_penalty, f32::MIN, f32::MAX),
    ];
    for (name, value, least, most) in ranges {
        // Written so that NaN fails.
        if !(least..=most).contains(&value) {
            return Err(PluginError::invalid_input(format!("{name} is {value}, which is out of range")));
        }
    }
    let biases: Vec<(Id, f32)> = sampling
        .logit_bias
        .iter()
        .map(|(id, bias)| match bias.is_nan() {
            true => Err(PluginError::invalid_input(format!("the logit bias of token {id} is no number"))),
            false => Ok((model.token(*id).map_err(plugin_error)?, *bias)),
        })
        .collect::<Result<_>>()?;
    let last_n = match sampling.penalty_last_n {
        -1 => context_length,
        n => u32::try_from(n).map_err(|_| {
            PluginError::invalid_input(format!("penalty_last_n is {n}, and must be -1 or more"))
        })?,
    };
    let chain = Sampler::new().logit_bias(model, &biases).penalties(
        model,
        last_n,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    );
    if sampling.temperature == 0.0 {
        return Ok(chain.greedy());
    }
    let seed = sampling.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    Ok(chain
        .top_k(sampling.top_k)
        .top_p(sampling.top_p)
        .min_p(sampling.min_p)
        .temperature(sampling.temperature)
        .random((seed ^ (seed >> 32)) as u32))
}
