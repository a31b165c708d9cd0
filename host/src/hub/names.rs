//! Names that come from elsewhere and become paths and addresses.

use std::fmt::Write as _;

/// The longest path of a file in a repository.
const LONGEST: usize = 1024;

/// Whether a path with `/` stays in the folder that it is put into, on every system.
pub(super) fn stays_inside(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part
                .chars()
                .any(|c| c.is_control() || matches!(c, '\\' | ':' | '"' | '<' | '>' | '|' | '?' | '*'))
    };
    path.len() <= LONGEST && path.split('/').all(plain)
}

/// Whether it is a commit: 40 digits in lower-case hexadecimal.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether it is so many digits in lower-case hexadecimal.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a file of the cache may be named by this: hashes, and what mirrors use in their place.
pub(super) fn is_etag(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.')
}

/// Text as a part of an address; `keep` stays as it is besides letters and digits.
pub(super) fn encode(text: &str, keep: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) {
            true => encoded.push(char::from(byte)),
            // Writing to a String does not fail.
            false => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_repositories_are_told_from_those_that_lead_elsewhere() {
        for path in
            ["config.json", "1_Pooling/config.json", "a/b/c.safetensors", "...", "a..b", ".gitattributes"]
        {
            assert!(stays_inside(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "..\\a",
            "C:a",
            "a\0",
            "a\nb",
            "con:x",
        ] {
            assert!(!stays_inside(path), "{path:?}");
        }
        assert!(!stays_inside(&"a/".repeat(600)));
    }

    #[test]
    fn addresses_hold_any_text() {
        assert_eq!(encode("refs/pr/1", "-._~"), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü#.gguf", "-._~/"), "a%20b/%C3%BC%23.gguf");
    }

    proptest! {
        /// Whatever a hub calls its files: what is taken lies below the folder, part by part as it is written.
        #[test]
        fn no_name_that_is_taken_leaves_the_folder(
            path in "([a-z.]{0,3}|\\.\\.?|[/\\\\:]|\\PC){0,8}(/([a-z.]{0,3}|\\.\\.?|\\PC)){0,4}"
        ) {
            let folder = Path::new("/cache/snapshots/commit");
            if stays_inside(&path) {
                prop_assert!(Path::new(&path).components().all(|c| matches!(c, Component::Normal(_))));
                let joined = folder.join(&path);
                prop_assert!(joined.starts_with(folder) && joined != folder);
                prop_assert_eq!(joined.components().count(), folder.components().count() + path.split('/').count());
            }
        }
    }
}
