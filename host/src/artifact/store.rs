//! Files of an artifact: hashed in one streaming pass, written whole or not at all.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::FileEntry;
use crate::error::{Error, Result};

/// Large enough for the disk, small enough to stop within a few milliseconds.
const CHUNK: usize = 1 << 20;

/// Size and SHA-256 of a file. `read` is told the bytes of each chunk, and stops it by an error.
pub(super) fn digest(path: &Path, mut read: impl FnMut(u64) -> Result<()>) -> Result<(u64, String)> {
    let failed = |e: io::Error| Error::io(path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let mut chunk = vec![0; CHUNK];
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(&chunk[..n]);
                bytes += n as u64;
                read(n as u64)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok((bytes, hex(&hash.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What the manifest says about these files of `folder`: their sizes and hashes, read from disk.
///
/// # Errors
/// `file-not-found`, `io`.
pub fn describe_files<'p>(folder: &Path, paths: impl IntoIterator<Item = &'p str>) -> Result<Vec<FileEntry>> {
    paths.into_iter().map(|path| describe_file(folder, path, |_| Ok(()))).collect()
}

/// As [`describe_files`], for one file: `read` is told the bytes of each chunk, and stops it by an error.
///
/// # Errors
/// As for [`describe_files`]; those of `read`.
pub fn describe_file(folder: &Path, path: &str, read: impl FnMut(u64) -> Result<()>) -> Result<FileEntry> {
    let (bytes, sha256) = digest(&folder.join(path), read)?;
    Ok(FileEntry { path: path.to_owned(), bytes, sha256 })
}

/// Writes a file so that, whatever happens, `path` is the old file or the whole new one: under a temporary name in
/// the same folder, synced to disk, then renamed. The folder must exist.
///
/// # Errors
/// `io`, with nothing left behind.
pub fn write_whole(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Temporary files are for their owner alone, artifacts for whoever the umask lets.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.prefix(".").suffix(".tmp").tempfile_in(folder)?;
        content(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // The new name is safe only once the folder is.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    write().map_err(|e: io::Error| Error::io(path, &e))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_hash_is_that_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("abc"), "abc").unwrap();
        std::fs::write(folder.path().join("long"), vec![b'a'; 1_000_000 * 3]).unwrap();
        let files = describe_files(folder.path(), ["abc", "long"]).unwrap();
        assert_eq!(files[0].sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(files[1].bytes, 3_000_000);
        let error = describe_files(folder.path(), ["gone"]).unwrap_err();
        assert_eq!(error.code(), "file-not-found");
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, |f| f.write_all(b"old")).unwrap();
        let error = write_whole(&path, |f| {
            f.write_all(b"half of the n")?;
            Err(io::Error::other("the disk is full"))
        })
        .unwrap_err();
        assert_eq!(error.code(), "io");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
        write_whole(&path, |f| f.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
