//! The numbers of a tensor: a vector of their own, or memory that who wrote them lent.

use std::fmt;
use std::ops::Deref;

use pajamas_plugin_api::{Element, SharedTensor};

/// Numbers in a row: read as a slice, and copied only where lent ones are to be changed.
#[derive(Clone)]
pub struct Elements<T> {
    own: Vec<T>,
    /// Instead of `own`; aligned, and a whole number of elements.
    lent: Option<SharedTensor>,
}

impl<T: Element> Elements<T> {
    /// Numbers that someone else keeps; copied when their memory is not aligned for them.
    pub fn lent(tensor: SharedTensor) -> Self {
        match cast::<T>(tensor.bytes()) {
            Some(_) => Self { own: Vec::new(), lent: Some(tensor) },
            None => Self { own: copied(tensor.bytes()), lent: None },
        }
    }

    /// The numbers, to be changed.
    pub fn to_mut(&mut self) -> &mut [T] {
        if let Some(tensor) = self.lent.take() {
            self.own = copied(tensor.bytes());
        }
        &mut self.own
    }
}

impl<T: Element> Deref for Elements<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.lent {
            // Was whole when it was taken, and its owner keeps it as it is.
            Some(tensor) => cast(tensor.bytes()).unwrap_or_default(),
            None => &self.own,
        }
    }
}

impl<T> From<Vec<T>> for Elements<T> {
    fn from(own: Vec<T>) -> Self {
        Self { own, lent: None }
    }
}

impl<T> FromIterator<T> for Elements<T> {
    fn from_iter<I: IntoIterator<Item = T>>(numbers: I) -> Self {
        Vec::from_iter(numbers).into()
    }
}

impl<T: Element + PartialEq> PartialEq for Elements<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for Elements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Bytes as numbers, when they are aligned and whole.
fn cast<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `Element` is implemented only for plain numbers, of which every bit pattern is valid; of what `align_to` gives
    // only the whole is taken.
    let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(numbers)
}

/// Numbers from bytes that may lie anywhere; what is left over at the end is no number.
fn copied<T: Element>(bytes: &[u8]) -> Vec<T> {
    let count = bytes.len() / size_of::<T>();
    let mut numbers = Vec::<T>::with_capacity(count);
    // SAFETY: the vector has room for `count` numbers, of which `bytes` hold all bytes; an `Element` is valid whatever
    // these are.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), numbers.as_mut_ptr().cast(), count * size_of::<T>());
        numbers.set_len(count);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pajamas_plugin_api::{DType, SharedMemory, as_bytes};

    use super::*;

    /// Numbers whose bytes begin `start` bytes after an aligned place.
    fn lent(start: usize) -> (SharedMemory, Elements<f32>) {
        let mut aligned = vec![0u64; 4];
        let bytes: Vec<u8> = as_bytes(&[1.0f32, 2.0]).to_vec();
        let mut memory = as_bytes(&aligned).to_vec();
        memory[start..start + 8].copy_from_slice(&bytes);
        for (word, bytes) in aligned.iter_mut().zip(memory.chunks(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        struct Words(Vec<u64>);
        impl AsRef<[u8]> for Words {
            fn as_ref(&self) -> &[u8] {
                as_bytes(&self.0)
            }
        }
        let memory: SharedMemory = Arc::new(Words(aligned));
        let tensor = SharedTensor::new(DType::F32, vec![2], Arc::clone(&memory), start).unwrap();
        (memory, Elements::lent(tensor))
    }

    #[test]
    fn lent_numbers_are_read_where_they_lie_until_they_are_changed() {
        let (memory, mut elements) = lent(8);
        assert_eq!(elements.as_ptr().cast(), (*memory).as_ref()[8..].as_ptr());
        assert_eq!(Arc::strong_count(&memory), 2);
        elements.to_mut()[0] = 7.0;
        assert_eq!((&*elements, Arc::strong_count(&memory)), (&[7.0, 2.0][..], 1));
    }

    #[test]
    fn what_is_not_aligned_is_copied() {
        let (memory, elements) = lent(3);
        assert_eq!((&*elements, Arc::strong_count(&memory)), (&[1.0, 2.0][..], 1));
        assert_eq!(elements, Elements::from(vec![1.0, 2.0]));
    }
}
