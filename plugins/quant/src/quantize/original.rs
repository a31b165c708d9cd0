//! What is quantized: the tensors of a model and its metadata, wherever they come from.

use std::ops::Range;

use pajamas_llama_cpp::gguf::{TensorType, Value, Writer};
use pajamas_plugin_api::{PluginError, Result, codes};

use super::choose::Build;
use crate::convert::Conversion;

/// A tensor as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in a GGUF file.
    pub name: String,
    /// Its type.
    pub tensor_type: TensorType,
    /// Its dimensions, innermost first.
    pub dimensions: Vec<u64>,
}

impl Tensor {
    /// Elements of a row.
    pub fn columns(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(1)
    }

    /// Rows of one matrix; tensors of three dimensions hold one for each expert.
    pub fn rows_of_matrix(&self) -> u64 {
        self.dimensions.get(1).copied().unwrap_or(1)
    }

    /// Rows of all matrices.
    pub fn rows(&self) -> u64 {
        self.dimensions.iter().skip(1).product()
    }

    /// Elements.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// A model that can be quantized. Reading is possible from several threads at once.
pub trait Original: Sync {
    /// Its metadata, as a file without tensors.
    fn metadata(&self) -> &Writer;

    /// An entry of the metadata.
    fn value(&self, key: &str) -> Option<&Value>;

    /// An entry of the metadata that is a number, or the first of a list of numbers.
    fn number(&self, key: &str) -> Option<u64> {
        first_number(self.value(key)?)
    }

    /// Its family in GGUF's words.
    fn family(&self) -> &str;

    /// Its tensors, in the order of the file made of it: by layer, then by name (`weight_name_comparer`,
    /// llama-model-loader.h).
    fn tensors(&self) -> &[Tensor];

    /// Appends rows of a tensor as floats.
    ///
    /// # Errors
    /// `model-invalid` when they cannot be read.
    fn floats(&self, tensor: usize, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()>;

    /// Gives a tensor's bytes as they are to `out`, some at a time.
    ///
    /// # Errors
    /// Those of `out`; `weight-not-finite` unless allowed.
    fn copy(
        &self,
        tensor: usize,
        allow_non_finite: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()>;
}

/// What the mixtures look at in a model.
pub(super) fn build(original: &dyn Original) -> Result<Build> {
    let family = original.family();
    let number = |key: &str| original.number(&format!("{family}.{key}"));
    let heads = number("attention.head_count").unwrap_or(0);
    let Some(layers) = number("block_count").and_then(|n| i64::try_from(n).ok()).filter(|n| *n > 0) else {
        let what = format!("the model does not say how many layers it has (`{family}.block_count`)");
        return Err(PluginError::new(codes::MODEL_INVALID, what));
    };
    Ok(Build {
        layers,
        heads,
        key_value_heads: number("attention.head_count_kv").unwrap_or(heads),
        experts: number("expert_count").unwrap_or(0),
        family: family.to_owned(),
    })
}

/// Layer by layer, whether it looks no further than a window (llama.cpp's `set_swa_pattern`); nothing where none does.
pub(super) fn windowed(original: &dyn Original, layers: i64) -> Vec<bool> {
    let family = original.family();
    let layers = usize::try_from(layers).unwrap_or(0);
    if let Some(Value::Array(list)) = original.value(&format!("{family}.attention.sliding_window_pattern")) {
        return list.items.iter().take(layers).map(|layer| *layer == Value::Bool(true)).collect();
    }
    let window = original.number(&format!("{family}.attention.sliding_window"));
    // One layer in so many sees everything: the last of each group.
    let group = match family {
        _ if window.unwrap_or(0) == 0 => return Vec::new(),
        "gemma2" | "gpt-oss" => 2,
        "gemma3" => original.number("gemma3.attention.sliding_window_pattern").unwrap_or(6).max(1) as usize,
        _ => return Vec::new(),
    };
    (0..layers).map(|layer| layer % group < group - 1).collect()
}

/// The place of a tensor in the order of files: its layer, then its name.
pub(super) fn place(name: &str) -> (i64, &str) {
    // As C's sscanf("blk.%d.") reads it: the number counts whatever follows.
    let layer = name.strip_prefix("blk.").and_then(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[..digits].parse().ok()
    });
    (layer.unwrap_or(-1), name)
}

/// A Hugging Face folder, through the conversion to 32-bit floats that is planned for it and never written.
pub struct Folder<'a> {
    conversion: &'a Conversion<'a>,
    metadata: Writer,
    tensors: Vec<Tensor>,
    /// Where each tensor stands in the conversion.
    places: Vec<usize>,
}

impl<'a> Folder<'a> {
    /// A planned conversion, which must be one to 32-bit floats.
    pub fn new(conversion: &'a Conversion<'a>) -> Self {
        let all = conversion.tensors();
        let mut places: Vec<usize> = (0..all.len()).collect();
        places.sort_by(|a, b| place(&all[*a].name).cmp(&place(&all[*b].name)));
        let tensors = places.iter().map(|i| all[*i].clone()).collect();
        Self { conversion, metadata: conversion.metadata(), tensors, places }
    }
}

impl Original for Folder<'_> {
    fn metadata(&self) -> &Writer {
        &self.metadata
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.value(key)
    }

    fn family(&self) -> &str {
        self.metadata.value("general.architecture").and_then(Value::as_text).unwrap_or_default()
    }

    fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    fn floats(&self, tensor: usize, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        self.conversion.floats(self.places[tensor], rows, out)
    }

    fn copy(
        &self,
        tensor: usize,
        allow_non_finite: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.conversion.copy(self.places[tensor], allow_non_finite, out)
    }
}

/// A number, or the first of a list of numbers: some models have one for each layer.
fn first_number(value: &Value) -> Option<u64> {
    match value {
        Value::Array(list) => list.items.first().and_then(Value::as_u64),
        value => value.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_come_in_order_of_their_numbers() {
        let mut names = ["blk.10.a", "blk.9.b", "output.weight", "blk.9.a", "blk.2.z", "a"];
        names.sort_by(|a, b| place(a).cmp(&place(b)));
        assert_eq!(names, ["a", "output.weight", "blk.2.z", "blk.9.a", "blk.9.b", "blk.10.a"]);
    }
}
