//! Where files of repositories lie: the layout of `huggingface_hub`, which other programs share.
//!
//! ```text
//! models--org--name/
//!   blobs/SUM                   each content once, named by its sum
//!   blobs/SUM.incomplete        what came of it so far
//!   refs/main                   the commit that the branch was at
//!   snapshots/COMMIT/PATH       links to contents
//! .locks/models--org--name/SUM.lock
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::Cancel;

use super::names::is_commit;
use super::repository::{Repository, is_id};
use crate::error::{Error, Result};

const PREFIX: &str = "models--";
const SNAPSHOTS: &str = "snapshots";
/// How often a lock that another process has is tried.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The folder of one repository.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

/// A file of which this process is the only writer, until it is dropped.
pub(super) struct Lock {
    _file: File,
}

/// What a folder of the cache was fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `org/name`.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// The path in it; empty for the whole.
    pub file: String,
}

impl Origin {
    /// What lies at `path`, if it is in a snapshot of the cache's layout. Looks at the path only.
    pub fn of(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => Some(""),
            })
            .collect::<Option<_>>()?;
        let at = parts.windows(3).rposition(|three| {
            three[0].starts_with(PREFIX) && three[1] == SNAPSHOTS && is_commit(three[2])
        })?;
        let repository = parts[at].strip_prefix(PREFIX)?.replacen("--", "/", 1);
        is_id(&repository).then(|| Self {
            repository,
            commit: parts[at + 2].into(),
            file: parts[at + 3..].join("/"),
        })
    }

    /// The repository's name without whoever it belongs to.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

impl Cache {
    pub fn new(root: &Path, repository: &Repository) -> Self {
        let name = format!("{PREFIX}{}", repository.id.replace('/', "--"));
        Self { locks: root.join(".locks").join(&name), folder: root.join(name) }
    }

    /// The content of this name.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// What came of a content so far.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The folder of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join(SNAPSHOTS).join(commit)
    }

    /// Whether a content is there, of the size that it must have if that is known.
    pub fn has(&self, etag: &str, size: Option<u64>) -> bool {
        fs::metadata(self.blob(etag))
            .is_ok_and(|about| about.is_file() && size.is_none_or(|size| size == about.len()))
    }

    /// Makes the folder that contents lie in.
    pub fn prepare(&self) -> Result<PathBuf> {
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(|e| Error::io(&blobs, &e))?;
        Ok(blobs)
    }

    /// The commit that a revision was at when it was last fetched.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let mut text = String::new();
        let file = File::open(self.reference(revision)).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Writes down which commit a revision is at.
    ///
    /// # Errors
    /// `io`.
    pub fn write_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        let write = || {
            let folder = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().suffix(".tmp").tempfile_in(folder)?;
            file.write_all(commit.as_bytes())?;
            share(file.path())?;
            file.persist(&path).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|e: io::Error| Error::io(&path, &e))
    }

    /// Lets a path of a commit lead to a content that is there. Who looks at it meanwhile finds what was there before, or this.
    ///
    /// # Errors
    /// `io`.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let (snapshot, blob) = (self.snapshot(commit), self.blob(etag));
        let pointer = snapshot.join(path);
        let up = "../".repeat(2 + path.split('/').count() - 1);
        let target = format!("{up}blobs/{etag}");
        if fs::read_link(&pointer).is_ok_and(|now| now == Path::new(&target)) {
            return Ok(());
        }
        let write = || {
            let folder = pointer.parent().unwrap_or(&snapshot);
            fs::create_dir_all(folder)?;
            let name = |path: &Path| link(Path::new(&target), &blob, path);
            let made = tempfile::Builder::new().suffix(".tmp").make_in(folder, name)?;
            made.into_temp_path().persist(&pointer).map_err(|e| e.error)
        };
        write().map_err(|e: io::Error| Error::io(&pointer, &e))
    }

    /// Takes the lock of a content. Another process that fetches it is waited for.
    ///
    /// # Errors
    /// `cancelled`, `io`.
    pub fn lock(&self, etag: &str, cancel: &Cancel) -> Result<Lock> {
        let path = self.locks.join(format!("{etag}.lock"));
        let failed = |e: io::Error| Error::io(&path, &e);
        fs::create_dir_all(&self.locks).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) => cancel.check()?,
                // Some networks' file systems know no locks. Whoever else fetches the same is found out by the sum.
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Lock { _file: file });
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// The paths of a commit's files that are there, with `/`.
    pub fn paths(&self, commit: &str) -> Vec<String> {
        let mut paths = Vec::new();
        below(&self.snapshot(commit), "", 0, &mut paths);
        paths.sort();
        paths
    }
}

/// The deepest folder that is looked into.
const DEEPEST: usize = 8;

fn below(folder: &Path, prefix: &str, depth: usize, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        match fs::metadata(entry.path()) {
            Ok(about) if about.is_dir() && depth < DEEPEST => {
                below(&entry.path(), &format!("{path}/"), depth + 1, paths)
            }
            Ok(about) if about.is_file() => paths.push(path),
            _ => {}
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// Links by name need a right that few have there.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, pointer: &Path) -> io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(drop))
}

/// Temporary files are for their owner alone, the cache for whoever the umask lets.
#[cfg(unix)]
fn share(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = fs::metadata(path.parent().unwrap_or(path))?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(folder & 0o666))
}

#[cfg(not(unix))]
fn share(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache() -> (tempfile::TempDir, Cache) {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path(), &Repository::read("org/name").unwrap().unwrap());
        cache.prepare().unwrap();
        (root, cache)
    }

    #[test]
    fn paths_of_a_commit_lead_to_contents() {
        let (root, cache) = cache();
        fs::write(cache.blob("abc"), "content").unwrap();
        for path in ["config.json", "1_Pooling/config.json", "config.json"] {
            cache.link(COMMIT, path, "abc").unwrap();
            assert_eq!(fs::read_to_string(cache.snapshot(COMMIT).join(path)).unwrap(), "content");
        }
        let pointer = root.path().join(format!("models--org--name/snapshots/{COMMIT}/1_Pooling/config.json"));
        #[cfg(unix)]
        assert_eq!(fs::read_link(pointer).unwrap(), Path::new("../../../blobs/abc"));
        #[cfg(not(unix))]
        assert!(pointer.is_file());
        fs::write(cache.blob("def"), "other").unwrap();
        cache.link(COMMIT, "config.json", "def").unwrap();
        assert_eq!(fs::read_to_string(cache.snapshot(COMMIT).join("config.json")).unwrap(), "other");
        assert_eq!(cache.paths(COMMIT), ["1_Pooling/config.json", "config.json"]);
        assert!(cache.has("abc", Some(7)) && cache.has("abc", None));
        assert!(!cache.has("abc", Some(8)) && !cache.has("no", None));
    }

    #[test]
    fn a_path_is_there_for_everybody_while_several_link_it() {
        let (_root, cache) = cache();
        fs::write(cache.blob("abc"), "content").unwrap();
        fs::write(cache.blob("def"), "content").unwrap();
        let runs = |etag| {
            for round in 0..200 {
                let path = format!("{round}.json");
                cache.link(COMMIT, &path, etag).unwrap();
                assert!(cache.snapshot(COMMIT).join(path).is_file());
            }
        };
        std::thread::scope(|scope| {
            ["abc", "abc", "def"].map(|etag| scope.spawn(move || runs(etag))).map(drop)
        });
        assert_eq!(cache.paths(COMMIT).len(), 200, "nothing else is left");
    }

    #[test]
    fn a_revision_is_found_again() {
        let (root, cache) = cache();
        assert_eq!((cache.commit("main"), cache.commit(COMMIT).as_deref()), (None, Some(COMMIT)));
        for revision in ["main", "refs/pr/1", COMMIT] {
            cache.write_commit(revision, COMMIT).unwrap();
            assert_eq!(cache.commit(revision).as_deref(), Some(COMMIT));
        }
        let refs = root.path().join("models--org--name/refs");
        assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), COMMIT);
        assert_eq!(fs::read_dir(&refs).unwrap().count(), 2, "a commit needs none");
        fs::write(refs.join("main"), "../../elsewhere").unwrap();
        assert_eq!(cache.commit("main"), None);
    }

    #[test]
    fn what_lies_in_a_snapshot_knows_where_it_is_from() {
        let of = |path: &str| Origin::of(Path::new(path)).map(|o| (o.repository, o.file));
        let base = format!("/c/hub/models--org--a-name/snapshots/{COMMIT}");
        assert_eq!(of(&base), Some(("org/a-name".into(), String::new())));
        assert_eq!(of(&format!("{base}/q/x.gguf")), Some(("org/a-name".into(), "q/x.gguf".into())));
        assert_eq!(of(&format!("/c/models--gpt2/snapshots/{COMMIT}")), Some(("gpt2".into(), String::new())));
        for other in [
            "/c/models--org--name",
            "/c/models--org--name/snapshots/main",
            "/models/name",
            "models----/snapshots/x",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(Origin::of(Path::new(&base)).unwrap().name(), "a-name");
    }

    #[test]
    fn one_process_at_a_time_writes_a_content() {
        let (_root, cache) = cache();
        let first = cache.lock("abc", &Cancel::new()).unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(cache.lock("abc", &cancel).err().unwrap().code(), "cancelled");
        drop(cache.lock("def", &cancel).unwrap());
        drop(first);
        cache.lock("abc", &cancel).unwrap();
    }
}
