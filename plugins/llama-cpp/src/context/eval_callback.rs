//! Watching operations as they are computed: what llama.cpp calls its evaluation callback.
//!
//! A context is made to be watched or not, for llama.cpp takes the callback when it makes the context; who watches is
//! said anew for each batch.

use std::any::Any;
use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::{Context, Decoded};
use crate::{Batch, Error, Result, sys};

/// Who looks at operations while a batch is computed: on the thread that computes it, one operation after the other.
pub trait Watch {
    /// Whether an operation is to be seen. Those between two that are wanted are computed together, which is faster.
    fn wants(&mut self, operation: &Operation<'_>) -> bool;

    /// Sees an operation that was wanted, now that it was computed.
    fn see(&mut self, operation: &Operation<'_>);
}

/// What an operation does, as far as watchers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Weights times inputs: operands 0 and 1.
    Product,
    /// The same with the weights of some experts (operand 0) for each token, whose numbers are operand 2.
    ExpertProduct,
    /// Anything else.
    Other,
}

/// One operation of a model's computation.
#[derive(Clone, Copy)]
pub struct Operation<'t>(&'t sys::ggml_tensor);

impl<'t> Operation<'t> {
    /// What it does.
    pub fn kind(&self) -> OperationKind {
        match self.0.op {
            sys::GGML_OP_MUL_MAT => OperationKind::Product,
            sys::GGML_OP_MUL_MAT_ID => OperationKind::ExpertProduct,
            _ => OperationKind::Other,
        }
    }

    /// What goes into it.
    pub fn operand(&self, at: usize) -> Option<Operand<'t>> {
        let tensor = *self.0.src.get(at)?;
        // SAFETY: null, or a tensor of the graph that is computed, which outlives the call that this operation is
        // borrowed from.
        unsafe { tensor.as_ref() }.map(Operand)
    }
}

/// What goes into an operation: weights, or what other operations came to.
#[derive(Clone, Copy)]
pub struct Operand<'t>(&'t sys::ggml_tensor);

impl<'t> Operand<'t> {
    /// Its name; of weights that in the model's file, also where a device holds a copy (`CUDA0#blk.0.attn_k.weight#0`).
    pub fn name(&self) -> Cow<'t, str> {
        // SAFETY: ggml keeps names in an array that ends with a zero.
        let name = unsafe { CStr::from_ptr(self.0.name.as_ptr()) }.to_string_lossy();
        match name.split('#').nth(1) {
            Some(inner) => Cow::Owned(inner.to_owned()),
            None => name,
        }
    }

    /// Elements along each dimension, innermost first.
    pub fn sizes(&self) -> [usize; 4] {
        self.0.ne.map(|n| usize::try_from(n).unwrap_or(0))
    }

    /// Whether its elements are 32-bit floats.
    pub fn is_f32(&self) -> bool {
        self.0.type_ == sys::GGML_TYPE_F32
    }

    /// Its rows, when it holds 32-bit floats. What lies on a device is copied into `scratch`.
    pub fn floats<'a>(&'a self, scratch: &'a mut Vec<f32>) -> Option<Rows<'a, f32>> {
        self.rows(sys::GGML_TYPE_F32, scratch)
    }

    /// Its rows, when it holds 32-bit integers.
    pub fn integers<'a>(&'a self, scratch: &'a mut Vec<i32>) -> Option<Rows<'a, i32>> {
        self.rows(sys::GGML_TYPE_I32, scratch)
    }

    /// `T` is a number of four bytes, the one that `kind` names.
    fn rows<'a, T: Copy + Default>(
        &'a self,
        kind: sys::ggml_type,
        scratch: &'a mut Vec<T>,
    ) -> Option<Rows<'a, T>> {
        let tensor = self.0;
        let size = size_of::<T>();
        let divides = tensor.nb.iter().all(|stride| stride.is_multiple_of(size));
        if tensor.type_ != kind || tensor.nb[0] != size || !divides || tensor.buffer.is_null() {
            return None;
        }
        // SAFETY: a tensor of the graph that is computed.
        let bytes = unsafe { sys::ggml_nbytes(tensor) };
        let elements = bytes / size;
        let host = tensor.data.cast::<T>();
        // SAFETY: its buffer, which is not null.
        let data = if unsafe { sys::ggml_backend_buffer_is_host(tensor.buffer) } && host.is_aligned() {
            // SAFETY: memory of this process, aligned as asked for, with as many bytes from `data` on as ggml says the
            // tensor spans with its strides; nothing computes while a watcher looks.
            unsafe { std::slice::from_raw_parts(host, elements) }
        } else {
            scratch.clear();
            scratch.resize(elements, T::default());
            // SAFETY: room for so many bytes, and a tensor that lies in a buffer.
            unsafe {
                sys::ggml_backend_tensor_get(tensor, scratch.as_mut_ptr().cast(), 0, elements * size);
            }
            scratch.as_slice()
        };
        let strides = [tensor.nb[1] / size, tensor.nb[2] / size, tensor.nb[3] / size];
        Some(Rows { data, columns: self.sizes()[0], strides })
    }
}

/// The rows of an operand.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    data: &'a [T],
    columns: usize,
    strides: [usize; 3],
}

impl<'a, T> Rows<'a, T> {
    /// The row at these places along the outer dimensions, the innermost of them first; empty where there is none.
    pub fn row(&self, at: [usize; 3]) -> &'a [T] {
        let start: usize = at.iter().zip(self.strides).map(|(at, stride)| at * stride).sum();
        self.data.get(start..start + self.columns).unwrap_or(&[])
    }
}

/// Where llama.cpp finds who watches: null while nobody does.
pub(super) type Seat = Arc<AtomicPtr<c_void>>;

/// A seat, and what a context's parameters are told of it.
pub(super) fn seat() -> (Seat, sys::ggml_backend_sched_eval_callback, *mut c_void) {
    let seat = Seat::default();
    let data = Arc::as_ptr(&seat).cast_mut().cast();
    (seat, Some(evaluated), data)
}

/// Who watches a batch.
struct Watcher<'w> {
    watch: &'w mut dyn Watch,
    panic: Option<Box<dyn Any + Send>>,
}

/// A watcher on its seat, for as long as this lives.
struct Seated<'s>(&'s Seat);

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.0.store(null_mut(), Ordering::Release);
    }
}

impl Context {
    /// As [`decode`](Self::decode), while `watch` looks at the operations. Only for a context that was made to be
    /// watched ([`ContextParams::watched`](super::ContextParams::watched)).
    ///
    /// # Errors
    /// As for [`decode`](Self::decode).
    pub fn decode_watched(
        &mut self,
        batch: &mut Batch,
        abort: &(dyn Fn() -> bool + Sync),
        watch: &mut dyn Watch,
    ) -> Result<Decoded> {
        let Some(seat) = self.seat.clone() else {
            return Err(Error::Batch("the context was not made to be watched".into()));
        };
        let mut watcher = Watcher { watch, panic: None };
        seat.store((&raw mut watcher).cast(), Ordering::Release);
        let seated = Seated(&seat);
        let decoded = self.decode(batch, abort);
        drop(seated);
        match watcher.panic {
            Some(panic) => resume_unwind(panic),
            None => decoded,
        }
    }
}

unsafe extern "C" fn evaluated(tensor: *mut sys::ggml_tensor, ask: bool, seat: *mut c_void) -> bool {
    // SAFETY: what `seat` gave to the context, which holds the seat for as long as it lives.
    let seat = unsafe { &*seat.cast::<AtomicPtr<c_void>>() };
    let watcher = seat.load(Ordering::Acquire).cast::<Watcher<'_>>();
    // SAFETY: null, or the watcher of `decode_watched`, which is waiting for the call that this one is made from, on
    // this thread: nobody else uses it meanwhile.
    let Some(watcher) = (unsafe { watcher.as_mut() }) else { return !ask };
    // SAFETY: a tensor of the graph that is computed.
    let (None, Some(tensor)) = (&watcher.panic, unsafe { tensor.as_ref() }) else { return !ask };
    let operation = Operation(tensor);
    // A panic must not unwind through C++: it is carried over to the end of the batch.
    let looked = catch_unwind(AssertUnwindSafe(|| match ask {
        true => watcher.watch.wants(&operation),
        false => {
            watcher.watch.see(&operation);
            true
        }
    }));
    looked.unwrap_or_else(|panic| {
        watcher.panic = Some(panic);
        !ask
    })
}
