//! Texts of several lengths as tensors.

use pajamas_stage::{Error, Result, Tensor, TensorData, Values};
use serde::Deserialize;
use tokenizers::Encoding;

use crate::vocabulary::Padding;

/// The element type of the tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// 64 bits, as most exports want.
    I64,
    /// 32 bits.
    I32,
}

/// The most elements of a tensor.
const MAX_ELEMENTS: usize = 16 << 20;

/// The tokens of several texts.
#[derive(Debug, Default)]
pub struct Batch(Vec<Encoding>);

impl Batch {
    /// Adds a text.
    pub fn push(&mut self, text: Encoding) {
        self.0.push(text);
    }

    /// The tokens of the only text, if there is only one.
    pub fn only(&self) -> Option<Vec<u32>> {
        match self.0.as_slice() {
            [text] => Some(text.get_ids().to_vec()),
            _ => None,
        }
    }

    /// `input_ids`, `attention_mask` and `token_type_ids`, all [texts, longest].
    ///
    /// # Errors
    /// `invalid-input` for more tokens than fit into any model.
    pub fn tensors(self, padding: Padding, width: Width) -> Result<Values> {
        let longest = self.0.iter().map(|text| text.get_ids().len()).max().unwrap_or(0);
        let longest = longest.max(padding.at_least).next_multiple_of(padding.multiple_of);
        let rows = self.0.len();
        if rows.saturating_mul(longest) > MAX_ELEMENTS {
            return Err(Error::invalid_input(format!("{rows} texts of up to {longest} tokens are too many"))
                .with_help("send fewer or shorter texts, or set `max_length`"));
        }
        let column = |of: fn(&Encoding) -> &[u32], fill: u32| {
            let mut elements = Vec::with_capacity(rows * longest);
            for text in &self.0 {
                let (row, missing) = (of(text), longest - of(text).len());
                if padding.left {
                    elements.resize(elements.len() + missing, fill);
                }
                elements.extend_from_slice(row);
                if !padding.left {
                    elements.resize(elements.len() + missing, fill);
                }
            }
            let data = match width {
                Width::I64 => TensorData::I64(elements.into_iter().map(i64::from).collect()),
                Width::I32 => TensorData::I32(elements.into_iter().map(|id| id as i32).collect()),
            };
            Tensor::new(vec![rows as u64, longest as u64], data)
        };
        Ok(Values::new()
            .with("input_ids", column(Encoding::get_ids, padding.id)?)
            .with("attention_mask", column(Encoding::get_attention_mask, 0)?)
            .with("token_type_ids", column(Encoding::get_type_ids, padding.type_id)?))
    }
}
