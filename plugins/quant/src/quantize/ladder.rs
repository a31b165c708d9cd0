//! Which types each tensor of a model could have: what a search for better ones chooses from.

use pajamas_llama_cpp::gguf::TensorType;

use super::category::Category;
use super::original::{Original, Tensor};
use super::precision::FileType;
use super::{Options, requires_importance};

/// Types in blocks of 256 numbers, from few bits to many, and the plain one above them. Blocks of 32 are no better for
/// their bits where rows divide into these.
const LARGE: [TensorType; 12] = [
    TensorType::IQ2_XXS,
    TensorType::IQ2_XS,
    TensorType::IQ2_S,
    TensorType::Q2_K,
    TensorType::IQ3_XXS,
    TensorType::IQ3_S,
    TensorType::Q3_K,
    TensorType::IQ4_XS,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::Q8_0,
];
/// For other rows.
const SMALL: [TensorType; 6] = [
    TensorType::IQ4_NL,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
];
/// Types of fewer than so many times the bits that there are on average are not looked at, or of more than the second.
const RANGE: (f64, f64) = (0.5, 2.1);

/// A tensor whose type is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ladder {
    /// Its number among the original's tensors.
    pub tensor: usize,
    /// The types that it could have, from few bits to many.
    pub types: Vec<TensorType>,
}

/// The tensors whose types are free, and what each could be. `preset` is what a precision gives every tensor; `average`
/// the bits that a number may take, around which types are looked at, or all of them are.
pub(crate) fn ladders(
    original: &dyn Original,
    preset: &[TensorType],
    file_type: FileType,
    options: &Options<'_>,
    average: Option<f64>,
) -> Vec<Ladder> {
    let tensors = original.tensors();
    let tied = tensors.iter().all(|tensor| Category::of(&tensor.name) != Category::Output);
    let wishes = &options.wishes;
    let asked = |name: &str| {
        let category = Category::of(name);
        let embeddings = category == Category::Embeddings;
        let output = category == Category::Output || (tied && embeddings);
        (output && wishes.output.is_some())
            || (embeddings && wishes.embeddings.is_some())
            || wishes.overrides.iter().any(|(pattern, _)| pattern.is_match(name))
    };
    let known = |tensor: &Tensor| {
        options.importance.is_some_and(|importance| {
            importance.never_reached(&tensor.name).is_empty()
                && importance.of(&tensor.name, &tensor.dimensions).is_ok_and(|means| means.is_some())
        })
    };
    let free = tensors.iter().zip(preset).enumerate().filter(|(_, (tensor, preset))| {
        preset.is_quantized() && **preset != tensor.tensor_type && !asked(&tensor.name)
    });
    let ladder = |(at, (tensor, preset)): (usize, (&Tensor, &TensorType))| {
        let all: &[TensorType] = if tensor.columns().is_multiple_of(256) { &LARGE } else { &SMALL };
        let near = |to: TensorType| {
            let bits = to.block_bytes() as f64 * 8.0 / to.block_len() as f64;
            average.is_none_or(|average| (RANGE.0 * average..=RANGE.1 * average).contains(&bits))
        };
        let possible = |to: &TensorType| {
            let needs = requires_importance(&tensor.name, *to, file_type) || to.requires_importance();
            to.tensor_bytes(&tensor.dimensions).is_some() && (!needs || known(tensor))
        };
        let mut types: Vec<TensorType> =
            all.iter().copied().filter(|to| near(*to)).chain([*preset]).filter(possible).collect();
        types.sort_by_key(|to| to.tensor_bytes(&tensor.dimensions));
        types.dedup();
        Ladder { tensor: at, types }
    };
    free.map(ladder).collect()
}
