//! Turns what crosses back into the traits: the host's half.

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RSlice, RStr, RString};

use super::plugin_side::{ExtensionEntry, HostExtension};
use super::raw::*;
use super::sinks::{ProgressOut, TensorsOut, TokensOut, raw_tensors};
use super::{from_json, to_json};
use crate::{
    Backend, BackendInfo, Cancel, EmbedRequest, Extension, GenerateRequest, GenerateSummary, HostContext,
    InferRequest, Level, LoadRequest, Memory, NamedTensor, PluginError, PluginInfo, Probe, ProgressSink,
    Prompt, QuantizePlan, QuantizeReport, QuantizeRequest, Quantizer, QuantizerInfo, Result, Session,
    Signature, TensorSink, Token, TokenSink, Usage,
};

/// A plugin born in this process, with its parts as ordinary traits.
pub(crate) struct Born {
    pub(crate) info: PluginInfo,
    pub(crate) backends: Vec<Box<dyn Backend>>,
    pub(crate) quantizers: Vec<Box<dyn Quantizer>>,
}

/// Calls the root module's `create` and describes every part once, so that the infallible trait methods
/// answer from memory.
pub(crate) fn create(module: PluginMod_Ref, host: HostContext) -> Result<Born> {
    let host = RawHost_TO::from_value(HostEntry(host), TD_Opaque);
    let mut plugin = module.create()(host).into_result()?;
    let info = from_json("the plugin's description", plugin.info().as_str())?;
    let backends = plugin
        .take_backends()
        .into_iter()
        .map(|raw| {
            let info = from_json("a backend's description", &text(raw.describe())?)?;
            Ok(Box::new(ForeignBackend { raw, info }) as Box<dyn Backend>)
        })
        .collect::<Result<_>>()?;
    let quantizers = plugin
        .take_quantizers()
        .into_iter()
        .map(|raw| {
            let info = from_json("a quantizer's description", &text(raw.describe())?)?;
            Ok(Box::new(ForeignQuantizer { raw, info }) as Box<dyn Quantizer>)
        })
        .collect::<Result<_>>()?;
    Ok(Born { info, backends, quantizers })
}

fn text(result: RawResult<RString>) -> Result<String> {
    result.into_result().map(RString::into_string).map_err(PluginError::from)
}

fn found(result: RawResult<ROption<RawExtensionBox>>) -> Option<Box<dyn Extension>> {
    let raw = result.into_result().ok()?.into_option()?;
    Some(Box::new(HostExtension(raw)))
}

struct HostEntry(HostContext);

impl RawHost for HostEntry {
    fn log(&self, level: u8, message: RStr<'_>) {
        let level = match level {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            _ => Level::Debug,
        };
        let _ = super::guard("host log", || {
            self.0.log(level, message.as_str());
            Ok(())
        });
    }

    fn plugin_dir(&self) -> RString {
        self.0.plugin_dir().to_string_lossy().into_owned().into()
    }

    fn settings(&self) -> RString {
        to_json(&self.0.settings()).unwrap_or_else(|_| "null".into()).into()
    }

    fn extension(&self, name: RStr<'_>) -> ROption<RawExtensionBox> {
        self.0
            .extension(name.as_str())
            .map(|e| RawExtension_TO::from_value(ExtensionEntry::new(e), TD_Opaque))
            .into()
    }
}

struct ForeignBackend {
    raw: RawBackendBox,
    info: BackendInfo,
}

impl Backend for ForeignBackend {
    fn describe(&self) -> BackendInfo {
        self.info.clone()
    }

    fn probe(&self) -> Probe {
        text(self.raw.probe()).and_then(|t| from_json("the probe", &t)).unwrap_or_else(|e| Probe {
            score: 0,
            reason: format!("the probe failed: {e}"),
            devices: Vec::new(),
        })
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        from_json("the estimate", &text(self.raw.estimate(to_json(request)?.as_str().into()))?)
    }

    fn load(
        &self,
        request: &LoadRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        let mut progress = ProgressOut(progress);
        let raw = self
            .raw
            .load(to_json(request)?.as_str().into(), progress.raw(), cancel.0.clone())
            .into_result()?;
        let signature = from_json("the session's signature", &text(raw.signature())?)?;
        Ok(Box::new(ForeignSession { raw, signature }))
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        found(self.raw.extension(name.into()))
    }
}

struct ForeignSession {
    raw: RawSessionBox,
    signature: Signature,
}

impl Session for ForeignSession {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    fn usage(&self) -> Vec<Memory> {
        text(self.raw.usage()).and_then(|t| from_json("the usage", &t)).unwrap_or_default()
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut outputs = TensorsOut(outputs);
        let inputs = raw_tensors(inputs);
        let request = to_json(request)?;
        let inputs = RSlice::from(inputs.as_slice());
        Ok(self.raw.infer(request.as_str().into(), inputs, outputs.raw(), cancel.0.clone()).into_result()?)
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        let mut tokens = TokensOut(tokens);
        let request = to_json(request)?;
        let summary = self.raw.generate(request.as_str().into(), tokens.raw(), cancel.0.clone());
        from_json("the summary", &text(summary)?)
    }

    fn embed(&self, request: &EmbedRequest, outputs: &mut dyn TensorSink, cancel: &Cancel) -> Result<Usage> {
        let mut outputs = TensorsOut(outputs);
        let request = to_json(request)?;
        from_json(
            "the usage",
            &text(self.raw.embed(request.as_str().into(), outputs.raw(), cancel.0.clone()))?,
        )
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        from_json("the tokens", &text(self.raw.tokenize(to_json(prompt)?.as_str().into()))?)
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String> {
        text(self.raw.detokenize(RSlice::from(tokens)))
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        found(self.raw.extension(name.into()))
    }
}

struct ForeignQuantizer {
    raw: RawQuantizerBox,
    info: QuantizerInfo,
}

impl Quantizer for ForeignQuantizer {
    fn describe(&self) -> QuantizerInfo {
        self.info.clone()
    }

    fn plan(&self, request: &QuantizeRequest) -> Result<QuantizePlan> {
        from_json("the plan", &text(self.raw.plan(to_json(request)?.as_str().into()))?)
    }

    fn run(
        &self,
        request: &QuantizeRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<QuantizeReport> {
        let mut progress = ProgressOut(progress);
        let request = to_json(request)?;
        from_json(
            "the report",
            &text(self.raw.run(request.as_str().into(), progress.raw(), cancel.0.clone()))?,
        )
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        found(self.raw.extension(name.into()))
    }
}
