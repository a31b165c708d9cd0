//! Tensors: making them, and reading them whatever their element type.

use half::{bf16, f16};

use crate::{Error, Result, Tensor, TensorData};

impl Tensor {
    /// A dense, row-major tensor; the shape's product must be the number of elements.
    pub fn new(shape: Vec<u64>, data: TensorData) -> Result<Self> {
        let tensor = Self { shape, data };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor of f32.
    pub fn f32(shape: Vec<u64>, data: Vec<f32>) -> Result<Self> {
        Self::new(shape, TensorData::F32(data))
    }

    /// Whether shape and elements agree. A tensor that comes from elsewhere is checked before its shape is believed.
    pub fn check(&self) -> Result<()> {
        let product = self.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        if product == Some(self.data.len() as u64) {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "a tensor of shape {:?} cannot hold {} elements",
            self.shape,
            self.data.len()
        )))
    }

    /// The elements as f32, checked against the shape. Without a copy when they are f32 already.
    pub fn into_f32(self) -> Result<Vec<f32>> {
        self.check()?;
        Ok(match self.data {
            TensorData::F32(v) => v,
            TensorData::F16(v) => v.into_iter().map(|x| f16::from_bits(x).to_f32()).collect(),
            TensorData::Bf16(v) => v.into_iter().map(|x| bf16::from_bits(x).to_f32()).collect(),
            TensorData::F64(v) => v.into_iter().map(|x| x as f32).collect(),
            TensorData::I8(v) => v.into_iter().map(f32::from).collect(),
            TensorData::U8(v) | TensorData::Boolean(v) => v.into_iter().map(f32::from).collect(),
            TensorData::I16(v) => v.into_iter().map(f32::from).collect(),
            TensorData::U16(v) => v.into_iter().map(f32::from).collect(),
            TensorData::I32(v) => v.into_iter().map(|x| x as f32).collect(),
            TensorData::U32(v) => v.into_iter().map(|x| x as f32).collect(),
            TensorData::I64(v) => v.into_iter().map(|x| x as f32).collect(),
            TensorData::U64(v) => v.into_iter().map(|x| x as f32).collect(),
        })
    }
}

impl TensorData {
    /// Number of elements.
    pub const fn len(&self) -> usize {
        match self {
            TensorData::F32(v) => v.len(),
            TensorData::F64(v) => v.len(),
            TensorData::I8(v) => v.len(),
            TensorData::U8(v) | TensorData::Boolean(v) => v.len(),
            TensorData::I16(v) => v.len(),
            TensorData::U16(v) | TensorData::F16(v) | TensorData::Bf16(v) => v.len(),
            TensorData::I32(v) => v.len(),
            TensorData::U32(v) => v.len(),
            TensorData::I64(v) => v.len(),
            TensorData::U64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_lies_is_refused() {
        assert!(Tensor::f32(vec![2, 3], vec![0.0; 6]).is_ok());
        assert_eq!(Tensor::f32(vec![2, 3], vec![0.0; 5]).unwrap_err().code, "invalid-input");
        assert!(Tensor::f32(vec![u64::MAX, 2], vec![]).is_err());
        let lie = Tensor { shape: vec![7], data: TensorData::I8(vec![1]) };
        assert!(lie.into_f32().is_err());
    }

    #[test]
    fn half_precision_is_widened() {
        let tensor = Tensor::new(vec![2], TensorData::F16(vec![0x3c00, 0xc000])).unwrap();
        assert_eq!(tensor.into_f32().unwrap(), [1.0, -2.0]);
        let tensor = Tensor::new(vec![1], TensorData::Bf16(vec![0x4040])).unwrap();
        assert_eq!(tensor.into_f32().unwrap(), [3.0]);
    }
}
