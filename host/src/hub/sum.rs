//! Sums of what comes, as it comes.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::listing::{Entry, Sum};

/// The sum of a file's beginning.
pub(super) enum Running {
    Sha256(Sha256),
    Git(Sha1),
    None,
}

impl Running {
    /// Of nothing yet.
    pub fn of(entry: &Entry) -> Self {
        match entry.sum() {
            Sum::Sha256 => Self::Sha256(Sha256::new()),
            Sum::Git => {
                let header = format!("blob {}\0", entry.size.unwrap_or_default());
                Self::Git(Sha1::new_with_prefix(header))
            }
            Sum::None => Self::None,
        }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Git(sum) => sum.update(bytes),
            Self::None => {}
        }
    }

    /// Whether it came to what names the file; what has no sum is believed.
    pub fn is(self, etag: &str) -> bool {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Sha256(sum) => hex(&sum.finalize()) == etag,
            Self::Git(sum) => hex(&sum.finalize()) == etag,
            Self::None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_git_and_of_sha256() {
        let of = |etag: &str, size| Entry { path: "x".into(), size, etag: Some(etag.into()) };
        let is = |entry: &Entry, bytes: &[u8]| {
            let mut sum = Running::of(entry);
            bytes.iter().for_each(|byte| sum.add(&[*byte]));
            sum.is(entry.etag.as_deref().unwrap())
        };
        // `printf 'abc' | git hash-object --stdin`
        let git = of("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f", Some(3));
        assert!(is(&git, b"abc") && !is(&git, b"abd"));
        let sha256 = of("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", None);
        assert!(is(&sha256, b"abc") && !is(&sha256, b"ab"));
        assert!(is(&of("a-mirror's-own", Some(3)), b"abc"));
    }
}
