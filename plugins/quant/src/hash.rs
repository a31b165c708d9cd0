//! Hashes as they are written down.

use sha2::{Digest, Sha256};

/// SHA-256 of parts one after the other, in lower-case hexadecimal.
pub(crate) fn of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hexadecimal(hash)
}

/// A finished hash, in lower-case hexadecimal.
pub(crate) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
