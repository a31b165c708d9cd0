//! Tensors in and out of rten, which knows four element types.
//!
//! rten computes with `f32`, `i32`, `i8` and `u8`, and stores what a model declares otherwise in one of them. The
//! conversions here make that invisible where nothing is lost, and refuse the rest: a number beyond `i32` in an
//! `i64` input is an error, not another number.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;
use pajamas_plugin_api::{DType, PluginError, Result, TensorView};
use rten::{Value, ValueView};
use rten_tensor::prelude::*;

use super::ENGINE;
use crate::error::internal;

/// The types that rten serves, directly or by a conversion without loss.
pub(super) const DTYPES: [DType; 7] =
    [DType::F32, DType::F16, DType::I8, DType::U8, DType::I32, DType::I64, DType::Bool];

/// Bits that rten spends on one element of an ONNX type.
pub(super) fn bits(number: i32) -> u64 {
    match crate::element::dtype(number) {
        Some(DType::F16 | DType::F64 | DType::I64 | DType::Bool) => 32,
        _ => crate::element::bits(number),
    }
}

/// An input in a type of rten's: borrowed where the types agree, else converted.
pub(super) struct Input<'a> {
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    F32(Cow<'a, [f32]>),
    I32(Cow<'a, [i32]>),
    I8(&'a [i8]),
    U8(&'a [u8]),
}

impl<'a> Input<'a> {
    /// Converts the tensor for input `name`, whose memory is aligned.
    ///
    /// # Errors
    /// `invalid-input` for an `i64` beyond `i32`.
    pub(super) fn new(name: &str, tensor: &TensorView<'a>) -> Result<Self> {
        let shape = tensor
            .shape()
            .iter()
            .map(|d| usize::try_from(*d).map_err(|e| internal(ENGINE, e)))
            .collect::<Result<_>>()?;
        let data = match tensor.dtype() {
            DType::F32 => Data::F32(Cow::Borrowed(tensor.elements()?)),
            DType::F16 => {
                let halves = tensor.bytes().as_chunks::<2>().0;
                let halves: Vec<f16> = halves.iter().map(|b| f16::from_le_bytes(*b)).collect();
                Data::F32(Cow::Owned(halves.to_f32_vec()))
            }
            DType::I8 => Data::I8(tensor.elements()?),
            DType::U8 => Data::U8(tensor.elements()?),
            DType::I32 => Data::I32(Cow::Borrowed(tensor.elements()?)),
            DType::I64 => Data::I32(Cow::Owned(narrow(name, tensor.elements()?)?)),
            DType::Bool => Data::I32(Cow::Owned(tensor.bytes().iter().map(|b| i32::from(*b)).collect())),
            other => return Err(internal(ENGINE, format!("input `{name}` arrived as {other}"))),
        };
        Ok(Self { shape, data })
    }

    /// The input as rten wants it.
    pub(super) fn view(&self) -> Result<ValueView<'_>> {
        let fault = |e: &dyn std::fmt::Display| internal(ENGINE, e);
        match &self.data {
            Data::F32(data) => ValueView::from_shape(&self.shape, data).map_err(|e| fault(&e)),
            Data::I32(data) => ValueView::from_shape(&self.shape, data).map_err(|e| fault(&e)),
            Data::I8(data) => ValueView::from_shape(&self.shape, data).map_err(|e| fault(&e)),
            Data::U8(data) => ValueView::from_shape(&self.shape, data).map_err(|e| fault(&e)),
        }
    }
}

fn narrow(name: &str, wide: &[i64]) -> Result<Vec<i32>> {
    let one = |(at, value): (usize, &i64)| {
        i32::try_from(*value).map_err(|_| {
            PluginError::invalid_input(format!(
                "input `{name}`: element {at} is {value}, and rten computes i64 in 32 bits"
            ))
            .help("use the backend `onnxruntime`, or numbers from -2147483648 to 2147483647")
        })
    };
    wide.iter().enumerate().map(one).collect()
}

/// The shape of an output.
pub(super) fn shape(value: &Value) -> Vec<u64> {
    value.shape().iter().map(|d| *d as u64).collect()
}

/// Writes an output into `bytes`, in the type that the model declares for it.
///
/// # Errors
/// `internal` when rten's type does not stand for the declared one.
pub(super) fn write(name: &str, value: &Value, declared: DType, bytes: &mut [u8]) -> Result<()> {
    match (value, declared) {
        (Value::FloatTensor(t), DType::F32) => fill(bytes, t, f32::to_le_bytes),
        (Value::FloatTensor(t), DType::F16) => fill(bytes, t, |v| f16::from_f32(v).to_le_bytes()),
        (Value::Int32Tensor(t), DType::I32) => fill(bytes, t, i32::to_le_bytes),
        (Value::Int32Tensor(t), DType::I64) => fill(bytes, t, |v| i64::from(v).to_le_bytes()),
        (Value::Int32Tensor(t), DType::Bool) => fill(bytes, t, |v| [u8::from(v != 0)]),
        (Value::Int8Tensor(t), DType::I8) => fill(bytes, t, i8::to_le_bytes),
        (Value::UInt8Tensor(t), DType::U8) => fill(bytes, t, u8::to_le_bytes),
        (value, declared) => {
            return Err(internal(
                ENGINE,
                format!("output `{name}` is {} where {declared} is declared", value.dtype()),
            ));
        }
    }
    Ok(())
}

/// Elements in row-major order, each through `encode`.
fn fill<T: Copy, const N: usize>(
    bytes: &mut [u8],
    tensor: &rten_tensor::Tensor<T>,
    encode: impl Fn(T) -> [u8; N],
) {
    let slots = bytes.as_chunks_mut::<N>().0;
    match tensor.data() {
        Some(data) => slots.iter_mut().zip(data).for_each(|(slot, v)| *slot = encode(*v)),
        None => slots.iter_mut().zip(tensor.iter()).for_each(|(slot, v)| *slot = encode(*v)),
    }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::{as_bytes, codes};

    use super::*;

    #[test]
    fn wide_integers_are_narrowed_or_refused() {
        let numbers = [1i64, -2, i64::from(i32::MAX)];
        let tensor = TensorView::new(DType::I64, &[3], as_bytes(&numbers)).unwrap();
        let input = Input::new("ids", &tensor).unwrap();
        assert!(matches!(&input.data, Data::I32(d) if **d == [1, -2, i32::MAX]));

        let numbers = [0i64, 1 << 31];
        let tensor = TensorView::new(DType::I64, &[2], as_bytes(&numbers)).unwrap();
        let error = Input::new("ids", &tensor).err().unwrap();
        assert_eq!(error.code, codes::INVALID_INPUT);
        assert!(error.message.contains("element 1 is 2147483648"), "{error}");
    }

    #[test]
    fn outputs_take_the_declared_type() {
        let mut bytes = [0u8; 16];
        let numbers = Value::from_shape([2], vec![-1i32, 5]).unwrap();
        write("y", &numbers, DType::I64, &mut bytes).unwrap();
        assert_eq!(bytes, *[(-1i64).to_le_bytes(), 5i64.to_le_bytes()].as_flattened());
        write("y", &numbers, DType::Bool, &mut bytes[..2]).unwrap();
        assert_eq!(bytes[..2], [1, 1]);
        let halves = Value::from_shape([2], vec![0.5f32, 1e9]).unwrap();
        write("y", &halves, DType::F16, &mut bytes[..4]).unwrap();
        assert_eq!(
            bytes[..4],
            *[f16::from_f32(0.5).to_le_bytes(), f16::INFINITY.to_le_bytes()].as_flattened()
        );
        assert_eq!(write("y", &halves, DType::I8, &mut bytes).unwrap_err().code, codes::INTERNAL);
    }
}
