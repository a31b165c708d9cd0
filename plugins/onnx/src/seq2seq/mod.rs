//! Models of two parts, of which the second writes: an encoder that runs once and a decoder that runs for every token.
//!
//! The loop over tokens lives here, so that the cache of keys and values never leaves the engine. What is Whisper's
//! about it (which tokens may follow which) is in [`whisper`]; the search knows logits and ends.

mod decoder;
mod engine;
mod files;
mod search;
mod transcribe;
mod whisper;

use std::sync::Arc;

use pajamas_plugin_api::{
    Cancel, Extension, InferRequest, Memory, NamedTensor, Result, Session, Signature, TensorSink,
};

use decoder::Decoder;
pub(crate) use engine::{Engine, Feed};
pub(crate) use files::decoders;
use transcribe::Transcribe;

/// An encoder and its decoder, loaded.
struct Parts<E> {
    encoder: E,
    decoder: Decoder<E>,
}

/// A session of both parts: tensors go through the encoder, and the extension `pajamas.transcribe/1` through both.
pub(crate) struct Seq2Seq<E>(Arc<Parts<E>>);

impl<E: Engine> Seq2Seq<E> {
    /// Puts both parts together. The decoder is one graph with two branches, or two graphs.
    ///
    /// # Errors
    /// `model-unsupported` for a decoder that cannot keep a cache.
    pub(crate) fn new(encoder: E, decoder: Vec<E>) -> Result<Self> {
        Ok(Self(Arc::new(Parts { encoder, decoder: Decoder::new(decoder)? })))
    }
}

impl<E: Engine> Session for Seq2Seq<E> {
    /// The encoder's.
    fn signature(&self) -> Signature {
        self.0.encoder.signature()
    }

    /// The sum over all graphs: each has its own weights.
    fn usage(&self) -> Vec<Memory> {
        let graphs = std::iter::once(&self.0.encoder).chain(self.0.decoder.engines());
        sum(graphs.flat_map(|graph| graph.usage()))
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        self.0.encoder.infer(request, inputs, outputs, cancel)
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        (name == transcribe::NAME).then(|| -> Box<dyn Extension> { Box::new(Transcribe::new(&self.0)) })
    }
}

/// Memory by device.
pub(crate) fn sum(parts: impl IntoIterator<Item = Memory>) -> Vec<Memory> {
    let mut sums: Vec<Memory> = Vec::new();
    for part in parts {
        match sums.iter_mut().find(|sum| sum.device == part.device) {
            Some(sum) => {
                sum.weights += part.weights;
                sum.kv += part.kv;
                sum.scratch += part.scratch;
            }
            None => sums.push(part),
        }
    }
    sums
}
