//! The one folder that jobs read models from and write artifacts into. What a request names lies below it, wherever
//! symbolic links lead.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::text::stays_inside;
use crate::error::{Error, Result};

/// The most files and folders that are looked through for links that lead away.
const MOST_ENTRIES: usize = 10_000;

/// A folder that is not left.
#[derive(Debug)]
pub struct Folder {
    /// Without links.
    root: PathBuf,
}

impl Folder {
    /// The folder at `path`.
    ///
    /// # Errors
    /// `file-not-found` or `io` when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let root = fs::canonicalize(path).map_err(|e| Error::io(path, &e).within("`jobs.folder`"))?;
        Ok(Self { root })
    }

    /// A file or folder that is there.
    ///
    /// # Errors
    /// `path-outside` when the path, or a link on it or below it, leads out of the folder; `model-not-found`;
    /// `invalid-input` when it is no path.
    pub fn source(&self, said: &str) -> Result<PathBuf> {
        let path = self.below(said)?;
        let real = fs::canonicalize(&path).map_err(|e| unreadable(said, &e))?;
        self.holds(&real, said)?;
        self.look_through(&real, said)?;
        Ok(path)
    }

    /// A folder that may be there, or is to be made.
    ///
    /// # Errors
    /// `path-outside`, as for [`source`](Self::source); `invalid-input` when something else is there.
    pub fn target(&self, said: &str) -> Result<PathBuf> {
        let path = self.below(said)?;
        // A link that leads nowhere is there, too: what is written to it is written where it leads.
        let there = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(&self.root);
        let real = fs::canonicalize(there).map_err(|_| outside(said))?;
        self.holds(&real, said)?;
        if !real.is_dir() {
            let message = format!("`{}`: there is a file, and a folder is needed", said.escape_debug());
            return Err(Error::new("invalid-input", message).help("name another folder"));
        }
        if there == path {
            self.look_through(&real, said)?;
        }
        Ok(path)
    }

    fn below(&self, said: &str) -> Result<PathBuf> {
        if said.is_empty() || said.contains('\0') {
            let message = format!("`{}` is no path", said.escape_debug());
            return Err(Error::new("invalid-input", message).help("name what lies below `jobs.folder`"));
        }
        if stays_inside(said) { Ok(self.root.join(said)) } else { Err(outside(said)) }
    }

    fn holds(&self, real: &Path, said: &str) -> Result<()> {
        if real.starts_with(&self.root) { Ok(()) } else { Err(outside(said)) }
    }

    /// Whether no link in a folder, or in one that a link leads to, leads away.
    fn look_through(&self, real: &Path, said: &str) -> Result<()> {
        let mut folders = vec![real.to_owned()];
        let mut seen = BTreeSet::new();
        let mut entries = 0;
        while let Some(folder) = folders.pop() {
            if !folder.is_dir() || !seen.insert(folder.clone()) {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(|e| unreadable(said, &e))?.flatten() {
                entries += 1;
                if entries > MOST_ENTRIES {
                    let message = format!("`{}` holds more than {MOST_ENTRIES} files", said.escape_debug());
                    return Err(Error::new("invalid-input", message).help("name the folder of one model"));
                }
                let kind = entry.file_type().map_err(|e| unreadable(said, &e))?;
                if kind.is_symlink() {
                    let leads = fs::canonicalize(entry.path()).map_err(|_| outside(said))?;
                    self.holds(&leads, said)?;
                    folders.push(leads);
                } else if kind.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(())
    }
}

/// Whether a text, taken for a path, would leave any folder it is relative to.
pub fn leads_out(text: &str) -> bool {
    let path = Path::new(text);
    path.has_root() || path.components().any(|part| matches!(part, std::path::Component::ParentDir))
}

/// A path, or a link on the way, leads out of the folder.
pub fn outside(said: &str) -> Error {
    let message = format!("`{}` leads out of `jobs.folder`, or a link in it does", said.escape_debug());
    Error::new("path-outside", message)
        .help("name what lies below `jobs.folder`, relative to it, or let the operator copy it there")
}

fn unreadable(said: &str, error: &io::Error) -> Error {
    let said = said.escape_debug();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::new("model-not-found", format!("`{said}`: no such file or folder below `jobs.folder`"))
        }
        // Too long, for example, or not to be read: whoever asked can name something else.
        _ => Error::new("invalid-input", format!("`{said}` below `jobs.folder`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().code().to_owned()
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("jobs/model/inner")).unwrap();
        fs::write(parent.path().join("jobs/model.gguf"), "model").unwrap();
        fs::write(parent.path().join("secret"), "secret").unwrap();
        let folder = Folder::open(&parent.path().join("jobs")).unwrap();
        (parent, folder)
    }

    #[test]
    fn what_lies_below_is_found_and_nothing_else() {
        let (parent, folder) = folder();
        assert!(folder.source("model").unwrap().ends_with("jobs/model"));
        assert!(folder.source("./model.gguf").is_ok());
        assert!(folder.target("new/artifact").unwrap().ends_with("jobs/new/artifact"));
        assert!(folder.target("model").is_ok());
        assert!(!parent.path().join("jobs/new").exists(), "nothing is made by asking");
        let absolute = parent.path().join("jobs/model");
        for path in ["..", "../secret", "model/../../secret", "/etc", absolute.to_str().unwrap()] {
            assert_eq!(code(folder.source(path)), "path-outside", "{path}");
            assert_eq!(code(folder.target(path)), "path-outside", "{path}");
        }
        for path in ["", "a\0b"] {
            assert_eq!(code(folder.source(path)), "invalid-input", "{path:?}");
            assert_eq!(code(folder.target(path)), "invalid-input", "{path:?}");
        }
        assert_eq!(code(folder.source("gone")), "model-not-found");
        assert_eq!(code(folder.source("model.gguf/below")), "model-not-found");
        assert_eq!(code(folder.target("model.gguf")), "invalid-input");
        assert_eq!(code(folder.target("model.gguf/below")), "invalid-input");
        assert_eq!(code(folder.source(&"long".repeat(5000))), "invalid-input");
        assert_eq!(code(Folder::open(&parent.path().join("none"))), "file-not-found");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_away_is_refused_wherever_it_lies() {
        use std::os::unix::fs::symlink;
        let (parent, folder) = folder();
        let (root, away) = (parent.path().join("jobs"), parent.path());
        symlink(away, root.join("away")).unwrap();
        assert_eq!(code(folder.source("away")), "path-outside");
        assert_eq!(code(folder.source("away/secret")), "path-outside");
        assert_eq!(code(folder.target("away")), "path-outside");
        assert_eq!(code(folder.target("away/new")), "path-outside");
        // To nowhere as yet.
        symlink(away.join("later"), root.join("later")).unwrap();
        assert_eq!(code(folder.target("later")), "path-outside");
        assert_eq!(code(folder.target("later/new")), "path-outside");
        // Within the folder links are as good as what they lead to, in a circle, too.
        symlink(root.join("model"), root.join("other")).unwrap();
        symlink(root.join("model"), root.join("model/inner/circle")).unwrap();
        assert!(folder.source("other").is_ok());
        assert!(folder.target("other").is_ok());
        // A file of a model, or what an earlier run left.
        symlink(away.join("secret"), root.join("model/inner/weights")).unwrap();
        for path in ["model", "other"] {
            assert_eq!(code(folder.source(path)), "path-outside", "{path}");
            assert_eq!(code(folder.target(path)), "path-outside", "{path}");
        }
    }

    #[test]
    fn texts_that_would_leave_a_folder_are_told() {
        for text in ["/etc/passwd", "..", "a/../b", "../a"] {
            assert!(leads_out(text), "{text}");
        }
        for text in ["attn_(k|v)=q8_0", "a/b", "1.5MB", "a..b=c", ""] {
            assert!(!leads_out(text), "{text}");
        }
    }
}
