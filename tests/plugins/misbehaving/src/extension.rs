//! Extensions that take anything.

use pajamas_plugin_api::{Cancel, EventSink, Extension, NamedTensor, Result, TensorSink};

/// Answers whatever it is asked.
pub struct Obliging;

impl Extension for Obliging {
    fn call(
        &self,
        _input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        Ok(b"{}".to_vec())
    }
}

/// Trusts its input.
pub struct Broken;

impl Extension for Broken {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let call: serde_json::Value = serde_json::from_slice(input).expect("told to panic in call");
        Ok(call.to_string().into_bytes())
    }
}
