//! Tensors: typed numbers, so that they move in and out of WASM and into backends without a copy.

use pajamas_plugin_api::{DType, PluginError, SharedTensor, TensorView, as_bytes, byte_len};

use super::elements::Elements;

macro_rules! tensor_data {
    ($($variant:ident($t:ty)),* $(,)?) => {
        /// The elements of a tensor, row-major. `F16` and `Bf16` hold the raw 16 bits; `Bool` one byte, 0 or 1.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "the names are the documentation")]
        pub enum TensorData { $($variant(Elements<$t>)),* }

        impl TensorData {
            /// Zeros.
            pub fn zeroed(dtype: DType, elements: usize) -> Result<Self, PluginError> {
                match dtype {
                    $(DType::$variant => Ok(TensorData::$variant(vec![Default::default(); elements].into())),)*
                    other => Err(unknown(other)),
                }
            }

            /// Elements that someone else keeps.
            fn lent(tensor: SharedTensor) -> Result<Self, PluginError> {
                match tensor.dtype() {
                    $(DType::$variant => Ok(TensorData::$variant(Elements::lent(tensor))),)*
                    other => Err(unknown(other)),
                }
            }

            /// The element type.
            pub const fn dtype(&self) -> DType {
                match self { $(TensorData::$variant(_) => DType::$variant),* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(TensorData::$variant(v) => v.len()),* }
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The elements' bytes.
            pub fn bytes(&self) -> &[u8] {
                match self { $(TensorData::$variant(v) => as_bytes(v)),* }
            }

            /// The elements' bytes, to be filled.
            pub fn bytes_mut(&mut self) -> &mut [u8] {
                match self {
                    $(TensorData::$variant(v) => {
                        let v = v.to_mut();
                        let len = std::mem::size_of_val(v);
                        // SAFETY: plain numbers without padding, of which every bit pattern is valid; the
                        // borrow of `v` lasts as long as the slice.
                        unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), len) }
                    })*
                }
            }
        }
    };
}

tensor_data!(
    F32(f32),
    F16(u16),
    F64(f64),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Bool(u8),
    Bf16(u16),
);

fn unknown(dtype: DType) -> PluginError {
    PluginError::invalid_input(format!("this host knows no tensors of {dtype}"))
}

/// A dense, row-major tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<u64>,
    data: TensorData,
}

impl Tensor {
    /// A tensor; the shape's product must be the number of elements.
    pub fn new(shape: Vec<u64>, data: TensorData) -> Result<Self, PluginError> {
        if byte_len(data.dtype(), &shape)? != data.bytes().len() {
            return Err(PluginError::invalid_input(format!(
                "a tensor of shape {shape:?} cannot hold {} elements",
                data.len()
            )));
        }
        Ok(Self { shape, data })
    }

    /// A tensor of zeros.
    pub fn zeroed(dtype: DType, shape: Vec<u64>) -> Result<Self, PluginError> {
        let elements = byte_len(dtype, &shape)? / dtype.size();
        Ok(Self { shape, data: TensorData::zeroed(dtype, elements)? })
    }

    /// A tensor whose memory someone else keeps.
    pub fn lent(tensor: SharedTensor) -> Result<Self, PluginError> {
        let shape = tensor.shape().to_vec();
        Self::new(shape, TensorData::lent(tensor)?)
    }

    /// The element type.
    pub const fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The elements.
    pub const fn data(&self) -> &TensorData {
        &self.data
    }

    /// The elements, and nothing else.
    pub fn into_parts(self) -> (Vec<u64>, TensorData) {
        (self.shape, self.data)
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// The elements' bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    /// A view for a backend.
    pub fn view(&self) -> Result<TensorView<'_>, PluginError> {
        TensorView::new(self.dtype(), &self.shape, self.bytes())
    }

    /// The elements as f32, when they are.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            TensorData::F32(v) => Some(v),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_elements_must_agree() {
        assert!(Tensor::new(vec![2, 3], TensorData::F32(vec![0.0; 6].into())).is_ok());
        let error = Tensor::new(vec![2, 3], TensorData::F32(vec![0.0; 5].into())).unwrap_err();
        assert_eq!(error.code, "invalid-input");
        assert!(Tensor::zeroed(DType::F32, vec![u64::MAX, 2]).is_err());
    }

    #[test]
    fn every_type_is_zeroed_with_its_own_size() {
        for dtype in DType::ALL {
            let tensor = Tensor::zeroed(dtype, vec![3]).unwrap();
            assert_eq!((tensor.dtype(), tensor.bytes().len()), (dtype, 3 * dtype.size()));
        }
    }
}
