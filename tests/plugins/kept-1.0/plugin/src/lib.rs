//! A plugin that uses what ABI 1.0 has: tensors, tokens, options, settings, log, progress, cancel.
//!
//! Models of the format `scale` hold one number, with which inference multiplies and which generation counts up to.

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, DeviceInfo, Dim, FinishReason, GenerateRequest, GenerateSummary,
    HostContext, InferRequest, Level, LoadRequest, Memory, NamedTensor, OutputSpec, Plugin, PluginError,
    PluginInfo, Probe, ProgressSink, Result, Session, Signature, TensorSink, TensorSpec, TextSignature,
    Timings, TokenEvent, TokenSink, Usage, capability, codes, export_plugin,
};

struct Scale {
    host: HostContext,
}

impl Backend for Scale {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: "scale".into(),
            description: "Multiplies a tensor by the number in the model file".into(),
            formats: vec!["scale".into()],
            precisions: vec!["f32".into()],
            device_kinds: vec!["cpu".into()],
            capabilities: vec![capability::INFER.into(), capability::GENERATE.into()],
            options_schema: Default::default(),
        }
    }

    fn probe(&self) -> Probe {
        let cpu = DeviceInfo { id: "cpu".into(), name: "CPU".into(), memory_total: 0, memory_free: 0 };
        Probe { score: 100, reason: "runs on every processor".into(), devices: vec![cpu] }
    }

    fn estimate(&self, _request: &LoadRequest) -> Result<Vec<Memory>> {
        Ok(vec![Memory { device: "cpu".into(), weights: 4, ..Memory::default() }])
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        cancel.check()?;
        if progress.progress(0.0, "reading").is_break() {
            return Err(PluginError::cancelled());
        }
        let path = request.path.display();
        let text = std::fs::read_to_string(&request.path)
            .map_err(|e| PluginError::new(codes::MODEL_NOT_FOUND, format!("{path}: {e}")))?;
        let factor = text
            .trim()
            .parse()
            .map_err(|e| PluginError::new(codes::MODEL_INVALID, format!("{path}: {e}")))?;
        self.host.log(Level::Info, format!("loaded {}", self.host.settings()));
        Ok(Box::new(ScaleSession { factor }))
    }
}

struct ScaleSession {
    factor: f32,
}

impl Session for ScaleSession {
    fn signature(&self) -> Signature {
        let port = |name: &str| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![Dim::Dynamic("n".into())],
        };
        Signature {
            capabilities: vec![capability::INFER.into(), capability::GENERATE.into()],
            inputs: vec![port("x")],
            outputs: vec![port("y")],
            text: Some(TextSignature { vocab_size: 10, context_length: 10, ..TextSignature::default() }),
            ..Signature::default()
        }
    }

    fn usage(&self) -> Vec<Memory> {
        vec![Memory { device: "cpu".into(), weights: 4, ..Memory::default() }]
    }

    fn infer(
        &self,
        _request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        let [input] = inputs else { return Err(PluginError::invalid_input("one input is needed")) };
        let x = input.tensor.elements::<f32>()?;
        let spec = OutputSpec { name: "y", dtype: DType::F32, shape: input.tensor.shape() };
        let mut y = outputs.allocate(&[spec])?;
        for (out, x) in y[0].bytes().chunks_exact_mut(4).zip(x) {
            out.copy_from_slice(&(x * self.factor).to_le_bytes());
        }
        Ok(())
    }

    fn generate(
        &self,
        _request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let mut usage = Usage::default();
        for id in 1..=self.factor as u32 {
            cancel.check()?;
            usage.completion_tokens += 1;
            let text = id.to_string();
            if tokens.token(TokenEvent { id, text: &text, logprob: 0.0, extras: "" }).is_break() {
                break;
            }
        }
        let finish_reason = FinishReason::Stop;
        Ok(GenerateSummary { finish_reason, stop_string: None, usage, timings: Timings::default() })
    }
}

fn plugin(host: HostContext) -> Result<Plugin> {
    let info = PluginInfo {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..PluginInfo::default()
    };
    Ok(Plugin::new(info).backend(Scale { host }))
}

export_plugin!(name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), create: plugin);
