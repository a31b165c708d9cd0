//! The SHA-256 of a file that is being written, taken by a thread that reads behind the writer: what was written a moment ago
//! is still in memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

use crate::hash;

/// A sum that is being taken. It ends with the run, however that ends.
pub(super) struct Sum {
    sender: Sender<u64>,
    thread: JoinHandle<io::Result<String>>,
}

impl Sum {
    /// Begins that of a file; `None` where it cannot be read while it is written.
    pub fn begin(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let (sender, told) = channel();
        let thread = thread::Builder::new().name("sum".into());
        let thread = thread.spawn(move || follow(file, &told)).ok()?;
        Some(Self { sender, thread })
    }

    /// Tells that all before this byte is in the file, and stays as it is.
    pub fn note(&self, end: u64) {
        // A thread that is gone could not read the file, which is found out at the end.
        let _ = self.sender.send(end);
    }

    /// That of the whole file; `None` when it could not be read.
    pub fn finish(self) -> Option<String> {
        drop(self.sender);
        self.thread.join().ok()?.ok()
    }
}

fn follow(mut file: File, told: &Receiver<u64>) -> io::Result<String> {
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; super::output::BUFFER], 0);
    for end in told {
        while at < end {
            let some = (buffer.len() as u64).min(end - at) as usize;
            file.read_exact(&mut buffer[..some])?;
            hash.update(&buffer[..some]);
            at += some as u64;
        }
    }
    Ok(hash::hexadecimal(hash))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_sum_of_what_grew_is_that_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(Sum::begin(&path).is_none());
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7) as u8).collect();
        let mut file = File::create(&path).unwrap();
        let sum = Sum::begin(&path).unwrap();
        for part in content.chunks(999_999) {
            file.write_all(part).unwrap();
            sum.note(file.metadata().unwrap().len());
        }
        assert_eq!(sum.finish().unwrap(), hash::of(&[&content]));
        // What is told and not there has no sum.
        let sum = Sum::begin(&path).unwrap();
        sum.note(3_000_001);
        assert_eq!(sum.finish(), None);
    }
}
