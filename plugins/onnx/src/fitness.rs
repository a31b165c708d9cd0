//! The extension `pajamas.fitness/1`: how well this engine runs one model, where that differs from what the probe says
//! of the machine.

use pajamas_plugin_api::{
    Cancel, EventSink, Extension, LoadRequest, NamedTensor, PluginError, Result, TensorSink, codes,
};
use serde_json::json;

/// The extension's name.
pub(crate) const NAME: &str = "pajamas.fitness/1";

/// A score and the words for it; `None` where the probe's is right.
pub(crate) type Fit = Option<(u32, String)>;

/// The extension of an engine that judges models by `judge`.
pub(crate) struct Fitness(pub(crate) fn(&LoadRequest) -> Result<Fit>);

impl Extension for Fitness {
    fn call(
        &self,
        input: &[u8],
        _tensors: &[NamedTensor<'_>],
        _events: &mut dyn EventSink,
        _outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<Vec<u8>> {
        let request: LoadRequest = serde_json::from_slice(input)
            .map_err(|e| PluginError::new(codes::INVALID_INPUT, format!("{NAME}: {e}")))?;
        let fit = (self.0)(&request)?;
        let fit = fit.map(|(score, reason)| json!({ "score": score, "reason": reason }));
        Ok(json!(fit).to_string().into_bytes())
    }
}
