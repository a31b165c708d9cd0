//! Growth by name: capabilities that appeared after this version of the traits.

use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sink::{Cancel, EventSink, OutputSpec, TensorSink};
use crate::tensor::{NamedTensor, TensorViewMut};
use crate::{PluginError, Result, codes};

/// A capability obtained by name from a backend, a session, a quantizer or the host.
///
/// The name fixes the meaning of every byte, for example `pajamas.transcribe/1`; names are documented in
/// `docs/src/abi-versioning.md` and never change their meaning.
pub trait Extension: Send + Sync {
    /// Carries out one call. `input` and the result are JSON unless the extension's name says otherwise.
    ///
    /// # Errors
    /// Those of the extension; `cancelled`.
    fn call(
        &self,
        input: &[u8],
        tensors: &[NamedTensor<'_>],
        events: &mut dyn EventSink,
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<Vec<u8>>;
}

/// Calls the extension `name`, which answers with JSON and nothing else.
pub(crate) fn ask<T: DeserializeOwned>(extension: &dyn Extension, name: &str, input: &[u8]) -> Result<T> {
    let answer = extension.call(input, &[], &mut NoEvents, &mut NoTensors, &Cancel::new())?;
    serde_json::from_slice(&answer)
        .map_err(|error| PluginError::new(codes::PROTOCOL, format!("{name}: {error}")))
}

/// As [`ask`], of an extension whose calls are JSON.
pub(crate) fn call<T: DeserializeOwned>(
    extension: &dyn Extension,
    name: &str,
    call: &impl Serialize,
) -> Result<T> {
    ask(extension, name, &to_json(call)?)
}

/// The plugin's side of such an extension: reads its call.
pub(crate) fn read<C: DeserializeOwned>(name: &str, input: &[u8]) -> Result<C> {
    serde_json::from_slice(input).map_err(|error| PluginError::invalid_input(format!("{name}: {error}")))
}

/// A call, or what an extension answers it with.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| PluginError::new(codes::INTERNAL, error.to_string()))
}

/// The answer is the call's result: it streams nothing.
pub(crate) struct NoEvents;

impl EventSink for NoEvents {
    fn event(&mut self, _name: &str, _payload: &[u8]) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Nor does it write tensors.
pub(crate) struct NoTensors;

impl TensorSink for NoTensors {
    fn allocate<'s>(&'s mut self, _outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        Err(PluginError::new(codes::PROTOCOL, "the extension writes tensors, and must not"))
    }
}
