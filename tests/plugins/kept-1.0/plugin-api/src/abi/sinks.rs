//! Sinks and tensors on their way out: Rust traits of this side, as the other side calls them.

use std::ops::ControlFlow;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::{RResult, RSlice, RSliceMut, RStr};

use super::guard;
use super::raw::*;
use crate::{DType, EventSink, NamedTensor, OutputSpec, PluginError, Result, TensorSink};
#[cfg(feature = "host")]
use crate::{ProgressSink, TokenEvent, TokenSink};

/// Calls a sink; one that panics is answered with "stop".
fn go_on(what: &str, body: impl FnOnce() -> ControlFlow<()>) -> bool {
    guard(what, || Ok(body().is_continue())).unwrap_or(false)
}

pub(crate) fn raw_tensors<'a>(inputs: &[NamedTensor<'a>]) -> Vec<RawTensor<'a>> {
    inputs
        .iter()
        .map(|t| RawTensor {
            name: t.name.into(),
            dtype: t.tensor.dtype() as u8,
            shape: RSlice::from(t.tensor.shape()),
            bytes: RSlice::from(t.tensor.bytes()),
        })
        .collect()
}

#[cfg(feature = "host")]
pub(crate) struct TokensOut<'a>(pub(crate) &'a mut dyn TokenSink);

#[cfg(feature = "host")]
impl TokensOut<'_> {
    pub(crate) fn raw(&mut self) -> RawTokenSinkMut<'_> {
        RawTokenSink_TO::from_ptr(RMut::new(self), TD_Opaque)
    }
}

#[cfg(feature = "host")]
impl RawTokenSink for TokensOut<'_> {
    fn token(&mut self, token: RawToken<'_>) -> bool {
        let event = TokenEvent {
            id: token.id,
            text: token.text.as_str(),
            logprob: token.logprob,
            extras: token.extras.as_str(),
        };
        go_on("token sink", || self.0.token(event))
    }
}

pub(crate) struct TensorsOut<'a>(pub(crate) &'a mut dyn TensorSink);

impl TensorsOut<'_> {
    pub(crate) fn raw(&mut self) -> RawTensorSinkMut<'_> {
        RawTensorSink_TO::from_ptr(RMut::new(self), TD_Opaque)
    }

    fn fill(&mut self, outputs: &[RawOutput<'_>], slots: &mut [RawSlot]) -> Result<()> {
        let specs = outputs
            .iter()
            .map(|o| {
                Ok(OutputSpec {
                    name: o.name.as_str(),
                    dtype: DType::from_wire(o.dtype)?,
                    shape: o.shape.as_slice(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let views = self.0.allocate(&specs)?;
        if views.len() != slots.len() {
            return Err(PluginError::new(
                crate::codes::PROTOCOL,
                "the sink gave another number of slots than asked for",
            ));
        }
        for (slot, mut view) in slots.iter_mut().zip(views) {
            let bytes = view.bytes();
            *slot = RawSlot { ptr: bytes.as_mut_ptr(), len: bytes.len() };
        }
        Ok(())
    }
}

impl RawTensorSink for TensorsOut<'_> {
    fn allocate(
        &mut self,
        outputs: RSlice<'_, RawOutput<'_>>,
        mut slots: RSliceMut<'_, RawSlot>,
    ) -> RawResult<()> {
        match guard("tensor sink", || self.fill(outputs.as_slice(), slots.as_mut_slice())) {
            Ok(()) => RResult::ROk(()),
            Err(error) => RResult::RErr(error.into()),
        }
    }
}

#[cfg(feature = "host")]
pub(crate) struct ProgressOut<'a>(pub(crate) &'a mut dyn ProgressSink);

#[cfg(feature = "host")]
impl ProgressOut<'_> {
    pub(crate) fn raw(&mut self) -> RawProgressSinkMut<'_> {
        RawProgressSink_TO::from_ptr(RMut::new(self), TD_Opaque)
    }
}

#[cfg(feature = "host")]
impl RawProgressSink for ProgressOut<'_> {
    fn progress(&mut self, fraction: f32, message: RStr<'_>) -> bool {
        go_on("progress sink", || self.0.progress(fraction, message.as_str()))
    }
}

pub(crate) struct EventsOut<'a>(pub(crate) &'a mut dyn EventSink);

impl EventsOut<'_> {
    pub(crate) fn raw(&mut self) -> RawEventSinkMut<'_> {
        RawEventSink_TO::from_ptr(RMut::new(self), TD_Opaque)
    }
}

impl RawEventSink for EventsOut<'_> {
    fn event(&mut self, name: RStr<'_>, payload: RSlice<'_, u8>) -> bool {
        go_on("event sink", || self.0.event(name.as_str(), payload.as_slice()))
    }
}
