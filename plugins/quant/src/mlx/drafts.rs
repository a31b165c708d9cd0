//! Files of a folder that appear together, each whole, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Result;
use serde_json::Value;

use crate::convert::journal::{self, Journal};
use crate::convert::output;
use crate::error::unwritable;

/// The name of what is noted of files that are being written.
const NOTES: &str = ".mlx.part.json";

/// Files under other names beside their places, until they are kept. What is not kept goes away.
#[derive(Debug)]
pub(super) struct Drafts {
    folder: PathBuf,
    made: Option<PathBuf>,
    files: Vec<Draft>,
    /// Whether every file that was begun had been written at by a run that was killed.
    old: bool,
}

#[derive(Debug)]
struct Draft {
    path: PathBuf,
    place: PathBuf,
    file: File,
}

impl Drafts {
    /// Prepares a folder, which is made if it is not there.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn new(folder: &Path) -> Result<Self> {
        let made = (!folder.exists()).then(|| folder.to_path_buf());
        fs::create_dir_all(folder).map_err(|e| unwritable(folder, &e))?;
        Ok(Self { folder: folder.to_path_buf(), made, files: Vec::new(), old: true })
    }

    /// Begins a file of a known size. Files appear in the order in which they were begun.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn begin(&mut self, name: &str, bytes: u64) -> Result<&File> {
        let place = self.folder.join(name);
        let (path, file) = output::open(&place)?;
        let failed = |e: io::Error| unwritable(&self.folder.join(name), &e);
        self.old &= file.metadata().is_ok_and(|about| about.len() == bytes);
        file.set_len(bytes).map_err(failed)?;
        self.files.push(Draft { path, place, file });
        Ok(&self.files[self.files.len() - 1].file)
    }

    /// What a run of the same identity, which was killed, had noted of the files that were begun so far.
    pub fn noted(&self, identity: Option<&str>) -> Option<Value> {
        let notes = self.folder.join(NOTES);
        let noted = identity.filter(|_| self.old).and_then(|identity| journal::read(&notes, identity));
        if noted.is_none() {
            // Before what it speaks of is written over.
            let _ = fs::remove_file(notes);
        }
        noted
    }

    /// Begins to note what of these files is safe on the disk.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn journal(&self, identity: &str) -> Result<Journal> {
        let file = |draft: &Draft| draft.file.try_clone().map_err(|e| unwritable(&draft.place, &e));
        let files = self.files.iter().map(file).collect::<Result<_>>()?;
        Ok(Journal::begin(self.folder.join(NOTES), identity, files))
    }

    /// The file that was begun as this one.
    pub fn file(&self, number: usize) -> (&File, &Path) {
        (&self.files[number].file, &self.files[number].place)
    }

    /// Sends what was written to the file that was begun as this one to the disk.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn sync(&self, number: usize) -> Result<()> {
        let (file, place) = self.file(number);
        file.sync_data().map_err(|e| unwritable(place, &e))
    }

    /// Makes the files safe on the disk, and gives them their names.
    ///
    /// # Errors
    /// `write-failed`. No file is left behind then.
    pub fn keep(mut self) -> Result<()> {
        for draft in &self.files {
            draft.file.sync_all().map_err(|e| unwritable(&draft.place, &e))?;
        }
        for draft in &mut self.files {
            fs::rename(&draft.path, &draft.place).map_err(|e| unwritable(&draft.place, &e))?;
            draft.path.clone_from(&draft.place);
        }
        // The names themselves are safe once their folder is; not every system can sync a folder.
        if cfg!(unix) {
            let synced = File::open(&self.folder).and_then(|f| f.sync_all());
            synced.map_err(|e| unwritable(&self.folder, &e))?;
        }
        self.files.clear();
        self.made = None;
        Ok(())
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        // What cannot be removed was never made, or was removed by somebody else.
        for draft in &self.files {
            let _ = fs::remove_file(&draft.path);
        }
        if let Some(folder) = &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Writes bytes to a place in a file, from any thread.
///
/// # Errors
/// Those of the system.
pub(super) fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], at + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_filled_or_left_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let mut drafts = Drafts::new(&folder).unwrap();
        let file = drafts.begin("x", 4).unwrap();
        write_at(file, b"cd", 2).unwrap();
        write_at(drafts.file(0).0, b"ab", 0).unwrap();
        assert!(!folder.join("x").exists());
        drop(drafts);
        assert!(!folder.exists());

        let mut drafts = Drafts::new(&folder).unwrap();
        write_at(drafts.begin("x", 4).unwrap(), b"abcd", 0).unwrap();
        drafts.begin("y", 0).unwrap();
        drafts.keep().unwrap();
        assert_eq!(fs::read(folder.join("x")).unwrap(), b"abcd");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);

        fs::create_dir(folder.join("z")).unwrap();
        let mut drafts = Drafts::new(&folder).unwrap();
        drafts.begin("w", 0).unwrap();
        drafts.begin("z", 0).unwrap();
        assert_eq!(drafts.keep().unwrap_err().code, "write-failed");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "a folder stands where a file should");
    }
}
