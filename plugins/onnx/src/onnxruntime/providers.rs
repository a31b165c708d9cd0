//! Execution providers: the accelerators ONNX Runtime can hand a graph to.

use ort::ep::{self, ExecutionProviderDispatch};
use pajamas_plugin_api::{PluginError, Result, codes};

/// (name in our options, ONNX Runtime's name).
const PROVIDERS: &[(&str, &str)] = &[
    ("cuda", "CUDAExecutionProvider"),
    ("tensorrt", "TensorrtExecutionProvider"),
    ("coreml", "CoreMLExecutionProvider"),
    ("directml", "DmlExecutionProvider"),
    ("webgpu", "WebGpuExecutionProvider"),
];

/// Names that the option `execution_providers` may hold.
pub(super) fn names() -> Vec<&'static str> {
    PROVIDERS.iter().map(|(name, _)| *name).collect()
}

/// Which of them a runtime was built with.
pub(super) fn compiled_in(runtime: &[String]) -> Vec<&'static str> {
    PROVIDERS
        .iter()
        .filter(|(_, theirs)| runtime.iter().any(|r| r == theirs))
        .map(|(ours, _)| *ours)
        .collect()
}

/// The providers of a session, in order; each fails loudly when it cannot start. `gpu` is the index of the device
/// the session was placed on.
///
/// # Errors
/// `invalid-option` for an unknown name.
pub(super) fn dispatch(names: &[String], gpu: i32) -> Result<Vec<ExecutionProviderDispatch>> {
    names
        .iter()
        .map(|name| {
            let provider = match name.as_str() {
                "cuda" => ep::CUDA::default().with_device_id(gpu).build(),
                "tensorrt" => ep::TensorRT::default().with_device_id(gpu).build(),
                "coreml" => ep::CoreML::default().build(),
                "directml" => ep::DirectML::default().with_device_id(gpu).build(),
                "webgpu" => ep::WebGPU::default().build(),
                _ => {
                    let known = self::names().join(", ");
                    return Err(PluginError::new(
                        codes::INVALID_OPTION,
                        format!("execution provider `{name}` is unknown"),
                    )
                    .help(format!("the execution providers are {known}")));
                }
            };
            Ok(provider.error_on_failure())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_provider() {
        let all: Vec<String> = names().into_iter().map(str::to_owned).collect();
        let dispatched = dispatch(&all, 0).unwrap();
        let runtime: Vec<String> = dispatched.iter().map(|ep| ep.name().to_owned()).collect();
        assert_eq!(compiled_in(&runtime), names());
        let error = dispatch(&["cpu2".to_owned()], 0).err().unwrap();
        assert_eq!(error.code, codes::INVALID_OPTION);
    }
}
