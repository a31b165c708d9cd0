//! Looking through many numbers for those that spoil a model.

/// The first that is bad. A look at all without a way out is many times faster than a search, and mostly finds nothing.
#[inline(always)]
pub(crate) fn first<T: Copy>(items: &[T], bad: impl Fn(T) -> bool) -> Option<usize> {
    let any = items.iter().fold(false, |any, item| any | bad(*item));
    if any { items.iter().position(|item| bad(*item)) } else { None }
}

/// The first number that is none, or infinite.
pub(crate) fn not_finite(values: &[f32]) -> Option<usize> {
    first(values, |value| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_one_is_found() {
        let mut values = vec![1.0f32; 1000];
        assert_eq!(not_finite(&values), None);
        values[998] = f32::NAN;
        values[999] = f32::INFINITY;
        assert_eq!(not_finite(&values), Some(998));
    }
}
