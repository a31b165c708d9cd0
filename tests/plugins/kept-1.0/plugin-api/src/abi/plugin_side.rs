//! Turns an author's traits into what crosses: every entry is guarded, every request parsed.

use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};

use super::raw::*;
use super::{from_json, guard, to_json};
use crate::{
    Backend, Cancel, DType, EventSink, Extension, HostContext, HostServices, Level, NamedTensor, OutputSpec,
    Plugin, PluginError, ProgressSink, Quantizer, Result, Session, TensorSink, TensorView, TensorViewMut,
    TokenEvent, TokenSink, codes,
};

/// Drops what an author wrote without letting a panic in its destructor cross.
struct Guarded<T>(ManuallyDrop<T>);

impl<T> Guarded<T> {
    fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> std::ops::Deref for Guarded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let _ = guard("drop", || {
            // SAFETY: this is the only place that drops the value, and `self` is never used again.
            unsafe { ManuallyDrop::drop(&mut self.0) };
            Ok(())
        });
    }
}

fn raw<T, R>(result: Result<T>) -> RawResult<R>
where
    T: Into<R>,
{
    match result {
        Ok(value) => RResult::ROk(value.into()),
        Err(error) => RResult::RErr(error.into()),
    }
}

fn flow(go_on: bool) -> ControlFlow<()> {
    if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn tensors<'a>(inputs: RSlice<'a, RawTensor<'a>>) -> Result<Vec<NamedTensor<'a>>> {
    inputs
        .as_slice()
        .iter()
        .map(|t| {
            let (name, shape, bytes) = (t.name.as_str(), t.shape.as_slice(), t.bytes.as_slice());
            Ok(NamedTensor { name, tensor: TensorView::new(DType::from_wire(t.dtype)?, shape, bytes)? })
        })
        .collect()
}

fn extension(found: Option<Box<dyn Extension>>) -> ROption<RawExtensionBox> {
    found.map(|e| RawExtension_TO::from_value(ExtensionEntry(Guarded::new(e)), TD_Opaque)).into()
}

// ---- sinks: the host's, as the author sees them ----

struct Tokens<'a>(RawTokenSinkMut<'a>);

impl TokenSink for Tokens<'_> {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        flow(self.0.token(RawToken {
            id: event.id,
            logprob: event.logprob,
            text: RStr::from(event.text),
            extras: RStr::from(event.extras),
        }))
    }
}

struct Tensors<'a>(RawTensorSinkMut<'a>);

impl TensorSink for Tensors<'_> {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        let specs: Vec<RawOutput<'_>> = outputs
            .iter()
            .map(|o| RawOutput { name: o.name.into(), dtype: o.dtype as u8, shape: RSlice::from(o.shape) })
            .collect();
        let mut slots = vec![RawSlot { ptr: std::ptr::null_mut(), len: 0 }; outputs.len()];
        self.0
            .allocate(RSlice::from(specs.as_slice()), RSliceMut::from(slots.as_mut_slice()))
            .into_result()?;
        outputs
            .iter()
            .zip(slots)
            .map(|(spec, slot)| {
                let bytes: &'s mut [u8] = match slot.len {
                    0 => &mut [],
                    // SAFETY: the host promises a distinct, initialised allocation of `len` bytes per slot that
                    // lives until the sink is used again; the borrow of `self` keeps it from being used.
                    len => unsafe { std::slice::from_raw_parts_mut(slot.ptr, len) },
                };
                TensorViewMut::new(spec.dtype, spec.shape, bytes)
            })
            .collect()
    }
}

struct Progress<'a>(RawProgressSinkMut<'a>);

impl ProgressSink for Progress<'_> {
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()> {
        flow(self.0.progress(fraction, RStr::from(message)))
    }
}

struct Events<'a>(RawEventSinkMut<'a>);

impl EventSink for Events<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        flow(self.0.event(RStr::from(name), RSlice::from(payload)))
    }
}

struct HostHandle(RawHostBox);

impl HostServices for HostHandle {
    fn log(&self, level: Level, message: &str) {
        self.0.log(level as u8, RStr::from(message));
    }
    fn plugin_dir(&self) -> PathBuf {
        PathBuf::from(self.0.plugin_dir().as_str())
    }
    fn settings(&self) -> serde_json::Value {
        serde_json::from_str(self.0.settings().as_str()).unwrap_or_default()
    }
    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        self.0
            .extension(RStr::from(name))
            .into_option()
            .map(|e| Box::new(HostExtension(e)) as Box<dyn Extension>)
    }
}

/// An extension of the other side, as a Rust trait.
pub(crate) struct HostExtension(pub(crate) RawExtensionBox);

impl Extension for HostExtension {
    fn call(
        &self,
        input: &[u8],
        tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        use super::sinks::{EventsOut, TensorsOut, raw_tensors};
        let mut events = EventsOut(events);
        let mut outputs = TensorsOut(outputs);
        let tensors = raw_tensors(tensors);
        self.0
            .call(
                RSlice::from(input),
                RSlice::from(tensors.as_slice()),
                events.raw(),
                outputs.raw(),
                cancel.0.clone(),
            )
            .into_result()
            .map(RVec::into_vec)
            .map_err(PluginError::from)
    }
}

// ---- entries: the author's, as the host sees them ----

pub(crate) struct ExtensionEntry(Guarded<Box<dyn Extension>>);

#[cfg(feature = "host")]
impl ExtensionEntry {
    pub(crate) fn new(extension: Box<dyn Extension>) -> Self {
        Self(Guarded::new(extension))
    }
}

impl RawExtension for ExtensionEntry {
    fn call(
        &self,
        input: RSlice<'_, u8>,
        inputs: RSlice<'_, RawTensor<'_>>,
        events: RawEventSinkMut<'_>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RVec<u8>> {
        raw(guard("extension", || {
            let inputs = tensors(inputs)?;
            self.0.call(
                input.as_slice(),
                &inputs,
                &mut Events(events),
                &mut Tensors(outputs),
                &Cancel(cancel),
            )
        }))
    }
}

/// A session that has panicked may hold half-changed state: it takes no more requests.
struct SessionEntry {
    session: Guarded<Box<dyn Session>>,
    poisoned: AtomicBool,
}

impl SessionEntry {
    fn enter<T, R>(&self, what: &str, body: impl FnOnce(&dyn Session) -> Result<T>) -> RawResult<R>
    where
        T: Into<R>,
    {
        if self.poisoned.load(Ordering::Acquire) {
            let error =
                PluginError::new(codes::SESSION_POISONED, "the session panicked in an earlier request")
                    .help("unload the model and load it again");
            return RResult::RErr(error.into());
        }
        let result = guard(what, || body(&**self.session));
        if matches!(&result, Err(e) if e.code == codes::PANICKED) {
            self.poisoned.store(true, Ordering::Release);
        }
        raw(result)
    }
}

impl RawSession for SessionEntry {
    fn signature(&self) -> RawResult<RString> {
        self.enter("signature", |s| to_json(&s.signature()))
    }

    fn usage(&self) -> RawResult<RString> {
        self.enter("usage", |s| to_json(&s.usage()))
    }

    fn infer(
        &self,
        request: RStr<'_>,
        inputs: RSlice<'_, RawTensor<'_>>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<()> {
        self.enter("infer", |s| {
            let request = from_json("the request", request.as_str())?;
            s.infer(&request, &tensors(inputs)?, &mut Tensors(outputs), &Cancel(cancel))
        })
    }

    fn generate(
        &self,
        request: RStr<'_>,
        tokens: RawTokenSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString> {
        self.enter("generate", |s| {
            let request = from_json("the request", request.as_str())?;
            to_json(&s.generate(&request, &mut Tokens(tokens), &Cancel(cancel))?)
        })
    }

    fn embed(
        &self,
        request: RStr<'_>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString> {
        self.enter("embed", |s| {
            let request = from_json("the request", request.as_str())?;
            to_json(&s.embed(&request, &mut Tensors(outputs), &Cancel(cancel))?)
        })
    }

    fn tokenize(&self, prompt: RStr<'_>) -> RawResult<RString> {
        self.enter("tokenize", |s| to_json(&s.tokenize(&from_json("the prompt", prompt.as_str())?)?))
    }

    fn detokenize(&self, tokens: RSlice<'_, u32>) -> RawResult<RString> {
        self.enter("detokenize", |s| s.detokenize(tokens.as_slice()))
    }

    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>> {
        self.enter("extension", |s| Ok(extension(s.extension(name.as_str()))))
    }
}

struct BackendEntry(Guarded<Box<dyn Backend>>);

impl RawBackend for BackendEntry {
    fn describe(&self) -> RawResult<RString> {
        raw(guard("describe", || to_json(&self.0.describe())))
    }

    fn probe(&self) -> RawResult<RString> {
        raw(guard("probe", || to_json(&self.0.probe())))
    }

    fn estimate(&self, request: RStr<'_>) -> RawResult<RString> {
        raw(guard("estimate", || to_json(&self.0.estimate(&from_json("the request", request.as_str())?)?)))
    }

    fn load(
        &self,
        request: RStr<'_>,
        progress: RawProgressSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RawSessionBox> {
        raw(guard("load", || {
            let request = from_json("the request", request.as_str())?;
            let session = self.0.load(&request, &mut Progress(progress), &Cancel(cancel))?;
            let entry = SessionEntry { session: Guarded::new(session), poisoned: AtomicBool::new(false) };
            Ok(RawSession_TO::from_value(entry, TD_Opaque))
        }))
    }

    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>> {
        raw(guard("extension", || Ok(extension(self.0.extension(name.as_str())))))
    }
}

struct QuantizerEntry(Guarded<Box<dyn Quantizer>>);

impl RawQuantizer for QuantizerEntry {
    fn describe(&self) -> RawResult<RString> {
        raw(guard("describe", || to_json(&self.0.describe())))
    }

    fn plan(&self, request: RStr<'_>) -> RawResult<RString> {
        raw(guard("plan", || to_json(&self.0.plan(&from_json("the request", request.as_str())?)?)))
    }

    fn run(
        &self,
        request: RStr<'_>,
        progress: RawProgressSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString> {
        raw(guard("run", || {
            let request = from_json("the request", request.as_str())?;
            to_json(&self.0.run(&request, &mut Progress(progress), &Cancel(cancel))?)
        }))
    }

    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>> {
        raw(guard("extension", || Ok(extension(self.0.extension(name.as_str())))))
    }
}

struct PluginEntry(Guarded<Plugin>);

impl RawPlugin for PluginEntry {
    fn info(&self) -> RString {
        to_json(&self.0.info).unwrap_or_default().into()
    }

    fn take_backends(&mut self) -> RVec<RawBackendBox> {
        let taken = std::mem::take(&mut self.0.backends);
        taken
            .into_iter()
            .map(|b| RawBackend_TO::from_value(BackendEntry(Guarded::new(b)), TD_Opaque))
            .collect()
    }

    fn take_quantizers(&mut self) -> RVec<RawQuantizerBox> {
        let taken = std::mem::take(&mut self.0.quantizers);
        taken
            .into_iter()
            .map(|q| RawQuantizer_TO::from_value(QuantizerEntry(Guarded::new(q)), TD_Opaque))
            .collect()
    }
}

/// Calls the author's function; what `export_plugin!` puts into the root module.
pub fn create(host: RawHostBox, author: fn(HostContext) -> Result<Plugin>) -> RawResult<RawPluginBox> {
    let context = HostContext::new(HostHandle(host));
    raw(guard("create", || {
        let entry = PluginEntry(Guarded::new(author(context)?));
        Ok(RawPlugin_TO::from_value(entry, TD_Opaque))
    }))
}

/// The root module around an author's `create`.
pub fn root_module(create: extern "C" fn(RawHostBox) -> RawResult<RawPluginBox>) -> PluginMod_Ref {
    PluginMod { create }.leak_into_prefix()
}
