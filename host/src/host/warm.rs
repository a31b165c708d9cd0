//! A loaded model computes something small, before anybody waits for it.

use std::ops::ControlFlow;
use std::sync::Arc;

use pajamas_plugin_api::{
    Cancel, Dim, EmbedRequest, GenerateRequest, InferRequest, NamedTensor, Prompt, Session, Signature,
    TensorSpec, TokenEvent, TokenSink, byte_len, capability,
};

use super::Host;
use super::setup::Setup;
use crate::error::Result;
use crate::models::Spec;
use crate::pipeline::Outputs;
use crate::value::Tensor;

/// A text that every model has tokens for.
const WORDS: &str = "a";
/// The most bytes of one input: larger ones are no small request.
const MOST_INPUT: usize = 64 << 20;

impl Host {
    /// Has a model of the configuration compute something small: the first time, kernels are chosen and memory is touched.
    ///
    /// # Errors
    /// What loading and the backend may refuse.
    pub(super) fn warm(&self, id: &str, cancel: &Cancel) -> Result<()> {
        let find = |setup: &Setup| Spec::of_model(super::configured(&setup.config, id)?).map(Arc::new);
        let lease = self.lease_of(&find, cancel)?;
        let most = self.config().stages.limits.output.get();
        let warmed = compute(&*lease.session, &lease.signature, most, cancel)?;
        if !warmed {
            tracing::info!(model = id, "not warmed: the sizes of its inputs are those of requests");
        }
        Ok(())
    }
}

/// Says whether there was something to compute.
fn compute(session: &dyn Session, signature: &Signature, most: u64, cancel: &Cancel) -> Result<bool> {
    let can = |name: &str| signature.capabilities.iter().any(|capability| capability == name);
    let mut outputs = Outputs::new(most);
    if can(capability::GENERATE) {
        let request = GenerateRequest { max_tokens: Some(1), ..GenerateRequest::new(Prompt::text(WORDS)) };
        session.generate(&request, &mut Nobody, cancel)?;
    } else if can(capability::EMBED) && signature.inputs.is_empty() {
        let request = EmbedRequest { inputs: vec![Prompt::text(WORDS)], pooling: None, normalize: false };
        session.embed(&request, &mut outputs, cancel)?;
    } else {
        let Some(inputs) = zeros(signature) else { return Ok(false) };
        let mut named = Vec::with_capacity(inputs.len());
        for (name, tensor) in &inputs {
            named.push(NamedTensor { name, tensor: tensor.view()? });
        }
        session.infer(&InferRequest::default(), &named, &mut outputs, cancel)?;
    }
    Ok(true)
}

/// Inputs of nothing but zeros, one of a batch; `None` where a model leaves their other sizes to its caller, or they are
/// large.
fn zeros(signature: &Signature) -> Option<Vec<(String, Tensor)>> {
    let zeros = |spec: &TensorSpec| {
        let size = |(place, dim): (usize, &Dim)| match dim {
            Dim::Fixed(size) => Some(*size),
            Dim::Dynamic(_) => (place == 0).then_some(1),
        };
        let shape: Vec<u64> = spec.shape.iter().enumerate().map(size).collect::<Option<_>>()?;
        let bytes = byte_len(spec.dtype, &shape).ok()?;
        let tensor = (bytes <= MOST_INPUT).then(|| Tensor::zeroed(spec.dtype, shape).ok())??;
        Some((spec.name.clone(), tensor))
    };
    signature.inputs.iter().map(zeros).collect()
}

/// Who waits for the token that is generated.
struct Nobody;

impl TokenSink for Nobody {
    fn token(&mut self, _: TokenEvent<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::DType;

    use super::*;

    fn signature(shape: &[Dim]) -> Signature {
        let input = TensorSpec { name: "x".into(), dtype: DType::F32, shape: shape.to_vec() };
        Signature { inputs: vec![input], ..Signature::default() }
    }

    #[test]
    fn only_inputs_of_known_and_small_size_are_made_up() {
        let open = || Dim::Dynamic("n".into());
        let made = zeros(&signature(&[open(), Dim::Fixed(3)])).unwrap();
        assert_eq!((made[0].0.as_str(), made[0].1.shape()), ("x", &[1, 3][..]));
        assert!(zeros(&signature(&[Dim::Fixed(1), open()])).is_none());
        assert!(zeros(&signature(&[Dim::Fixed(1 << 40)])).is_none());
        assert!(zeros(&signature(&[Dim::Fixed(u64::MAX), Dim::Fixed(u64::MAX)])).is_none());
    }
}
