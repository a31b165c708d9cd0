//! One file: what came stays when a connection breaks, and nothing counts before its sum is right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use super::cache::Cache;
use super::http::{Answer, Failure, Http, Tries, cancelled, header};
use super::listing::{Entry, file_path};
use super::repository::Repository;
use super::sum::Running;
use crate::error::{Error, Result};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Told how many bytes of the file are there; stops it by an error.
pub(super) type Told<'t> = dyn FnMut(u64) -> Result<()> + 't;

/// A file that is to be fetched.
pub(super) struct Download<'d> {
    pub http: &'d Http,
    pub cache: &'d Cache,
    pub repository: &'d Repository,
    pub commit: &'d str,
    pub entry: &'d Entry,
}

impl Download<'_> {
    /// Fetches the content, unless it is there, and returns how many bytes came over the network.
    ///
    /// # Errors
    /// `download-failed` when the connection broke too often, with what came kept; `download-corrupt` with nothing kept;
    /// `cancelled`; those of the hub; `disk-full`, `io`.
    pub fn run(&self, told: &mut Told<'_>) -> Result<u64> {
        let etag = self.etag();
        let _lock = self.cache.lock(etag, self.http.cancel())?;
        if self.cache.has(etag, self.entry.size) {
            return Ok(0);
        }
        let mut part = Part::open(self.cache.incomplete(etag), self.entry, told)?;
        let mut came = 0;
        loop {
            let went_on = part.have > 0;
            self.complete(&mut part, &mut came, told)?;
            if part.is_right(self.entry) {
                part.keep(&self.cache.blob(etag))?;
                return Ok(came);
            }
            part.restart(self.entry)?;
            // Of what an earlier run left nobody knows how it came about: the whole is asked for once.
            if !went_on {
                let _ = fs::remove_file(&part.path);
                return Err(Error::new("download-corrupt", format!("{}: what came is not what {} lists", self.entry.path, self.repository))
                    .help("try again; if it stays so, something between here and the hub changes files, or HF_ENDPOINT is a bad mirror"));
            }
        }
    }

    fn etag(&self) -> &str {
        self.entry.etag.as_deref().unwrap_or_default()
    }

    /// Asks until everything is there.
    fn complete(&self, part: &mut Part, came: &mut u64, told: &mut Told<'_>) -> Result<()> {
        let mut tries = Tries::default();
        let (mut most, mut tag) = (part.have, None);
        while self.entry.size != Some(part.have) {
            let before = part.have;
            let done = self.piece(part, &mut tag, came, told);
            let brought = part.have > most;
            most = most.max(part.have);
            match done {
                Ok(()) => break,
                Err(failure) => {
                    tracing::debug!("{}: {} bytes, {} before", self.entry.path, part.have, before);
                    self.http.again(&mut tries, brought, failure).map_err(|e| self.failed(e, part.have))?;
                }
            }
        }
        Ok(())
    }

    /// Says of which file the hub had no more, and that what came is not lost.
    fn failed(&self, error: Error, have: u64) -> Error {
        let error = match error.code() {
            "hub-unavailable" => Error::new("download-failed", error.message())
                .help(format!("run it again: it goes on after the {have} bytes that are here")),
            _ => error,
        };
        error.within(&self.entry.path)
    }

    /// Asks for the rest, and takes what comes.
    fn piece(
        &self,
        part: &mut Part,
        tag: &mut Option<String>,
        came: &mut u64,
        told: &mut Told<'_>,
    ) -> Result<(), Failure> {
        let path = file_path(self.repository, self.commit, &self.entry.path);
        let answer = self.http.get(&path, part.have)?;
        self.place(part, tag, &answer)?;
        let mut body = answer.response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.http.broken(&e)),
            };
            *came += read as u64;
            part.add(&chunk[..read])?;
            if self.entry.size.is_some_and(|size| part.have > size) {
                // The sum says what is wrong.
                return Ok(());
            }
            told(part.have)?;
            self.http.cancel().check().map_err(|_| cancelled())?;
        }
        match self.entry.size {
            Some(size) if part.have < size => Err(self.http.broken(&io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Sees where what comes belongs, and begins anew where it does not go on with what is there.
    fn place(&self, part: &mut Part, tag: &mut Option<String>, answer: &Answer) -> Result<(), Failure> {
        let headers = answer.response.headers();
        // The hub's own name of the content: the servers that it sends to may each have another.
        let now = answer.etag();
        let changed = tag.as_ref().zip(now.as_ref()).is_some_and(|(before, now)| before != now);
        *tag = now;
        let range = header(headers, "content-range");
        let follows = match answer.response.status().as_u16() {
            206 => range.and_then(range_of).is_some_and(|(from, all)| {
                from == part.have && self.entry.size.zip(all).is_none_or(|(size, all)| size == all)
            }),
            // The server does not know of ranges: all comes again.
            200 => {
                part.restart(self.entry)?;
                return Ok(());
            }
            _ => false,
        };
        if follows && !changed {
            return Ok(());
        }
        // What is there does not belong to what the server has.
        part.restart(self.entry)?;
        let message = format!("a range that was not asked for ({})", range.unwrap_or("none"));
        Err(Failure::Again(Error::new("hub-unavailable", message), None))
    }
}

/// The first byte and the size of the whole: `bytes 5-9/10`.
fn range_of(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, all) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, all.trim().parse().ok()))
}

/// What came so far, with its sum.
struct Part {
    path: PathBuf,
    file: File,
    have: u64,
    sum: Running,
}

impl Part {
    /// Opens what an earlier run left, if any.
    fn open(path: PathBuf, entry: &Entry, told: &mut Told<'_>) -> Result<Self> {
        let failed = |e: io::Error| failed(&path, &e);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        let mut sum = Running::of(entry);
        if entry.size.is_none_or(|size| there > size) {
            file.set_len(0).map_err(failed)?;
            return Ok(Self { path, file, have: 0, sum });
        }
        let (mut have, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk).map_err(failed)? {
                0 => break,
                read => {
                    sum.add(&chunk[..read]);
                    have += read as u64;
                    told(have)?;
                }
            }
        }
        Ok(Self { path, file, have, sum })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed(&self.path, &e))?;
        self.sum.add(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, entry: &Entry) -> Result<()> {
        let begin = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))
        };
        begin(&mut self.file).map_err(|e| failed(&self.path, &e))?;
        (self.have, self.sum) = (0, Running::of(entry));
        Ok(())
    }

    /// Whether size and sum are those of the list.
    fn is_right(&mut self, entry: &Entry) -> bool {
        let sum = std::mem::replace(&mut self.sum, Running::None);
        entry.size.is_none_or(|size| size == self.have) && sum.is(entry.etag.as_deref().unwrap_or_default())
    }

    /// Gives it its name, once it is on the disk.
    fn keep(&self, blob: &std::path::Path) -> Result<()> {
        self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).map_err(|e| failed(blob, &e))
    }
}

fn failed(path: &std::path::Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new("disk-full", format!("{}: {error}", path.display()))
                .help("make room and run it again: it goes on where it stopped")
        }
        _ => Error::io(path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range_of("bytes 5-9/*"), Some((5, None)));
        for wrong in ["", "bytes */10", "items 5-9/10", "bytes 5", "bytes -1-9/10"] {
            assert_eq!(range_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_an_earlier_run_left_is_gone_on_with_unless_it_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.incomplete");
        fs::write(&path, "ab").unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let entry = Entry { path: "x".into(), size: Some(3), etag: Some(sum.into()) };
        let mut part = Part::open(path.clone(), &entry, &mut |_| Ok(())).unwrap();
        assert_eq!(part.have, 2);
        part.add(b"c").unwrap();
        assert!(part.is_right(&entry));
        part.restart(&entry).unwrap();
        part.add(b"abd").unwrap();
        assert!(!part.is_right(&entry));
        assert_eq!(fs::read(&path).unwrap(), b"abd");
        fs::write(&path, "abcd").unwrap();
        assert_eq!(Part::open(path, &entry, &mut |_| Ok(())).unwrap().have, 0);
    }
}
