//! Input memory as an engine needs it.

use pajamas_plugin_api::{DType, PluginError, Result, TensorView, as_bytes};

/// An input whose memory is aligned for its type, and whose content the type allows.
pub(crate) struct Aligned<'a> {
    tensor: TensorView<'a>,
    /// A copy in words of eight bytes, when the caller's memory is not aligned.
    copy: Option<Vec<u64>>,
}

impl<'a> Aligned<'a> {
    /// Borrows the memory of input `name`, or copies it where it is not aligned.
    ///
    /// # Errors
    /// `invalid-input` for a bool that is neither 0 nor 1: engines in C++ take that for granted.
    pub(crate) fn new(name: &str, tensor: &TensorView<'a>) -> Result<Self> {
        let bytes = tensor.bytes();
        if tensor.dtype() == DType::Bool
            && let Some(at) = bytes.iter().position(|b| *b > 1)
        {
            return Err(PluginError::invalid_input(format!(
                "input `{name}`: element {at} is {}; a bool is 0 or 1",
                bytes[at]
            )));
        }
        let aligned = bytes.as_ptr().addr().is_multiple_of(tensor.dtype().size());
        let copy = (!aligned).then(|| bytes.chunks(8).map(word).collect());
        Ok(Self { tensor: *tensor, copy })
    }

    /// The tensor in aligned memory.
    pub(crate) fn view(&self) -> Result<TensorView<'_>> {
        match &self.copy {
            None => Ok(self.tensor),
            Some(words) => {
                let bytes = &as_bytes(words)[..self.tensor.bytes().len()];
                TensorView::new(self.tensor.dtype(), self.tensor.shape(), bytes)
            }
        }
    }
}

fn word(chunk: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..chunk.len()].copy_from_slice(chunk);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_memory_is_copied_and_aligned_memory_is_not() {
        let words: Vec<u64> = (0..4).collect();
        let bytes = as_bytes(&words);
        let straight = TensorView::new(DType::I64, &[3], &bytes[..24]).unwrap();
        let aligned = Aligned::new("x", &straight).unwrap();
        assert_eq!(aligned.view().unwrap().bytes().as_ptr(), bytes.as_ptr());

        let crooked = TensorView::new(DType::I16, &[3], &bytes[1..7]).unwrap();
        let aligned = Aligned::new("x", &crooked).unwrap();
        assert_eq!(aligned.view().unwrap().bytes(), crooked.bytes());
        assert!(aligned.view().unwrap().elements::<i16>().is_ok());
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        let tensor = TensorView::new(DType::Bool, &[3], &[0, 1, 2]).unwrap();
        let error = Aligned::new("mask", &tensor).err().unwrap();
        assert_eq!(error.message, "input `mask`: element 2 is 2; a bool is 0 or 1");
    }
}
