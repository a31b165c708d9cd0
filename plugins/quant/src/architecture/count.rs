//! Parameters, counted from the tensors and not believed from a name.

use serde::Serialize;

use super::Architecture;
use crate::source::{Dtype, Source};

/// How many parameters a model has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// All of them; embeddings that serve as output too count once.
    pub total: u64,
    /// Those that one token passes through.
    pub active: u64,
    /// All but those of embeddings and of the output.
    pub non_embedding: u64,
    /// Those of matrices, which a precision applies to.
    pub matrices: u64,
}

impl Parameters {
    /// Counts a model's parameters, of which `active` of `experts` experts are used for each token.
    pub(super) fn of(source: &Source, experts: u64, active: u64) -> Self {
        let mut counted = Self::default();
        let mut of_experts = 0;
        for view in source.weights.iter() {
            let name = view.info.name.as_str();
            let elements = match name {
                // Two four-bit numbers to a byte; one scale to a block of 32 is no parameter.
                _ if name.ends_with("_blocks") && view.info.dtype == Dtype::U8 => view.info.elements() * 2,
                _ if name.ends_with("_scales") && view.info.dtype == Dtype::U8 => continue,
                _ if is_buffer(name) => continue,
                _ => view.info.elements(),
            };
            counted.total += elements;
            if !is_embedding(name) {
                counted.non_embedding += elements;
            }
            if view.info.shape.len() > 1 {
                counted.matrices += elements;
            }
            if name.contains(".experts.") {
                of_experts += elements;
            }
        }
        counted.active = match experts {
            0 => counted.total,
            _ => counted.total - of_experts + of_experts / experts * active,
        };
        counted
    }
}

/// What is computed and not trained.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with("embeddings.position_ids")
}

fn is_embedding(name: &str) -> bool {
    ["embed_tokens.weight", "lm_head.weight"].iter().any(|end| name.ends_with(end))
        || name.contains("embeddings.word_embeddings")
        || name.contains("embeddings.position_embeddings")
        || name.contains("embeddings.token_type_embeddings")
}

/// Bytes of a model in a precision of so many bits for each weight of its matrices, the rest in 32 bits.
pub(super) fn bytes(parameters: &Parameters, bits: f64) -> u64 {
    let rest = parameters.total - parameters.matrices;
    (parameters.matrices as f64 * bits / 8.0) as u64 + rest * 4
}

/// Whether a family's output is its embeddings, when neither file nor configuration says so.
pub(super) fn tied(source: &Source, architecture: Architecture) -> bool {
    let has_output = source.weights.iter().any(|t| t.info.name.ends_with("lm_head.weight"));
    match architecture {
        Architecture::Bert => true,
        _ => source.config.flag("tie_word_embeddings").unwrap_or(!has_output) || !has_output,
    }
}
