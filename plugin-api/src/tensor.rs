//! Tensors as they cross the boundary: described by value, their bytes borrowed and never copied.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{PluginError, Result};

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 8;

/// The element type of a tensor. Little-endian, densely packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    F32 = 1,
    F16 = 2,
    F64 = 3,
    I8 = 4,
    U8 = 5,
    I16 = 6,
    U16 = 7,
    I32 = 8,
    U32 = 9,
    I64 = 10,
    U64 = 11,
    Bool = 12,
    Bf16 = 13,
}

impl DType {
    /// Every type, in the order of its wire number.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
        DType::Bf16,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::Bf16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// The name used in JSON and in messages, for example `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::Bool => "bool",
            DType::Bf16 => "bf16",
        }
    }

    /// The type with this wire number.
    pub fn from_wire(number: u8) -> Result<Self> {
        Self::ALL.into_iter().find(|d| *d as u8 == number).ok_or_else(|| {
            PluginError::invalid_input(format!("tensor element type number {number} is unknown"))
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes of a dense tensor, or an error when the shape is too deep or the product overflows.
pub fn byte_len(dtype: DType, shape: &[u64]) -> Result<usize> {
    if shape.len() > MAX_RANK {
        return Err(PluginError::invalid_input(format!(
            "a tensor of {} dimensions: at most {MAX_RANK} are allowed",
            shape.len()
        )));
    }
    shape
        .iter()
        .try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d))
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| isize::try_from(*n).is_ok())
        .ok_or_else(|| PluginError::invalid_input(format!("a tensor of shape {shape:?} is too large")))
}

/// One dimension of a model's input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// Always this many.
    Fixed(u64),
    /// Chosen by the caller, or by the input; the model's name for it, for example `batch`.
    Dynamic(String),
}

/// An input or output of a model: its name, type and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name the model gives it.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<Dim>,
}

/// A borrowed, dense, row-major tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a [u64],
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// A view of `bytes`; their number must be what `dtype` and `shape` say.
    pub fn new(dtype: DType, shape: &'a [u64], bytes: &'a [u8]) -> Result<Self> {
        let expected = byte_len(dtype, shape)?;
        if expected != bytes.len() {
            return Err(PluginError::invalid_input(format!(
                "a {dtype} tensor of shape {shape:?} needs {expected} bytes, {} were given",
                bytes.len()
            )));
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &'a [u64] {
        self.shape
    }

    /// The elements' bytes, little-endian. Not necessarily aligned for the element type.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements as a typed slice, when the type matches and the memory is aligned.
    pub fn elements<T: Element>(&self) -> Result<&'a [T]> {
        T::check(self.dtype)?;
        // SAFETY: `Element` is implemented only for plain numbers, of which every bit pattern is valid;
        // `align_to` yields the properly aligned middle part, and we accept only the whole.
        let (head, middle, tail) = unsafe { self.bytes.align_to::<T>() };
        if !head.is_empty() || !tail.is_empty() {
            return Err(PluginError::new(
                "tensor-unaligned",
                "the tensor's memory is not aligned for its element type",
            ));
        }
        Ok(middle)
    }
}

/// Memory that stays readable and unchanged until the last who holds it lets go.
pub type SharedMemory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A dense, row-major tensor in memory that outlives the call that wrote it.
#[derive(Clone)]
pub struct SharedTensor {
    dtype: DType,
    shape: Vec<u64>,
    memory: SharedMemory,
    place: Range<usize>,
}

impl SharedTensor {
    /// The tensor that begins `start` bytes into `memory`.
    ///
    /// # Errors
    /// `invalid-input` when it does not lie within.
    pub fn new(dtype: DType, shape: Vec<u64>, memory: SharedMemory, start: usize) -> Result<Self> {
        let length = byte_len(dtype, &shape)?;
        let held = (*memory).as_ref().len();
        match start.checked_add(length).filter(|end| *end <= held) {
            Some(end) => Ok(Self { dtype, shape, memory, place: start..end }),
            None => Err(PluginError::invalid_input(format!(
                "a {dtype} tensor of shape {shape:?} does not lie at {start} of {held} bytes"
            ))),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The elements' bytes, little-endian. Not necessarily aligned for the element type.
    pub fn bytes(&self) -> &[u8] {
        // An owner whose memory shrank breaks its promise; an empty slice fails where its length is looked at.
        (*self.memory).as_ref().get(self.place.clone()).unwrap_or_default()
    }

    /// The tensor, borrowed.
    ///
    /// # Errors
    /// `invalid-input` when its memory shrank.
    pub fn view(&self) -> Result<TensorView<'_>> {
        TensorView::new(self.dtype, &self.shape, self.bytes())
    }
}

impl fmt::Debug for SharedTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTensor({} {:?})", self.dtype, self.shape)
    }
}

/// A dense, row-major tensor that the callee fills.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    dtype: DType,
    shape: Vec<u64>,
    bytes: &'a mut [u8],
}

impl<'a> TensorViewMut<'a> {
    /// A view of `bytes`; their number must be what `dtype` and `shape` say.
    pub fn new(dtype: DType, shape: &[u64], bytes: &'a mut [u8]) -> Result<Self> {
        TensorView::new(dtype, shape, bytes)?;
        Ok(Self { dtype, shape: shape.to_vec(), bytes })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The memory to fill; the host aligns it for the element type.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }
}

/// A number that a tensor may hold.
pub trait Element: Copy + 'static + sealed::Sealed {
    /// The type's tag.
    const DTYPE: DType;

    /// Says clearly that a tensor of type `found` is not one of this type.
    fn check(found: DType) -> Result<()> {
        if found == Self::DTYPE {
            Ok(())
        } else {
            Err(PluginError::invalid_input(format!("the tensor holds {found}, {} was expected", Self::DTYPE)))
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($t:ty => $d:ident),*) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t { const DTYPE: DType = DType::$d; }
    )*};
}
elements!(f32 => F32, f64 => F64, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64);

/// The bytes of a slice of numbers, without copying.
pub fn as_bytes<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: `Element` types have no padding, so every byte is initialised; u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

/// A tensor view with the name of the model input it is for.
#[derive(Debug, Clone, Copy)]
pub struct NamedTensor<'a> {
    /// The model's name for the input.
    pub name: &'a str,
    /// Its content.
    pub tensor: TensorView<'a>,
}
