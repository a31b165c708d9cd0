//! Extensions of plugins whose calls and answers are JSON.

use std::ops::ControlFlow;

use pajamas_plugin_api::{
    Cancel, EventSink, Extension, OutputSpec, PluginError, Result as PluginResult, TensorSink, TensorViewMut,
};
use serde_json::Value;

use super::{ActiveQuantizer, Plugins};
use crate::error::{Error, Result};

impl Plugins {
    /// An extension of the first of the quantizers that offer it, and of which `suits` says so.
    pub(crate) fn extension_of_quantizer(
        &self,
        name: &str,
        suits: impl Fn(&ActiveQuantizer) -> bool,
    ) -> Option<Box<dyn Extension>> {
        self.quantizers().iter().filter(|q| suits(q)).find_map(|q| q.quantizer.extension(name))
    }
}

/// Calls an extension. `progress` is told how far it is (0 to 1) and a few words, by extensions that say so.
///
/// # Errors
/// Those of the extension; `cancelled`; `plugin-protocol` when the answer is no JSON.
pub(crate) fn call(
    extension: &dyn Extension,
    call: &Value,
    progress: &mut dyn FnMut(f32, &str) -> ControlFlow<()>,
    cancel: &Cancel,
) -> Result<Value> {
    let input = call.to_string();
    let answer = extension.call(input.as_bytes(), &[], &mut Progress(progress), &mut NoTensors, cancel)?;
    serde_json::from_slice(&answer)
        .map_err(|e| Error::new("plugin-protocol", format!("the answer of an extension: {e}")))
}

/// For [`call`], where nobody asks how far it is.
pub(crate) fn silent(_: f32, _: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Reads events named `progress`: `{"fraction": 0.5, "message": "…"}`. Others are passed over.
struct Progress<'p>(&'p mut dyn FnMut(f32, &str) -> ControlFlow<()>);

impl EventSink for Progress<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        if name != "progress" {
            return ControlFlow::Continue(());
        }
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        let fraction = event["fraction"].as_f64().unwrap_or(0.0) as f32;
        (self.0)(fraction, event["message"].as_str().unwrap_or_default())
    }
}

/// JSON alone has no tensors.
struct NoTensors;

impl TensorSink for NoTensors {
    fn allocate<'s>(&'s mut self, _outputs: &[OutputSpec<'_>]) -> PluginResult<Vec<TensorViewMut<'s>>> {
        Err(PluginError::new("output-unexpected", "this extension has no tensors"))
    }
}
