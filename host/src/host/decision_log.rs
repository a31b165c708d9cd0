//! Decisions on disk, one a line: what `pajamas route replay` reads, also weeks later and after a restart.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Bytes of a file; it then becomes the one before, `NAME.1`, in whose place.
const FILE_BYTES: u64 = 64 << 20;

/// The file that decisions are added to. Any thread may add.
#[derive(Debug, Default)]
pub(super) struct DecisionLog(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    /// `None` after it could not be written: that is said once.
    file: Option<File>,
    bytes: u64,
}

impl DecisionLog {
    /// Adds a line to the file at `path`. What cannot be written is said in the log, once for each file.
    pub(super) fn add(&self, path: &Path, line: &str) {
        self.add_within(path, line, FILE_BYTES);
    }

    fn add_within(&self, path: &Path, line: &str, most: u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|open| open.path != path) {
            *open = Some(Open::new(path));
        }
        let Some(log) = &mut *open else { return };
        if log.file.is_some()
            && let Err(error) = log.add(line, most)
        {
            log.file = None;
            unwritable(path, &error);
        }
    }
}

impl Open {
    fn new(path: &Path) -> Self {
        let file = opened(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = match file {
            Ok((bytes, file)) => (bytes, Some(file)),
            Err(error) => {
                unwritable(path, &error);
                (0, None)
            }
        };
        Self { path: path.to_path_buf(), file, bytes }
    }

    fn add(&mut self, line: &str, most: u64) -> std::io::Result<()> {
        let line = format!("{line}\n");
        let more = line.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(more) > most {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            std::fs::rename(&self.path, before)?;
            (self.file, self.bytes) = (Some(opened(&self.path)?), 0);
        }
        if let Some(file) = &mut self.file {
            // In one piece, so that a reader, or a second server, finds whole lines.
            file.write_all(line.as_bytes())?;
            self.bytes = self.bytes.saturating_add(more);
        }
        Ok(())
    }
}

/// Opens a file for this user alone: what is asked may be in it.
fn opened(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn unwritable(path: &Path, error: &std::io::Error) {
    let error = Error::io(path, error);
    tracing::warn!(code = error.code(), "decisions are not kept on disk (routing.log): {}", error.message());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_a_full_file_gives_way_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, before) = (folder.path().join("decisions"), folder.path().join("decisions.1"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let log = DecisionLog::default();
        log.add_within(&path, "one", 8);
        log.add_within(&path, "two", 8);
        assert_eq!((read(&path), read(&before)), ("one\ntwo\n".to_owned(), String::new()));
        // Another program goes on where this one ended.
        let log = DecisionLog::default();
        log.add_within(&path, "three", 8);
        assert_eq!((read(&path), read(&before)), ("three\n".to_owned(), "one\ntwo\n".to_owned()));
        // What is longer than a file is a file of its own.
        log.add_within(&path, "four and more", 8);
        assert_eq!((read(&path), read(&before)), ("four and more\n".to_owned(), "three\n".to_owned()));
    }

    #[test]
    fn what_cannot_be_written_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let log = DecisionLog::default();
        log.add(folder.path(), "a folder is no file");
        let path = folder.path().join("decisions");
        log.add(&path, "one");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\n");
    }
}
