//! What there is to choose, in bytes.

use pajamas_llama_cpp::gguf::{DEFAULT_ALIGNMENT, TensorType};
use pajamas_plugin_api::{PluginError, Result, codes};

use super::{Goal, Solve};
use crate::error::codes as own;
use crate::quantize::{Ladder, Quantization, ladders};

/// What there is to choose.
pub(super) struct Room {
    /// What the file has beside the tensors whose types are free.
    pub constant: u64,
    /// The most that these can have.
    pub most: u64,
    /// Their types that are near enough to the goal.
    pub ladders: Vec<Ladder>,
}

impl Room {
    /// Around what a preset gives to tensors.
    ///
    /// # Errors
    /// `invalid-option` when no tensor's type is free, `target-unreachable` when they cannot be as small as the goal.
    pub fn of(solve: &Solve<'_>, preset: &Quantization<'_>) -> Result<Self> {
        let near =
            |average| ladders(solve.original, preset.chosen(), solve.file_type, solve.options, average);
        let all = near(None);
        if all.is_empty() {
            let what = format!("{} leaves no tensor whose type could be solved for", solve.file_type.name());
            return Err(PluginError::new(codes::INVALID_OPTION, what)
                .help("take a precision of blocks, such as Q4_K_M, with fewer overrides"));
        }
        let tensors = solve.original.tensors();
        let bytes = |at: usize, to: TensorType| padded(to, &tensors[at].dimensions);
        let of_preset: u64 = all.iter().map(|l| bytes(l.tensor, preset.chosen()[l.tensor])).sum();
        let constant = preset.bytes()?.saturating_sub(of_preset);
        let elements: u64 = all.iter().map(|l| tensors[l.tensor].elements()).sum();
        let bits = |bytes: u64| bytes as f64 * 8.0 / elements.max(1) as f64;
        let average = match solve.settings.goal {
            Goal::Preset => Some(bits(of_preset)),
            Goal::Bytes(goal) => Some(bits(goal.saturating_sub(constant))),
            Goal::Divergence(_) => None,
        };
        let ladders = near(average);
        let sum = |of: fn(&[TensorType]) -> Option<&TensorType>| -> u64 {
            ladders.iter().filter_map(|l| of(&l.types).map(|to| bytes(l.tensor, *to))).sum()
        };
        let (least, most) = (sum(|types| types.first()), sum(|types| types.last()));
        match solve.settings.goal {
            Goal::Bytes(goal) if goal < constant + least => {
                let what =
                    format!("a file of {goal} bytes: the smallest of this model has {}", constant + least);
                Err(PluginError::new(own::TARGET_UNREACHABLE, what).help(
                    "allow more with `target_size`, take a precision of fewer bits, or give an importance matrix: it allows types of fewer bits",
                ))
            }
            _ => Ok(Self { constant, most, ladders }),
        }
    }

    /// The types of all tensors, those of the free ones as they were chosen.
    pub fn with(&self, preset: &Quantization<'_>, types: &[TensorType]) -> Vec<TensorType> {
        let mut all = preset.chosen().to_vec();
        self.ladders.iter().zip(types).for_each(|(ladder, to)| all[ladder.tensor] = *to);
        all
    }
}

/// What a tensor takes in a file.
pub(super) fn padded(to: TensorType, dimensions: &[u64]) -> u64 {
    to.tensor_bytes(dimensions).unwrap_or(u64::MAX / 4).next_multiple_of(DEFAULT_ALIGNMENT)
}
