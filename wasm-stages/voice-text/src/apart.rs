//! Characters taken apart, as Unicode's form NFD has them.

use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

/// A text with its characters taken apart, marks in their order. The crate's own iterator would bring the tables of the
/// compatible forms along, which are most of its bytes.
pub fn nfd(text: &str) -> String {
    let mut apart: Vec<(u8, char)> = Vec::with_capacity(text.len());
    for c in text.chars() {
        decompose_canonical(c, |part| apart.push((canonical_combining_class(part), part)));
    }
    for marks in apart.split_mut(|(class, _)| *class == 0) {
        // Stable: marks of one class keep their order.
        marks.sort_by_key(|(class, _)| *class);
    }
    apart.into_iter().map(|(_, part)| part).collect()
}

/// Whether a character is a mark on the one before it.
pub fn is_mark(c: char) -> bool {
    canonical_combining_class(c) != 0
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    #[test]
    fn characters_are_taken_apart_as_unicode_says() {
        for text in ["é", "ǘ\u{323}ạ\u{302}", "각", "Å", "ﬁ", "a\u{301}\u{323}\u{301}b\u{5b0}\u{5bc}"]
        {
            assert_eq!(nfd(text), text.nfd().collect::<String>(), "{text}");
        }
        for c in '\0'..=char::MAX {
            let text = String::from_iter(['a', '\u{323}', c, '\u{301}', '\u{316}']);
            assert_eq!(nfd(&text), text.nfd().collect::<String>(), "{c:?}");
        }
        assert!(is_mark('\u{301}') && !is_mark('a'));
    }
}
