//! What the host hands to a plugin for the length of one call: places to put results, and a flag to stop.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use abi_stable::std_types::RArc;

use crate::{DType, PluginError, Result, SharedTensor, TensorView, TensorViewMut};

/// One generated token, or the text held back before the end of the stream.
#[derive(Debug, Clone, Copy)]
pub struct TokenEvent<'a> {
    /// The token's id in the model's vocabulary.
    pub id: u32,
    /// The text it adds, always whole UTF-8: a backend holds incomplete characters (and possible beginnings of a
    /// stop string) back, so the text may be empty and the next one longer.
    pub text: &'a str,
    /// Natural logarithm of the token's probability; NaN when the request did not ask for it.
    pub logprob: f32,
    /// JSON for what has no field of its own (for example `{"top_logprobs":[…]}`); usually empty.
    pub extras: &'a str,
}

/// Where a session puts generated tokens. Called on the thread that called the session.
pub trait TokenSink {
    /// Takes a token. `Break` asks the session to stop: it then returns with finish reason `cancelled`.
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()>;
}

/// An output that a session is about to write.
#[derive(Debug, Clone, Copy)]
pub struct OutputSpec<'a> {
    /// The model's name for the output.
    pub name: &'a str,
    /// Its element type.
    pub dtype: DType,
    /// Its actual shape.
    pub shape: &'a [u64],
}

/// Where a session puts tensors.
///
/// The host owns the memory, so that a backend can have its runtime write straight into it.
pub trait TensorSink {
    /// Memory for these outputs, all usable at once until the sink is used again, zeroed and aligned for its type.
    /// Fails with `output-too-large` beyond the host's limit. An output of the same name replaces an earlier one.
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>>;

    /// Copies one tensor into the sink.
    fn write(&mut self, name: &str, tensor: TensorView<'_>) -> Result<()> {
        let spec = OutputSpec { name, dtype: tensor.dtype(), shape: tensor.shape() };
        let mut slots = self.allocate(&[spec])?;
        match slots.first_mut() {
            Some(slot) => {
                slot.bytes().copy_from_slice(tensor.bytes());
                Ok(())
            }
            None => Err(PluginError::new(crate::codes::PROTOCOL, "the sink gave no memory for the output")),
        }
    }

    /// Gives one tensor away, memory and all: a sink that can keep memory of others saves the copy that this makes.
    fn share(&mut self, name: &str, tensor: SharedTensor) -> Result<()> {
        self.write(name, tensor.view()?)
    }
}

/// Where long work reports how far it is.
pub trait ProgressSink {
    /// `fraction` in 0..=1, with a few words on what is being done. `Break` asks to stop.
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()>;
}

impl<F: FnMut(f32, &str) -> ControlFlow<()>> ProgressSink for F {
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()> {
        self(fraction, message)
    }
}

/// Where an extension puts whatever it streams.
pub trait EventSink {
    /// Takes one event. `Break` asks to stop.
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()>;
}

/// A flag that asks for work to stop. Cheap to clone and to test: test it per token, per tensor, per stage.
///
/// Clones share the flag, across threads and across the plugin boundary.
#[derive(Debug, Clone)]
pub struct Cancel(pub(crate) RArc<AtomicBool>);

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self(RArc::new(AtomicBool::new(false)))
    }

    /// Asks for the work to stop. Cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// `Err(cancelled)` once the flag is set: for use with `?`.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(PluginError::cancelled()) } else { Ok(()) }
    }
}
