//! What of a file that is being written is safe on the disk, written down beside it as it grows: a run that is killed is gone
//! on with from there.
//!
//! A thread of its own waits for the disk, so that who writes does not; what comes while it waits is not written down.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

/// The longest journal that is read.
const MOST_BYTES: u64 = 16 << 20;

/// A journal that is being kept. It ends with the run, however that ends, unless the run is killed.
pub(crate) struct Journal {
    sender: Option<SyncSender<Value>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// The journal's name beside a file.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// What a run of this identity was known to have done; `None` when none was, or another.
pub(crate) fn read(path: &Path, identity: &str) -> Option<Value> {
    let about = fs::metadata(path).ok().filter(|about| about.len() <= MOST_BYTES)?;
    let mut noted: Value = about.is_file().then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())??;
    (noted.get("identity")? == identity).then(|| noted["done"].take())
}

/// Writes down what is done.
///
/// # Errors
/// Those of the system.
pub(crate) fn write(path: &Path, identity: &str, done: &Value) -> io::Result<()> {
    let new = path.with_extension("json.new");
    fs::write(&new, json!({ "identity": identity, "done": done }).to_string())?;
    fs::rename(&new, path)
}

impl Journal {
    /// Begins one about files that belong together.
    pub fn begin(path: PathBuf, identity: &str, files: Vec<File>) -> Self {
        let (sender, receiver) = sync_channel(1);
        let (place, identity) = (path.clone(), identity.to_owned());
        let thread = thread::Builder::new().name("journal".into());
        let thread = thread.spawn(move || keep(&place, &identity, &files, &receiver)).ok();
        Self { sender: Some(sender), thread, path }
    }

    /// Tells what was given to the system, unless the disk is still busy with what was told before.
    pub fn note(&self, done: impl FnOnce() -> Value) {
        if let Some(sender) = &self.sender {
            // Nobody waits for it: then it is left to the next one.
            let _ = sender.try_send(done());
        }
    }
}

fn keep(path: &Path, identity: &str, files: &[File], told: &Receiver<Value>) {
    for done in told {
        // What could not be noted is made again by the next run; the writing itself says what is wrong with the disk.
        let synced = files.iter().try_for_each(File::sync_data);
        let _ = synced.and_then(|()| write(path, identity, &done));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for path in [&self.path, &self.path.with_extension("json.new")] {
            // It may never have been written.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_by_the_same_run_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".a.part");
        let path = beside(&file);
        assert!(path.ends_with(".a.part.json"));
        let journal = Journal::begin(path.clone(), "me", vec![File::create(&file).unwrap()]);
        while !path.exists() {
            journal.note(|| json!([1, 2]));
            thread::yield_now();
        }
        assert_eq!(read(&path, "me"), Some(json!([1, 2])));
        assert_eq!(read(&path, "you"), None);
        drop(journal);
        assert!(!path.exists());
        for damaged in ["", "[]", "{\"identity\": 1}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path, "me"), None, "{damaged}");
        }
    }
}
