//! Growth by name: capabilities that appeared after this version of the traits.

use crate::Result;
use crate::sink::{Cancel, EventSink, TensorSink};
use crate::tensor::NamedTensor;

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
