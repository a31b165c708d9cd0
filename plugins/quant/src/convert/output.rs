//! Files that appear whole or not at all, and that a run that was killed left for the next one to go on with.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pajamas_plugin_api::{PluginError, Result};

use super::journal::{self, Journal};
use super::sum::Sum;
use crate::error::{codes, unwritable};

/// Bytes that are gathered before they are written.
pub(crate) const BUFFER: usize = 1 << 20;

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Its size.
    pub bytes: u64,
    /// Those of its bytes that a run that was killed had written.
    pub resumed: u64,
    /// Its SHA-256, where it was taken.
    pub sha256: Option<String>,
}

/// How far a file is that is being written, for who makes what comes next.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    at: Rc<Cell<u64>>,
    kept: u64,
}

impl Place {
    /// Whether the next bytes are there already: whatever is written in their place changes nothing.
    pub fn has(&self, bytes: u64) -> bool {
        self.at.get() + bytes <= self.kept
    }

    /// Goes over the next bytes, which are there already.
    ///
    /// # Errors
    /// Those of `out`, which is the file or counts what goes to it.
    pub fn skip(&self, mut bytes: u64, out: &mut dyn Write) -> io::Result<()> {
        let nothing = [0; 1 << 16];
        while bytes > 0 {
            let some = bytes.min(nothing.len() as u64);
            out.write_all(&nothing[..some as usize])?;
            bytes -= some;
        }
        Ok(())
    }
}

/// The file, of which the first bytes may be there already: they are not written again.
struct Output<'j> {
    file: BufWriter<File>,
    place: Place,
    /// Those who are told how much is written.
    journal: Option<&'j Journal>,
    sum: Option<&'j Sum>,
    /// How much was written when they were last told.
    told: u64,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.place.at.get();
        let there = self.place.kept.saturating_sub(at).min(bytes.len() as u64);
        let written = if there > 0 { there as usize } else { self.file.write(bytes)? };
        let at = at + written as u64;
        self.place.at.set(at);
        if self.journal.is_some() && at >= self.told.max(self.place.kept) + BUFFER as u64 {
            self.file.flush()?;
            self.told = at;
            self.journal.inspect(|journal| journal.note(|| at.into()));
            self.sum.inspect(|sum| sum.note(at));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file under another name beside its place, and renames it once it is safe on the disk. Returns its size.
///
/// # Errors
/// Those of `write`; `write-failed`. Nothing is left behind then.
pub(crate) fn whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<u64> {
    resumable(path, None, |out, _| write(out)).map(|written| written.bytes)
}

/// As [`whole`], and goes on where a run of the same `identity` was killed. `write` gives all bytes, those that
/// [`Place::has`] in any form.
///
/// # Errors
/// As for [`whole`].
pub(crate) fn resumable(
    path: &Path,
    identity: Option<&str>,
    write: impl FnOnce(&mut dyn Write, &Place) -> Result<()>,
) -> Result<Written> {
    let (draft, mut file) = open(path)?;
    let draft = Draft { path: draft, kept: false };
    let failed = |e: io::Error| unwritable(path, &e);
    let notes = journal::beside(&draft.path);
    let there = file.metadata().map_err(failed)?.len();
    let kept = identity.and_then(|identity| journal::read(&notes, identity)?.as_u64());
    let kept = kept.filter(|kept| *kept <= there).unwrap_or(0);
    if kept == 0 {
        // Before what it speaks of is written over.
        let _ = fs::remove_file(&notes);
    }
    file.set_len(kept).map_err(failed)?;
    file.seek(SeekFrom::Start(kept)).map_err(failed)?;
    let journal = match identity {
        Some(identity) => {
            let file = file.try_clone().map_err(failed)?;
            Some(Journal::begin(notes, identity, vec![file]))
        }
        None => None,
    };
    let sum = identity.and_then(|_| Sum::begin(&draft.path));
    let place = Place { at: Rc::default(), kept };
    let file = BufWriter::with_capacity(BUFFER, file);
    let mut out =
        Output { file, place: place.clone(), journal: journal.as_ref(), sum: sum.as_ref(), told: 0 };
    write(&mut out, &place)?;
    let file = out.file.into_inner().map_err(|e| unwritable(path, e.error()))?;
    let bytes = file.metadata().map_err(failed)?.len();
    sum.as_ref().inspect(|sum| sum.note(bytes));
    file.sync_all().map_err(failed)?;
    draft.keep(path)?;
    Ok(Written { bytes, resumed: kept, sha256: sum.and_then(Sum::finish) })
}

/// Begins the file that is to appear as `path`: beside its place, under another name, and locked as long as it is open. What a
/// run that was killed left is in it.
///
/// # Errors
/// `write-failed`, also when another run writes it.
pub(crate) fn open(path: &Path) -> Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else {
        return Err(PluginError::new(codes::WRITE_FAILED, format!("{} names no file", path.display())));
    };
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(".part");
    let draft = path.with_file_name(draft);
    // What a run that was killed left is gone on with, or written over; that of one that lives is not.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&draft);
    let file = file.map_err(|e| unwritable(&draft, &e))?;
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => {
            PluginError::new(codes::WRITE_FAILED, format!("{}: another run writes this file", path.display()))
        }
        TryLockError::Error(e) => unwritable(&draft, &e),
    })?;
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

    #[test]
    fn what_a_killed_run_of_the_same_made_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, draft) = (folder.path().join("a"), folder.path().join(".a.part"));
        let left = |identity: &str, bytes: u64| {
            fs::write(&draft, b"abcdXX").unwrap();
            journal::write(&journal::beside(&draft), identity, &bytes.into()).unwrap();
        };
        let run = || {
            let mut made = 0;
            let written = resumable(&path, Some("same"), |out, place| {
                for part in [b"ab", b"cd", b"ef", b"gh"] {
                    if place.has(2) {
                        place.skip(2, out).unwrap();
                        continue;
                    }
                    made += 1;
                    out.write_all(part).unwrap();
                }
                Ok(())
            });
            assert_eq!(fs::read(&path).unwrap(), b"abcdefgh");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
            (made, written.unwrap().resumed)
        };
        assert_eq!(run(), (4, 0));
        left("same", 4);
        assert_eq!(run(), (2, 4));
        // The part that was begun is made again, but its first half not written again.
        left("same", 5);
        fs::write(&draft, b"abcde").unwrap();
        assert_eq!(run(), (2, 5));
        // Of another run, more than there is, and what cannot be read, count for nothing.
        left("another", 4);
        assert_eq!(run(), (4, 0));
        left("same", 7);
        assert_eq!(run(), (4, 0));
        left("same", 4);
        fs::write(journal::beside(&draft), "{\"identity\": \"sa").unwrap();
        assert_eq!(run(), (4, 0));
    }
}
