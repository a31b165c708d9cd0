//! LoRA adapters: what llama.cpp does not refuse but asserts, and what it refuses without saying where.

use std::collections::HashMap;

use super::header::{Header, TensorInfo};
use super::value::Value;
use super::{Error, TensorType};

/// Types of adapters' tensors: those that the converter writes.
const TYPES: [TensorType; 4] = [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0];

impl Header {
    /// Checks that the file is a LoRA adapter for a model, whose headers these are.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the entry or the tensor.
    pub fn check_adapter(&self, model: &[Self]) -> Result<(), Error> {
        for (key, wanted) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            if self.value(key).and_then(Value::as_text) != Some(wanted) {
                return invalid(format!("no LoRA adapter: the metadata entry `{key}` is not \"{wanted}\""));
            }
        }
        if !matches!(self.value("adapter.lora.alpha"), None | Some(Value::F32(_))) {
            return invalid("the metadata entry `adapter.lora.alpha` is not an f32".into());
        }
        if self.value("adapter.alora.invocation_tokens").is_some() {
            return invalid("an adapter that a text switches on (aLoRA), which is not supported".into());
        }
        let architecture = model.first().and_then(Self::architecture);
        if self.architecture().is_none() || self.architecture() != architecture {
            let name = |name: Option<&str>| name.map_or_else(|| "none".to_owned(), |n| format!("`{n}`"));
            return invalid(format!(
                "an adapter for models of the architecture {}, not {}",
                name(self.architecture()),
                name(architecture)
            ));
        }
        let weights: HashMap<&str, &TensorInfo> =
            model.iter().flat_map(|h| &h.tensors).map(|t| (t.name.as_str(), t)).collect();
        let own: HashMap<&str, &TensorInfo> = self.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        for tensor in &self.tensors {
            check_pair(tensor, &own, &weights)?;
        }
        Ok(())
    }
}

/// Checks a tensor against its other half and the weight that the two change.
fn check_pair(
    tensor: &TensorInfo,
    own: &HashMap<&str, &TensorInfo>,
    weights: &HashMap<&str, &TensorInfo>,
) -> Result<(), Error> {
    let name = tensor.name.as_str();
    let Some(base) = name.strip_suffix(".lora_a").or_else(|| name.strip_suffix(".lora_b")) else {
        // llama.cpp ignores changes of norms.
        return match name.ends_with("_norm.weight") {
            true => Ok(()),
            false => invalid(format!("the tensor `{name}` is not part of a LoRA adapter")),
        };
    };
    if !TYPES.contains(&tensor.tensor_type) {
        return invalid(format!("the tensor `{name}` is of type {}", tensor.tensor_type));
    }
    let half = |suffix: &str| own.get(format!("{base}.{suffix}").as_str()).copied();
    let (Some(a), Some(b)) = (half("lora_a"), half("lora_b")) else {
        return invalid(format!("the tensor `{name}` is without its other half"));
    };
    let Some(weight) = weights.get(base) else {
        return invalid(format!("the model has no tensor `{base}`"));
    };
    let size = |tensor: &TensorInfo, index: usize| tensor.dimensions.get(index).copied().unwrap_or(1);
    let fits = match base.ends_with("token_embd.weight") {
        // Its rows are looked up instead of multiplied.
        true => size(weight, 0) == size(b, 1) && size(weight, 1) == size(a, 1) && size(a, 0) == size(b, 0),
        false => size(weight, 0) == size(a, 0) && size(weight, 1) == size(b, 1) && size(a, 1) == size(b, 0),
    };
    let deep = (2..4).all(|i| size(a, i) == size(weight, i) && size(b, i) == size(weight, i));
    if !fits || !deep {
        return invalid(format!("the tensors of `{base}` do not have the shape that the model's has"));
    }
    Ok(())
}

fn invalid(what: String) -> Result<(), Error> {
    Err(Error::Invalid { what, at: 0 })
}
