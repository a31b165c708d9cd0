//! Sinks of the kit: they keep what a session writes, bounded, and note what it should not do.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::{
    Cancel, DType, InferRequest, OutputSpec, PluginError, Result, Signature, TensorSink, TensorViewMut,
    TokenEvent, TokenSink, byte_len, codes,
};

/// One output in memory that is aligned for every element type.
struct Kept {
    dtype: DType,
    shape: Vec<u64>,
    words: Vec<u64>,
    bytes: usize,
}

impl Kept {
    fn bytes(&self) -> &[u8] {
        &crate::as_bytes(&self.words)[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `words` holds at least `bytes` initialised bytes, of which every pattern is valid, and is
        // borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.bytes) }
    }
}

/// Keeps tensors, up to a number of bytes.
pub(super) struct Tensors {
    limit: u64,
    kept: BTreeMap<String, Kept>,
}

impl Tensors {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, kept: BTreeMap::new() }
    }

    /// Whether what was written is what the signature promises.
    pub(super) fn check(&self, signature: &Signature, request: &InferRequest) -> Result<()> {
        let written = self.kept.iter().map(|(name, k)| (name.as_str(), k.dtype, k.shape.as_slice()));
        signature.check_outputs(request, written)
    }

    /// All bytes written.
    pub(super) fn total(&self) -> u64 {
        self.kept.values().map(|k| k.bytes as u64).sum()
    }

    /// An output of f32, with its shape.
    pub(super) fn floats(&self, name: &str) -> Option<(&[u64], Vec<f32>)> {
        let kept = self.kept.get(name).filter(|k| k.dtype == DType::F32)?;
        let number = |chunk: &[u8]| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        Some((&kept.shape, kept.bytes().chunks_exact(4).map(number).collect()))
    }
}

impl TensorSink for Tensors {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        for (index, output) in outputs.iter().enumerate() {
            if outputs[..index].iter().any(|earlier| earlier.name == output.name) {
                let message = format!("output `{}` was asked for twice at once", output.name);
                return Err(PluginError::new(codes::PROTOCOL, message));
            }
            self.kept.remove(output.name);
        }
        let mut total = self.total();
        for output in outputs {
            total = total.saturating_add(byte_len(output.dtype, output.shape)? as u64);
        }
        if total > self.limit {
            let message = format!("{total} bytes of output; {} are allowed", self.limit);
            return Err(PluginError::new(codes::OUTPUT_TOO_LARGE, message));
        }
        for output in outputs {
            let bytes = byte_len(output.dtype, output.shape)?;
            let words = vec![0; bytes.div_ceil(8)];
            let kept = Kept { dtype: output.dtype, shape: output.shape.to_vec(), words, bytes };
            self.kept.insert(output.name.to_owned(), kept);
        }
        let mut views: Vec<Option<TensorViewMut<'s>>> = outputs.iter().map(|_| None).collect();
        for (name, kept) in &mut self.kept {
            if let Some(at) = outputs.iter().position(|o| o.name == name) {
                let (dtype, shape) = (kept.dtype, kept.shape.clone());
                views[at] = Some(TensorViewMut::new(dtype, &shape, kept.bytes_mut())?);
            }
        }
        Ok(views.into_iter().flatten().collect())
    }
}

/// Keeps tokens; can break or cancel at the first.
#[derive(Default)]
pub(super) struct Tokens {
    /// The text so far.
    pub(super) text: String,
    /// Tokens so far.
    pub(super) count: u32,
    /// Answers `Break` from the first token on.
    pub(super) breaks: bool,
    /// Set at the first token.
    pub(super) cancels: Option<Cancel>,
}

impl TokenSink for Tokens {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        self.text.push_str(event.text);
        self.count += 1;
        if let Some(cancel) = &self.cancels {
            cancel.cancel();
        }
        if self.breaks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Requires reports of progress that stay between their ends and never go back.
pub(super) fn orderly(reports: &[f32]) -> std::result::Result<(), String> {
    if let Some(wrong) = reports.iter().find(|f| !(0.0..=1.0).contains(*f)) {
        return Err(format!("progress of {wrong} is outside 0..=1"));
    }
    match reports.windows(2).find(|w| w[1] < w[0]) {
        Some(back) => Err(format!("progress goes back from {} to {}", back[0], back[1])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorView;

    #[test]
    fn keeps_what_is_written_and_refuses_too_much() {
        let mut sink = Tensors::new(16);
        let values = [1.0f32, 2.0];
        sink.write("y", TensorView::new(DType::F32, &[2], crate::as_bytes(&values)).unwrap()).unwrap();
        assert_eq!(sink.floats("y"), Some((&[2u64][..], values.to_vec())));
        assert_eq!(sink.total(), 8);
        let spec = |shape| OutputSpec { name: "z", dtype: DType::F64, shape };
        assert_eq!(sink.allocate(&[spec(&[2])]).unwrap_err().code, "output-too-large");
        assert_eq!(sink.allocate(&[spec(&[1]), spec(&[1])]).unwrap_err().code, "plugin-protocol");
        let mut views = sink.allocate(&[spec(&[1]), OutputSpec { name: "y", ..spec(&[0]) }]).unwrap();
        assert_eq!((views[0].bytes().len(), views[1].bytes().len()), (8, 0));
    }
}
