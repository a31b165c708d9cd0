//! Tensors that stay on this side between two runs of one loop.

use std::ops::Range;

use half::f16;
use pajamas_plugin_api::{DType, PluginError, Result, as_bytes};

use super::ENGINE;
use super::value::Value;
use crate::error::internal;
use crate::seq2seq::Feed;

/// A tensor that a run left.
pub(crate) enum Kept {
    /// Where the runtime put it.
    Made(Value<'static>),
    /// Rows that were put together here.
    Copied { dtype: DType, shape: Vec<u64>, words: Vec<u64>, length: usize },
}

/// An input of a run: a value of the runtime, or memory to make one over.
pub(super) enum View<'a> {
    Value(&'a Value<'static>),
    Memory(DType, &'a [u64], &'a [u8]),
}

impl Kept {
    /// What a run is fed.
    pub(super) fn view<'a>(feed: &'a Feed<'_, Self>) -> Result<View<'a>> {
        Ok(match feed {
            Feed::Host(tensor) => View::Memory(tensor.dtype(), tensor.shape(), tensor.bytes()),
            Feed::Kept(Self::Made(value)) | Feed::Given(Self::Made(value)) => View::Value(value),
            Feed::Kept(Self::Copied { dtype, shape, words, length })
            | Feed::Given(Self::Copied { dtype, shape, words, length }) => {
                View::Memory(*dtype, shape, part(as_bytes(words), 0..*length)?)
            }
        })
    }

    /// Type, shape and bytes.
    pub(super) fn contents(&self) -> Result<(DType, Vec<u64>, &[u8])> {
        match self {
            Self::Made(value) => value.contents().map_err(|e| internal(ENGINE, e)),
            Self::Copied { dtype, shape, words, length } => {
                Ok((*dtype, shape.clone(), part(as_bytes(words), 0..*length)?))
            }
        }
    }

    /// Some elements as 32-bit floats.
    pub(super) fn floats(&self, elements: Range<usize>) -> Result<Vec<f32>> {
        let (dtype, _, bytes) = self.contents()?;
        let bytes = part(bytes, elements.start * dtype.size()..elements.end * dtype.size())?;
        match dtype {
            DType::F32 => Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            DType::F16 => {
                Ok(bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect())
            }
            other => Err(internal(ENGINE, format!("logits of type {other}"))),
        }
    }

    /// Rows of the outermost dimension.
    pub(super) fn rows(&self, rows: &[usize]) -> Result<Self> {
        let (dtype, mut shape, bytes) = self.contents()?;
        let count = shape.first().copied().unwrap_or(0).max(1) as usize;
        let row = bytes.len() / count;
        let length = row * rows.len();
        let mut taken = Vec::with_capacity(length.next_multiple_of(8));
        for at in rows {
            taken.extend_from_slice(part(bytes, at * row..(at + 1) * row)?);
        }
        taken.resize(length.next_multiple_of(8), 0);
        let words = taken.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        if let Some(first) = shape.first_mut() {
            *first = rows.len() as u64;
        }
        Ok(Self::Copied { dtype, shape, words, length })
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> Result<&[u8], PluginError> {
    bytes.get(range).ok_or_else(|| internal(ENGINE, "a tensor is shorter than its shape says"))
}
