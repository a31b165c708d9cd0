//! What crosses. Append-only within 1.x: fields and methods go after the last, methods with a default body;
//! plain `repr(C)` records below (`RawTensor`, `RawToken`, …) are frozen.

#![allow(missing_docs, reason = "private layer: the traits in the crate root document these operations")]
#![allow(non_local_definitions, reason = "the expansion of `sabi_trait` is older than the lint")]
#![allow(non_camel_case_types, reason = "abi_stable names prefix references `X_Ref`")]

use std::sync::atomic::AtomicBool;

use abi_stable::declare_root_module_statics;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::{RMut, VersionStrings};
use abi_stable::std_types::{RArc, RBox, ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use abi_stable::{StableAbi, sabi_trait};

use crate::PluginError;

#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct RawError {
    pub code: RString,
    pub message: RString,
    pub help: RString,
}

pub type RawResult<T> = RResult<T, RawError>;

impl From<PluginError> for RawError {
    fn from(e: PluginError) -> Self {
        Self { code: e.code.into(), message: e.message.into(), help: e.help.into() }
    }
}

impl From<RawError> for PluginError {
    fn from(e: RawError) -> Self {
        Self { code: e.code.into(), message: e.message.into(), help: e.help.into() }
    }
}

/// A borrowed tensor; `dtype` is the wire number of `DType`.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawTensor<'a> {
    pub name: RStr<'a>,
    pub dtype: u8,
    pub shape: RSlice<'a, u64>,
    pub bytes: RSlice<'a, u8>,
}

/// An output about to be written.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawOutput<'a> {
    pub name: RStr<'a>,
    pub dtype: u8,
    pub shape: RSlice<'a, u64>,
}

/// Memory of the host for one output: valid until the sink is used again or the call returns.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawSlot {
    pub ptr: *mut u8,
    pub len: usize,
}

#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawToken<'a> {
    pub id: u32,
    pub logprob: f32,
    pub text: RStr<'a>,
    pub extras: RStr<'a>,
}

/// Sinks answer `true` to go on, `false` to stop.
#[sabi_trait]
pub trait RawTokenSink {
    #[sabi(last_prefix_field)]
    fn token(&mut self, token: RawToken<'_>) -> bool;
}

#[sabi_trait]
pub trait RawTensorSink {
    /// Fills one slot per output.
    #[sabi(last_prefix_field)]
    fn allocate(
        &mut self,
        outputs: RSlice<'_, RawOutput<'_>>,
        slots: RSliceMut<'_, RawSlot>,
    ) -> RawResult<()>;
}

#[sabi_trait]
pub trait RawProgressSink {
    #[sabi(last_prefix_field)]
    fn progress(&mut self, fraction: f32, message: RStr<'_>) -> bool;
}

#[sabi_trait]
pub trait RawEventSink {
    #[sabi(last_prefix_field)]
    fn event(&mut self, name: RStr<'_>, payload: RSlice<'_, u8>) -> bool;
}

pub type RawTokenSinkMut<'a> = RawTokenSink_TO<'a, RMut<'a, ()>>;
pub type RawTensorSinkMut<'a> = RawTensorSink_TO<'a, RMut<'a, ()>>;
pub type RawProgressSinkMut<'a> = RawProgressSink_TO<'a, RMut<'a, ()>>;
pub type RawEventSinkMut<'a> = RawEventSink_TO<'a, RMut<'a, ()>>;
/// The cancel flag itself, shared by reference count.
pub type RawCancel = RArc<AtomicBool>;

#[sabi_trait]
pub trait RawExtension: Send + Sync {
    #[sabi(last_prefix_field)]
    fn call(
        &self,
        input: RSlice<'_, u8>,
        tensors: RSlice<'_, RawTensor<'_>>,
        events: RawEventSinkMut<'_>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RVec<u8>>;
}
pub type RawExtensionBox = RawExtension_TO<'static, RBox<()>>;

/// What the host gives a plugin.
#[sabi_trait]
pub trait RawHost: Send + Sync {
    fn log(&self, level: u8, message: RStr<'_>);
    fn plugin_dir(&self) -> RString;
    fn settings(&self) -> RString;
    #[sabi(last_prefix_field)]
    fn extension(&self, name: RStr<'_>) -> ROption<RawExtensionBox>;
}
pub type RawHostBox = RawHost_TO<'static, RBox<()>>;

#[sabi_trait]
pub trait RawSession: Send + Sync {
    fn signature(&self) -> RawResult<RString>;
    fn usage(&self) -> RawResult<RString>;
    fn infer(
        &self,
        request: RStr<'_>,
        inputs: RSlice<'_, RawTensor<'_>>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<()>;
    fn generate(
        &self,
        request: RStr<'_>,
        tokens: RawTokenSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString>;
    fn embed(
        &self,
        request: RStr<'_>,
        outputs: RawTensorSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString>;
    fn tokenize(&self, prompt: RStr<'_>) -> RawResult<RString>;
    fn detokenize(&self, tokens: RSlice<'_, u32>) -> RawResult<RString>;
    #[sabi(last_prefix_field)]
    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>>;
}
pub type RawSessionBox = RawSession_TO<'static, RBox<()>>;

#[sabi_trait]
pub trait RawBackend: Send + Sync {
    fn describe(&self) -> RawResult<RString>;
    fn probe(&self) -> RawResult<RString>;
    fn estimate(&self, request: RStr<'_>) -> RawResult<RString>;
    fn load(
        &self,
        request: RStr<'_>,
        progress: RawProgressSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RawSessionBox>;
    #[sabi(last_prefix_field)]
    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>>;
}
pub type RawBackendBox = RawBackend_TO<'static, RBox<()>>;

#[sabi_trait]
pub trait RawQuantizer: Send + Sync {
    fn describe(&self) -> RawResult<RString>;
    fn plan(&self, request: RStr<'_>) -> RawResult<RString>;
    fn run(
        &self,
        request: RStr<'_>,
        progress: RawProgressSinkMut<'_>,
        cancel: RawCancel,
    ) -> RawResult<RString>;
    #[sabi(last_prefix_field)]
    fn extension(&self, name: RStr<'_>) -> RawResult<ROption<RawExtensionBox>>;
}
pub type RawQuantizerBox = RawQuantizer_TO<'static, RBox<()>>;

/// One plugin, born. Backends and quantizers are taken once.
#[sabi_trait]
pub trait RawPlugin: Send + Sync {
    fn info(&self) -> RString;
    fn take_backends(&mut self) -> RVec<RawBackendBox>;
    #[sabi(last_prefix_field)]
    fn take_quantizers(&mut self) -> RVec<RawQuantizerBox>;
}
pub type RawPluginBox = RawPlugin_TO<'static, RBox<()>>;

/// The root module: what the loader finds in every plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginMod_Ref)))]
#[sabi(missing_field(option))]
pub struct PluginMod {
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(RawHostBox) -> RawResult<RawPluginBox>,
}

impl RootModule for PluginMod_Ref {
    declare_root_module_statics! {PluginMod_Ref}
    const BASE_NAME: &'static str = "pajamas_plugin";
    const NAME: &'static str = "pajamas_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
