//! One run at a time into one folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The lock's name in the folder: there while a run writes.
const NAME: &str = ".pajamas-quantize.lock";

/// A folder that is written into. The system takes the lock back when the process ends, however it ends.
pub(crate) struct Busy {
    file: File,
    path: PathBuf,
    /// The folder, if it was made for this run.
    made: Option<PathBuf>,
}

impl Busy {
    /// Makes the folder if need be, and takes its lock.
    ///
    /// # Errors
    /// `output-busy` when another run has it; `io`.
    pub fn take(folder: &Path) -> Result<Self> {
        let made = (!folder.exists()).then(|| folder.to_owned());
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        let path = folder.join(NAME);
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open().map_err(|e| Error::io(&path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path, made }),
            Err(TryLockError::WouldBlock) => {
                let message = format!("{}: another run writes into this folder", folder.display());
                Err(Error::new("output-busy", message).help("wait for its end, or name another folder"))
            }
            Err(TryLockError::Error(e)) => Err(Error::io(&path, &e)),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // The name goes before the lock: who opens it from now on opens another. What cannot be removed does no harm.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
        if let Some(folder) = &self.made {
            // Only when nothing came into it.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_nothing_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new/out");
        let first = Busy::take(&folder).unwrap();
        let error = Busy::take(&folder).err().unwrap();
        assert_eq!(error.code(), "output-busy");
        drop(first);
        assert!(!folder.exists());
        drop(Busy::take(&folder).unwrap());
        fs::create_dir_all(&folder).unwrap();
        drop(Busy::take(&folder).unwrap());
        assert!(folder.exists(), "a folder that was there stays");
    }
}
