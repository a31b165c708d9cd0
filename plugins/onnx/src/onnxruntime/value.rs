//! Tensors and runs over ONNX Runtime's C interface.
//!
//! `ort`'s own tensors are typed by Rust's types, and its preallocated outputs must own their memory. Here a tensor
//! is bytes with an element type, borrowed from the host for the length of one run: inputs are read where they
//! lie, and outputs are written where they will be used.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session};
use ort::value::TensorElementType;
use pajamas_plugin_api::{DType, TensorView, TensorViewMut};

/// A tensor of the runtime: a view of memory that lives for `'a`, or one that a run has made.
pub(super) struct Value<'a> {
    handle: NonNull<ort::sys::OrtValue>,
    memory: PhantomData<&'a mut [u8]>,
}

impl<'a> Value<'a> {
    /// A tensor to be read where it lies. Its memory must be aligned for its type.
    pub(super) fn input(place: &MemoryInfo<'_>, tensor: &TensorView<'a>) -> ort::Result<Self> {
        // ONNX Runtime takes a mutable pointer for inputs as well, but plans a graph's inputs as memory it may
        // neither write nor reuse.
        Self::over(
            place,
            tensor.dtype(),
            tensor.shape(),
            tensor.bytes().as_ptr().cast_mut(),
            tensor.bytes().len(),
        )
    }

    /// A tensor to be written where it lies.
    pub(super) fn output(place: &MemoryInfo<'_>, tensor: &'a mut TensorViewMut<'_>) -> ort::Result<Self> {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let bytes = tensor.bytes();
        Self::over(place, dtype, &shape, bytes.as_mut_ptr(), bytes.len())
    }

    /// A tensor over `length` bytes at `data`, which the caller borrows for `'a`.
    fn over(
        place: &MemoryInfo<'_>,
        dtype: DType,
        shape: &[u64],
        data: *mut u8,
        length: usize,
    ) -> ort::Result<Self> {
        // A dimension beyond i64 cannot occur: the view's byte length has been checked against its shape.
        let shape: Vec<i64> = shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        let mut handle = ptr::null_mut();
        // SAFETY: `data` points to `length` bytes that live for `'a`, longer than the value, whose lifetime carries
        // it; `shape` is valid for the call. The runtime checks that both agree.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                place.ptr(),
                data.cast(),
                length,
                shape.as_ptr(),
                shape.len(),
                element_type(dtype).into(),
                &mut handle,
            )
        };
        check(status)?;
        Self::from_handle(handle)
    }

    fn from_handle(handle: *mut ort::sys::OrtValue) -> ort::Result<Self> {
        let handle = NonNull::new(handle).ok_or_else(|| ort::Error::new("a tensor without a handle"))?;
        Ok(Self { handle, memory: PhantomData })
    }

    /// The type, shape and bytes of a tensor in the processor's memory.
    pub(super) fn contents(&self) -> ort::Result<(DType, Vec<u64>, &[u8])> {
        let api = ort::api();
        let mut number = ort::sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut dims, mut rank) = (ptr::null(), 0);
        // SAFETY: the handle is valid, and so are the out-pointers for the call.
        check(unsafe {
            (api.GetTensorElementTypeAndShapeDataReference)(
                self.handle.as_ptr(),
                &mut number,
                &mut dims,
                &mut rank,
            )
        })?;
        let shape: Vec<u64> = match rank {
            // The pointer may be null for a scalar.
            0 => Vec::new(),
            // SAFETY: on success `dims` points to `rank` numbers that live as long as the value.
            _ => unsafe { std::slice::from_raw_parts(dims, rank) }
                .iter()
                .map(|d| u64::try_from(*d).unwrap_or(0))
                .collect(),
        };
        let dtype = dtype(number.into()).ok_or_else(|| {
            ort::Error::new(format!("an output of the unexpected type {}", TensorElementType::from(number)))
        })?;
        let length = pajamas_plugin_api::byte_len(dtype, &shape).map_err(ort::Error::wrap)?;
        if length == 0 {
            return Ok((dtype, shape, &[]));
        }
        let mut data = ptr::null_mut();
        // SAFETY: the handle is valid and holds a tensor, or the first call would have failed.
        check(unsafe { (api.GetTensorMutableData)(self.handle.as_ptr(), &mut data) })?;
        if data.is_null() {
            return Err(ort::Error::new("a tensor without data"));
        }
        // SAFETY: a dense tensor of this type and shape has this many bytes, and they live as long as the value.
        Ok((dtype, shape, unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }))
    }
}

// SAFETY: a value of the runtime belongs to no thread: it counts its references atomically, and the allocator that its
// memory goes back to locks itself.
unsafe impl Send for Value<'_> {}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is valid and released once; memory that was borrowed stays its owner's.
        unsafe { (ort::api().ReleaseValue)(self.handle.as_ptr()) }
    }
}

/// Runs the session. Outputs that come with a value are written into it; the values made for the others are
/// returned, in their order.
///
/// Not to be called twice at a time for one session: its providers need not be prepared for that.
pub(super) fn run(
    session: &Session,
    options: &RunOptions,
    inputs: &[(&CStr, &Value<'_>)],
    outputs: &[(&CStr, Option<Value<'_>>)],
) -> ort::Result<Vec<Value<'static>>> {
    let input_names: Vec<_> = inputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let input_values: Vec<_> = inputs.iter().map(|(_, value)| value.handle.as_ptr().cast_const()).collect();
    let output_names: Vec<_> = outputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let mut output_values: Vec<_> = outputs
        .iter()
        .map(|(_, value)| value.as_ref().map_or(ptr::null_mut(), |value| value.handle.as_ptr()))
        .collect();
    // SAFETY: every pointer is valid for the call, names are zero-terminated, and names and values are as many as
    // said. The memory under the values is borrowed by them: the inputs' shared, the outputs' exclusively.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            input_names.as_ptr(),
            input_values.as_ptr(),
            input_values.len(),
            output_names.as_ptr(),
            output_names.len(),
            output_values.as_mut_ptr(),
        )
    };
    check(status)?;
    let made = outputs.iter().zip(output_values).filter(|((_, value), _)| value.is_none());
    made.map(|(_, handle)| Value::from_handle(handle)).collect()
}

fn check(status: ort::sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: called once with what the runtime has just returned.
    unsafe { ort::Error::result_from_status(status) }
}

/// Our types and the runtime's, for all that both have.
const TYPES: [(DType, TensorElementType); 13] = [
    (DType::F32, TensorElementType::Float32),
    (DType::F16, TensorElementType::Float16),
    (DType::F64, TensorElementType::Float64),
    (DType::I8, TensorElementType::Int8),
    (DType::U8, TensorElementType::Uint8),
    (DType::I16, TensorElementType::Int16),
    (DType::U16, TensorElementType::Uint16),
    (DType::I32, TensorElementType::Int32),
    (DType::U32, TensorElementType::Uint32),
    (DType::I64, TensorElementType::Int64),
    (DType::U64, TensorElementType::Uint64),
    (DType::Bool, TensorElementType::Bool),
    (DType::Bf16, TensorElementType::Bfloat16),
];

fn element_type(dtype: DType) -> TensorElementType {
    TYPES.iter().find(|(ours, _)| *ours == dtype).map_or(TensorElementType::Undefined, |(_, theirs)| *theirs)
}

/// Our type for the runtime's.
pub(super) fn dtype(element_type: TensorElementType) -> Option<DType> {
    TYPES.iter().find(|(_, theirs)| *theirs == element_type).map(|(ours, _)| *ours)
}
