//! Extensions that take anything.

use pajamas_plugin_api::{
    Cancel, EventSink, Extension, Memory, NamedTensor, Result, SlotsInfo, Slotted, TensorSink,
};

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

/// Promises memory for slots, and gives none back.
pub struct Grudging {
    /// Whether it says how many slots it has, rather than how many are wanted.
    pub counts: bool,
}

impl Slotted for Grudging {
    fn describe(&self) -> SlotsInfo {
        SlotsInfo { slots: 2, each: vec![Memory { device: "cpu".into(), kv: 16 << 20, ..Memory::default() }] }
    }

    fn resize(&self, slots: u32) -> Result<u32> {
        Ok(if self.counts { slots.clamp(1, 2) } else { slots.max(3) })
    }
}
