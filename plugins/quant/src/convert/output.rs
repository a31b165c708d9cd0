//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{PluginError, Result};

use crate::error::{codes, unwritable};

/// Bytes that are gathered before they are written.
pub(crate) const BUFFER: usize = 1 << 20;

/// Writes a file under another name beside its place, and renames it once it is safe on the disk. Returns its size.
///
/// # Errors
/// Those of `write`; `write-failed`. Nothing is left behind then.
pub(crate) fn whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<u64> {
    let (draft, file) = begin(path)?;
    let draft = Draft { path: draft, kept: false };
    let mut out = BufWriter::with_capacity(BUFFER, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(|e| unwritable(path, e.error()))?;
    file.sync_all().map_err(|e| unwritable(path, &e))?;
    let bytes = file.metadata().map_err(|e| unwritable(path, &e))?.len();
    draft.keep(path)?;
    Ok(bytes)
}

/// Begins the file that is to appear as `path`: empty, beside its place, under another name, and locked as long as it is
/// open.
///
/// # Errors
/// `write-failed`, also when another run writes it.
pub(crate) fn begin(path: &Path) -> Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else {
        return Err(PluginError::new(codes::WRITE_FAILED, format!("{} names no file", path.display())));
    };
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(".part");
    let draft = path.with_file_name(draft);
    // What a run that was killed left is written over; that of one that lives is not.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&draft);
    let file = file.map_err(|e| unwritable(&draft, &e))?;
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => {
            PluginError::new(codes::WRITE_FAILED, format!("{}: another run writes this file", path.display()))
        }
        TryLockError::Error(e) => unwritable(&draft, &e),
    })?;
    file.set_len(0).map_err(|e| unwritable(&draft, &e))?;
    Ok((draft, file))
}

/// Runs what writes a file through [`Write`], and lets what it refuses through whole: `run` is given what turns a
/// refusal into an error of input and output.
///
/// # Errors
/// What was refused; `write-failed`.
pub(crate) fn stream(
    path: &Path,
    run: impl FnOnce(&mut dyn FnMut(PluginError) -> io::Error) -> io::Result<()>,
) -> Result<()> {
    let mut refused = None;
    let result = run(&mut |error| {
        let stopped = io::Error::other(error.to_string());
        refused = Some(error);
        stopped
    });
    match (result, refused) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(unwritable(path, &error)),
        (Ok(()), None) => Ok(()),
    }
}

/// A file that goes away unless it is kept.
struct Draft {
    path: PathBuf,
    kept: bool,
}

impl Draft {
    fn keep(mut self, path: &Path) -> Result<()> {
        fs::rename(&self.path, path).map_err(|e| unwritable(path, &e))?;
        self.kept = true;
        // The name itself is safe once its folder is; not every system can sync a folder.
        if cfg!(unix)
            && let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty())
        {
            let synced = File::open(folder).and_then(|f| f.sync_all());
            synced.map_err(|e| unwritable(folder, &e))?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // Of a file that was never made there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let error = whole(&path, |out| {
            out.write_all(b"half").unwrap();
            Err(PluginError::cancelled())
        });
        assert_eq!(error.unwrap_err().code, "cancelled");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        // A killed run's draft is in nobody's way; one that is being written is nobody else's.
        fs::write(folder.path().join(".a.gguf.part"), "left by somebody").unwrap();
        let written = whole(&path, |out| {
            out.write_all(b"whole").unwrap();
            assert_eq!(whole(&path, |_| Ok(())).unwrap_err().code, "write-failed");
            Ok(())
        });
        assert_eq!(written.unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(whole(&folder.path().join("no/a"), |_| Ok(())).unwrap_err().code, "write-failed");
    }
}
