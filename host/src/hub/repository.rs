//! What people call a model on a hub.

use std::fmt;

use super::names;
use crate::error::{Error, Result};

/// The branch that is meant when none is named.
const MAIN: &str = "main";
/// What says that a word is no path.
const PREFIX: &str = "hf:";
/// The longest id.
const LONGEST: usize = 96;
/// Endings by which a word without the prefix is the path of a file, which does not exist.
const FILES: [&str; 6] = [".gguf", ".onnx", ".safetensors", ".json", ".bin", ".toml"];

/// A repository of a hub at a revision: `org/name`, `org/name@revision`, `org/name:file.gguf@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `org/name`; the oldest models have no `org/`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The GGUF file that is wanted, or a word of its name.
    pub file: Option<String>,
}

impl Repository {
    /// What a word means; `None` when it can only be a path.
    ///
    /// # Errors
    /// `repository-invalid` for a word that begins with `hf:` and goes on with something else.
    pub fn read(word: &str) -> Result<Option<Self>> {
        match word.strip_prefix(PREFIX) {
            Some(rest) => match Self::parse(rest) {
                Some(repository) => Ok(Some(repository)),
                None => {
                    let message = format!("`{}` is no id of a repository", word.escape_debug());
                    Err(Error::new("repository-invalid", message)
                        .help("write hf:org/name, hf:org/name@revision or hf:org/name:file.gguf"))
                }
            },
            None => Ok(Self::parse(word).filter(|repository| {
                repository.id.contains('/') && !FILES.iter().any(|end| repository.id.ends_with(end))
            })),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let (rest, revision) = match word.split_once('@') {
            Some((rest, revision)) => (rest, revision),
            None => (word, MAIN),
        };
        let (id, file) = match rest.split_once(':') {
            Some((id, file)) => (id, Some(file)),
            None => (rest, None),
        };
        let plain = revision.bytes().all(|b| b.is_ascii_graphic() && !b"@~^[".contains(&b));
        let known =
            is_id(id) && names::stays_inside(revision) && plain && file.is_none_or(names::stays_inside);
        known.then(|| Self { id: id.into(), revision: revision.into(), file: file.map(str::to_owned) })
    }

    /// The name without whoever it belongs to.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// The hub's own rules for ids.
pub(super) fn is_id(id: &str) -> bool {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let ends = |end: Option<char>| end.is_some_and(|c| c != '-' && c != '.');
        part.bytes().all(plain) && ends(part.chars().next()) && ends(part.chars().last())
    };
    id.len() <= LONGEST
        && id.matches('/').count() <= 1
        && id.split('/').all(part)
        && !id.contains("--")
        && !id.contains("..")
        && !id.ends_with(".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Option<(String, String, Option<String>)> {
        Repository::read(word).unwrap().map(|r| (r.id, r.revision, r.file))
    }

    #[test]
    fn ids_are_told_from_paths() {
        let of = |id: &str, revision: &str, file: Option<&str>| {
            Some((id.to_owned(), revision.to_owned(), file.map(str::to_owned)))
        };
        assert_eq!(read("Qwen/Qwen3-0.6B"), of("Qwen/Qwen3-0.6B", "main", None));
        assert_eq!(read("org/name@v1.0"), of("org/name", "v1.0", None));
        assert_eq!(read("org/name@refs/pr/1"), of("org/name", "refs/pr/1", None));
        assert_eq!(read("org/name:a/b.gguf@v1"), of("org/name", "v1", Some("a/b.gguf")));
        assert_eq!(read("hf:org/name:Q4_K_M"), of("org/name", "main", Some("Q4_K_M")));
        assert_eq!(read("hf:gpt2"), of("gpt2", "main", None));
        for path in [
            "gpt2",
            "./org/name",
            "/org/name",
            "../name",
            "a/b/c",
            "org/model.gguf",
            "org/",
            "/name",
            "~/name",
            "org/na me",
            "org/name@",
            "org/name@../x",
            "org/name@/x",
            "org/name:",
            "org/name:../x",
            "org--x/name",
            "org/name.git",
            "-org/name",
            "C:\\models\\x",
            "",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
        assert_eq!(Repository::read("hf:../x").unwrap_err().code(), "repository-invalid");
    }

    #[test]
    fn a_repository_is_written_as_it_is_read() {
        for word in ["org/name", "org/name@v1", "org/name:x.gguf", "org/name:x.gguf@v1"] {
            assert_eq!(Repository::read(word).unwrap().unwrap().to_string(), word);
        }
        assert_eq!(Repository::read("org/name@v1").unwrap().unwrap().name(), "name");
    }
}
