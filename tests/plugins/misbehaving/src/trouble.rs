//! Models of the format `trouble`: one word that says what goes wrong.

use std::path::PathBuf;

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, DeviceInfo, Dim, EmbedRequest, Extension, FinishReason,
    GenerateRequest, GenerateSummary, InferRequest, LoadRequest, Memory, NamedTensor, OutputSpec,
    PluginError, Probe, ProgressSink, Prompt, Result, SLOTS, Session, Signature, SlotsExtension, TensorSink,
    TensorSpec, TensorView, TextSignature, Timings, Token, TokenEvent, TokenSink, Usage, as_bytes,
    capability, codes,
};

use crate::extension::{Broken, Grudging, Obliging};
use crate::words::{abort, deaf, hang, word};

/// Sound in itself; its models are not.
pub struct Trouble {
    /// The method that panics, from the operator's settings.
    pub panic: String,
}

impl Backend for Trouble {
    fn describe(&self) -> BackendInfo {
        assert!(self.panic != "describe", "told to panic in describe");
        BackendInfo {
            id: "trouble".into(),
            description: "Does what the word in the model file says".into(),
            formats: vec!["trouble".into()],
            precisions: vec!["f32".into()],
            device_kinds: vec!["cpu".into()],
            capabilities: vec![
                capability::INFER.into(),
                capability::GENERATE.into(),
                capability::EMBED.into(),
                capability::TOKENIZE.into(),
            ],
            options_schema: serde_json::json!({
                "type": "object", "properties": {}, "additionalProperties": false
            }),
        }
    }

    fn probe(&self) -> Probe {
        assert!(self.panic != "probe", "told to panic in probe");
        let cpu = DeviceInfo { id: "cpu".into(), name: "CPU".into(), memory_total: 0, memory_free: 0 };
        Probe { score: 1, reason: "runs everywhere, badly".into(), devices: vec![cpu] }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        request.check(&self.describe(), &self.probe())?;
        word(&request.path)?;
        Ok(vec![Memory { device: "cpu".into(), weights: 1, ..Memory::default() }])
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        cancel.check()?;
        request.check(&self.describe(), &self.probe())?;
        let word = word(&request.path)?;
        if progress.progress(0.0, "reading the word").is_break() {
            return Err(PluginError::cancelled());
        }
        match word {
            "load-panic" => panic!("told to panic in load"),
            "load-hang" => return Err(hang(cancel)),
            "load-deaf" => deaf(&request.path),
            "load-abort" => abort(),
            "load-fail" => return Err(PluginError::new(codes::OUT_OF_MEMORY, "told to fail")),
            "leak" => std::mem::forget(vec![1u8; 8 << 20]),
            _ => {}
        }
        Ok(Box::new(TroubleSession { word, model: request.path.clone() }))
    }
}

struct TroubleSession {
    word: &'static str,
    model: PathBuf,
}

impl TroubleSession {
    fn infers(&self) -> bool {
        !self.word.starts_with("embed-")
    }
}

impl Drop for TroubleSession {
    fn drop(&mut self) {
        assert!(self.word != "drop-panic", "told to panic in drop");
    }
}

impl Session for TroubleSession {
    fn signature(&self) -> Signature {
        assert!(self.word != "signature-panic", "told to panic in signature");
        let port = |name: &str, columns| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![Dim::Dynamic("n".into()), Dim::Fixed(columns)],
        };
        let mut capabilities =
            vec![capability::GENERATE.into(), capability::EMBED.into(), capability::TOKENIZE.into()];
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        if self.infers() {
            capabilities.push(capability::INFER.into());
            (inputs, outputs) = (vec![port("x", 2)], vec![port("y", 2)]);
        }
        Signature {
            capabilities,
            inputs,
            outputs,
            text: Some(TextSignature {
                architecture: "trouble".into(),
                vocab_size: 256,
                context_length: 64,
                context_train: 64,
                embedding_size: 4,
                ..TextSignature::default()
            }),
            ..Signature::default()
        }
    }

    fn usage(&self) -> Vec<Memory> {
        vec![Memory { device: "cpu".into(), weights: 1, ..Memory::default() }]
    }

    fn infer(
        &self,
        _request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        if !self.infers() {
            return Err(PluginError::unsupported("this model", capability::INFER));
        }
        cancel.check()?;
        self.signature().check_inputs(inputs)?;
        let shape = inputs[0].tensor.shape();
        let rows = shape[0];
        let mut write = |name: &str, dtype: DType, shape: &[u64]| {
            outputs.allocate(&[OutputSpec { name, dtype, shape }]).map(drop)
        };
        match self.word {
            "infer-panic" => panic!("told to panic in infer"),
            "infer-deaf" => deaf(&self.model),
            "infer-abort" => abort(),
            "infer-wrong-shape" => return write("y", DType::F32, &[rows, 3]),
            "infer-wrong-type" => return write("y", DType::I64, &[rows, 2]),
            "infer-surplus" => write("nobody-asked", DType::F32, &[1])?,
            "infer-nothing" => return Ok(()),
            "infer-too-much" => return write("y", DType::F32, &[1 << 40, 2]),
            "infer-misuse" => {
                let y = OutputSpec { name: "y", dtype: DType::F32, shape };
                outputs.allocate(&[y, y])?;
                return Ok(());
            }
            _ => {}
        }
        outputs.write("y", inputs[0].tensor)
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        if let Some(name) = request.options.keys().next() {
            return Err(PluginError::invalid_input(format!("there is no option `{name}`")));
        }
        let prompt = ids(&request.prompt)?;
        let room = 64u32.checked_sub(prompt.len() as u32).ok_or_else(|| {
            let message = format!("the prompt has {} tokens, the context 64", prompt.len());
            PluginError::new(codes::CONTEXT_LENGTH_EXCEEDED, message)
        })?;
        match self.word {
            "generate-hang" => return Err(hang(cancel)),
            "generate-deaf" => deaf(&self.model),
            "generate-abort" => abort(),
            _ => {}
        }
        let babbles = self.word == "generate-babble";
        let limit = if babbles { 100_000 } else { request.max_tokens.unwrap_or(room) as usize };
        let limit = if prompt.is_empty() { 0 } else { limit };
        let mut answer: Vec<u8> = prompt.iter().cycle().take(limit).map(|id| *id as u8).collect();
        let ends = |stop: &String| answer.windows(stop.len().max(1)).position(|w| w == stop.as_bytes());
        let mut finish_reason = FinishReason::Length;
        if let Some(end) = request.stop.iter().filter_map(ends).min() {
            answer.truncate(end);
            finish_reason = FinishReason::Stop;
        }
        let mut count = 0;
        for byte in answer {
            if cancel.is_cancelled() && self.word != "generate-deaf" {
                finish_reason = FinishReason::Cancelled;
                break;
            }
            assert!(count < 2 || self.word != "generate-panic", "told to panic in generate");
            if count == 2 && self.word == "generate-abort-late" {
                abort();
            }
            count += 1;
            let text = match self.word {
                "generate-flood" => "text ".repeat(1 << 20),
                _ => char::from(byte).to_string(),
            };
            let flow =
                tokens.token(TokenEvent { id: byte.into(), text: &text, logprob: f32::NAN, extras: "" });
            if flow.is_break() && !babbles {
                finish_reason = FinishReason::Cancelled;
                break;
            }
        }
        let usage = match self.word {
            "generate-lie" => {
                Usage { prompt_tokens: u32::MAX, completion_tokens: u32::MAX, cached_tokens: u32::MAX }
            }
            _ => Usage { prompt_tokens: prompt.len() as u32, completion_tokens: count, cached_tokens: 0 },
        };
        Ok(GenerateSummary { finish_reason, stop_string: None, usage, timings: Timings::default() })
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        match self.word {
            "embed-panic" => panic!("told to panic in embed"),
            "embed-deaf" if cancel.is_cancelled() => deaf(&self.model),
            "embed-stubborn" => {}
            _ => cancel.check()?,
        }
        if let Some(pooling) = request.pooling.as_deref().filter(|p| !["mean", "cls", "last"].contains(p)) {
            return Err(PluginError::invalid_input(format!("there is no pooling `{pooling}`")));
        }
        let prompts = request.inputs.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let rows = prompts.len() + usize::from(self.word == "embed-wrong-shape");
        let shape = [rows as u64, 4];
        let unit = vec![0.5f32; 4 * rows];
        match self.word {
            "embed-nothing" => {}
            "embed-wrong-type" => {
                let whole = vec![1i64; 4 * rows];
                outputs.write("embeddings", TensorView::new(DType::I64, &shape, as_bytes(&whole))?)?;
            }
            _ => outputs.write("embeddings", TensorView::new(DType::F32, &shape, as_bytes(&unit))?)?,
        }
        let prompt_tokens = prompts.iter().map(|p| p.len() as u32).sum();
        Ok(Usage { prompt_tokens, ..Usage::default() })
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        let token = |id: u32| Token { id, text: String::from_utf8_lossy(&[id as u8]).into_owned() };
        Ok(ids(prompt)?.into_iter().map(token).collect())
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String> {
        let bytes =
            ids(&Prompt::Tokens(tokens.to_vec()))?.into_iter().map(|id| id as u8).collect::<Vec<u8>>();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        match (self.word, name) {
            ("extension-panic", _) => panic!("told to panic in extension"),
            ("extension-any", _) => Some(Box::new(Obliging)),
            ("extension-obliging", "pajamas.chat/1") => Some(Box::new(Obliging)),
            ("extension-broken", "pajamas.chat/1") => Some(Box::new(Broken)),
            ("slots-kept", SLOTS) => Some(Box::new(SlotsExtension(Grudging { counts: true }))),
            ("slots-miscounted", SLOTS) => Some(Box::new(SlotsExtension(Grudging { counts: false }))),
            _ => None,
        }
    }
}

/// One token a byte.
fn ids(prompt: &Prompt) -> Result<Vec<u32>> {
    match prompt {
        Prompt::Text { text, .. } => Ok(text.bytes().map(u32::from).collect()),
        Prompt::Tokens(ids) => match ids.iter().find(|id| **id > 255) {
            Some(id) => {
                Err(PluginError::invalid_input(format!("token {id} is outside the vocabulary of 256")))
            }
            None => Ok(ids.clone()),
        },
        _ => Err(PluginError::unsupported("this model", "prompts of two texts")),
    }
}
