//! Memory of the host that a session writes its outputs into.

use pajamas_plugin_api::{
    DType, OutputSpec, PluginError, Result, SharedTensor, TensorSink, TensorViewMut, byte_len, codes,
};

use crate::value::Tensor;

/// Outputs by name, bounded in bytes.
#[derive(Debug)]
pub struct Outputs {
    limit: u64,
    tensors: Vec<(String, Tensor)>,
}

impl Outputs {
    /// No outputs yet, and at most `limit` bytes of them.
    pub fn new(limit: u64) -> Self {
        Self { limit, tensors: Vec::new() }
    }

    /// Takes one output out.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let at = self.tensors.iter().position(|(n, _)| n == name)?;
        Some(self.tensors.swap_remove(at).1)
    }

    /// All outputs in the order in which they were first written.
    pub fn into_tensors(self) -> Vec<(String, Tensor)> {
        self.tensors
    }

    /// Keeps an output, in the place of an earlier one of its name.
    fn keep(&mut self, name: &str, tensor: Tensor) {
        match self.tensors.iter_mut().find(|(kept, _)| kept == name) {
            Some(slot) => slot.1 = tensor,
            None => self.tensors.push((name.to_owned(), tensor)),
        }
    }

    #[cfg(test)]
    fn held(&self) -> u64 {
        self.tensors.iter().map(|(_, t)| t.bytes().len() as u64).sum()
    }

    fn check(&self, outputs: &[OutputSpec<'_>]) -> Result<()> {
        let kept: u64 = self
            .tensors
            .iter()
            .filter(|(name, _)| outputs.iter().all(|o| o.name != name))
            .map(|(_, t)| t.bytes().len() as u64)
            .sum();
        let mut total = kept;
        for output in outputs {
            total = total.saturating_add(byte_len(output.dtype, output.shape)? as u64);
        }
        if total > self.limit {
            return Err(PluginError::new(
                codes::OUTPUT_TOO_LARGE,
                format!("the model wants to write {total} bytes of output; {} are allowed", self.limit),
            )
            .help("raise `stages.limits.output`, or ask for fewer outputs"));
        }
        Ok(())
    }
}

impl TensorSink for Outputs {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        self.check(outputs)?;
        let duplicate = outputs
            .iter()
            .enumerate()
            .find(|(i, o)| outputs[..*i].iter().any(|earlier| earlier.name == o.name));
        if let Some((_, output)) = duplicate {
            return Err(PluginError::new(
                codes::PROTOCOL,
                format!("output `{}` was asked for twice", output.name),
            ));
        }
        for output in outputs {
            self.keep(output.name, Tensor::zeroed(output.dtype, output.shape.to_vec())?);
        }
        let mut views: Vec<Option<TensorViewMut<'s>>> = outputs.iter().map(|_| None).collect();
        for (name, tensor) in &mut self.tensors {
            if let Some(at) = outputs.iter().position(|o| o.name == name) {
                let (dtype, shape): (DType, Vec<u64>) = (tensor.dtype(), tensor.shape().to_vec());
                views[at] = Some(TensorViewMut::new(dtype, &shape, tensor.bytes_mut())?);
            }
        }
        Ok(views.into_iter().flatten().collect())
    }

    fn share(&mut self, name: &str, tensor: SharedTensor) -> Result<()> {
        self.check(&[OutputSpec { name, dtype: tensor.dtype(), shape: tensor.shape() }])?;
        self.keep(name, Tensor::lent(tensor)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pajamas_plugin_api::SharedMemory;

    use super::*;

    fn spec<'a>(name: &'a str, shape: &'a [u64]) -> OutputSpec<'a> {
        OutputSpec { name, dtype: DType::F32, shape }
    }

    #[test]
    fn several_outputs_are_writable_at_once_and_a_second_write_replaces() {
        let mut outputs = Outputs::new(1024);
        let mut views = outputs.allocate(&[spec("a", &[2]), spec("b", &[1])]).unwrap();
        views[1].bytes().copy_from_slice(&2f32.to_le_bytes());
        views[0].bytes()[..4].copy_from_slice(&1f32.to_le_bytes());
        assert_eq!(outputs.take("a").unwrap().as_f32().unwrap(), [1.0, 0.0]);
        outputs.allocate(&[spec("b", &[3])]).unwrap();
        assert_eq!(outputs.held(), 12);
    }

    #[test]
    fn what_is_lent_is_kept_as_it_is_within_the_same_limit() {
        let memory: SharedMemory = Arc::new(vec![0u8; 2048]);
        let lent = |bytes| SharedTensor::new(DType::U8, vec![bytes], Arc::clone(&memory), 0).unwrap();
        let mut outputs = Outputs::new(1024);
        assert_eq!(outputs.share("a", lent(1025)).unwrap_err().code, "output-too-large");
        outputs.share("a", lent(1024)).unwrap();
        assert_eq!(outputs.share("b", lent(1)).unwrap_err().code, "output-too-large");
        assert_eq!(outputs.take("a").unwrap().bytes().as_ptr(), (*memory).as_ref().as_ptr());
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[test]
    fn too_much_is_refused_before_it_is_allocated() {
        let mut outputs = Outputs::new(1024);
        let error = outputs.allocate(&[spec("a", &[1 << 40])]).unwrap_err();
        assert_eq!(error.code, "output-too-large");
        assert_eq!(
            outputs.allocate(&[spec("a", &[1]), spec("a", &[1])]).unwrap_err().code,
            "plugin-protocol"
        );
    }
}
