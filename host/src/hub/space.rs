//! Whether files fit a disk.

use std::path::Path;

use crate::error::{Error, Result};

/// Refuses more bytes than are free where `folder` lies. What the system does not tell is no reason to refuse.
///
/// # Errors
/// `disk-full`.
pub(super) fn check(folder: &Path, bytes: u64) -> Result<()> {
    match free(folder) {
        Some(free) if free < bytes => Err(full(folder, bytes, free)),
        _ => Ok(()),
    }
}

fn full(folder: &Path, bytes: u64, free: u64) -> Error {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let message =
        format!("{}: {:.1} GB are to come, and {:.1} GB are free", folder.display(), gb(bytes), gb(free));
    Error::new("disk-full", message).help("make room, or name a folder of a larger disk in HF_HUB_CACHE")
}

/// Bytes that this user may still write where `folder` lies.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let about = nix::sys::statvfs::statvfs(folder).ok()?;
    #[allow(clippy::useless_conversion, reason = "they have fewer bits on some systems")]
    u64::from(about.blocks_available()).checked_mul(u64::from(about.fragment_size()))
}

#[cfg(not(unix))]
fn free(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_disk_holds_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path(), 1).is_ok());
        assert!(check(Path::new("/no/such/folder"), u64::MAX).is_ok());
        let error = full(Path::new("/c"), 15_000_000_000, 2_340_000_000);
        assert_eq!(error.message(), "/c: 15.0 GB are to come, and 2.3 GB are free");
        #[cfg(unix)]
        assert_eq!(check(folder.path(), u64::MAX).unwrap_err().code(), "disk-full");
    }
}
