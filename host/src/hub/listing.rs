//! What a repository holds, as the hub lists it.

use serde::Deserialize;

use super::names::{self, encode, is_commit, is_etag, is_hex};
use super::repository::Repository;
use crate::error::{Error, Result};

/// The longest list that is read, in bytes, and the most files.
pub(super) const MOST_BYTES: u64 = 32 << 20;
const MOST_FILES: usize = 100_000;

/// The files of a repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<Entry>,
}

/// A file, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path in the repository, with `/`; leads nowhere else.
    pub path: String,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// What the cache names its content by; the sum of it, mostly.
    pub etag: Option<String>,
}

/// What a file's content must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// SHA-256 of the content: large files.
    Sha256,
    /// SHA-1 of a header with the size and of the content, as git names what it holds.
    Git,
    /// Nothing is known but the size.
    None,
}

impl Entry {
    /// How the etag vouches for the content.
    pub fn sum(&self) -> Sum {
        match (self.etag.as_deref(), self.size) {
            (Some(etag), _) if is_hex(etag, 64) => Sum::Sha256,
            (Some(etag), Some(_)) if is_hex(etag, 40) => Sum::Git,
            _ => Sum::None,
        }
    }
}

/// The path of the hub's answer to what a repository holds.
pub(super) fn path(repository: &Repository) -> String {
    let revision = encode(&repository.revision, "-._~");
    format!("/api/models/{}/revision/{revision}?blobs=true", repository.id)
}

/// The path of a file of a commit.
pub(super) fn file_path(repository: &Repository, commit: &str, path: &str) -> String {
    format!("/{}/resolve/{commit}/{}", repository.id, encode(path, "-._~/"))
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    /// `hub-unavailable` when it is none; `repository-invalid` when it names what no repository holds.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let told: Told = serde_json::from_slice(json)
            .map_err(|error| super::http::nonsense(&format!("what is no list of files: {error}")))?;
        if !is_commit(&told.sha) {
            return Err(super::http::nonsense("a commit that is none"));
        }
        let invalid = |what: String| Error::new("repository-invalid", what);
        if told.siblings.len() > MOST_FILES {
            return Err(invalid(format!("{} files, more than {MOST_FILES}", told.siblings.len())));
        }
        let entry = |file: Sibling| {
            let path = file.rfilename;
            if !names::stays_inside(&path) {
                let shown: String = path.escape_debug().take(100).collect();
                return Err(invalid(format!(
                    "the file `{shown}` would lie outside of the repository's folder"
                ))
                .help("nothing was downloaded; this is no repository to trust"));
            }
            let (size, etag) = match file.lfs {
                Some(lfs) => (lfs.size.or(file.size), lfs.sha256.filter(|sum| is_hex(sum, 64))),
                None => (file.size, file.blob_id.filter(|sum| is_hex(sum, 40))),
            };
            Ok(Entry { path, size, etag })
        };
        let mut files = told.siblings.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(Self { commit: told.sha, files })
    }
}

/// What a hub says of a file when it is asked for it alone.
///
/// # Errors
/// `hub-unavailable` for a name that could lead out of the cache.
pub(super) fn named(entry: &Entry, etag: Option<String>, size: Option<u64>) -> Result<Entry> {
    match etag.filter(|etag| is_etag(etag)) {
        Some(etag) => Ok(Entry { etag: Some(etag), size: entry.size.or(size), path: entry.path.clone() }),
        None => Err(super::http::nonsense(&format!("no name for the content of {}", entry.path))),
    }
}

#[derive(Deserialize)]
struct Told {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(files: serde_json::Value) -> Result<Listing> {
        Listing::parse(json!({ "sha": COMMIT, "siblings": files, "id": "org/name" }).to_string().as_bytes())
    }

    #[test]
    fn large_files_are_named_by_their_sha256_and_small_ones_as_git_names_them() {
        let (git, sha256) = ("a".repeat(40), "b".repeat(64));
        let listing = parse(json!([
            { "rfilename": "model.safetensors", "size": 7, "blobId": git, "lfs": { "sha256": sha256, "size": 7, "pointerSize": 135 } },
            { "rfilename": "config.json", "size": 2, "blobId": git },
            { "rfilename": "old.json" },
        ]))
        .unwrap();
        let told: Vec<_> = listing.files.iter().map(|f| (f.path.as_str(), f.size, f.sum())).collect();
        let wanted = [
            ("config.json", Some(2), Sum::Git),
            ("model.safetensors", Some(7), Sum::Sha256),
            ("old.json", None, Sum::None),
        ];
        assert_eq!(told, wanted);
        let asked = named(&listing.files[2], Some(sha256.clone()), Some(3)).unwrap();
        assert_eq!((asked.sum(), asked.size), (Sum::Sha256, Some(3)));
        assert_eq!(
            named(&listing.files[2], Some("../x".into()), None).unwrap_err().code(),
            "hub-unavailable"
        );
    }

    #[test]
    fn a_list_that_names_what_lies_elsewhere_is_refused_as_a_whole() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", ""] {
            let error = parse(json!([{ "rfilename": "config.json" }, { "rfilename": path }])).unwrap_err();
            assert_eq!(error.code(), "repository-invalid", "{path}");
        }
        for nonsense in ["<html>", "{}", "{\"sha\":\"../..\",\"siblings\":[]}"] {
            assert_eq!(
                Listing::parse(nonsense.as_bytes()).unwrap_err().code(),
                "hub-unavailable",
                "{nonsense}"
            );
        }
    }

    #[test]
    fn addresses_are_those_of_the_hub() {
        let repository = Repository::read("org/name@refs/pr/1").unwrap().unwrap();
        assert_eq!(path(&repository), "/api/models/org/name/revision/refs%2Fpr%2F1?blobs=true");
        assert_eq!(
            file_path(&repository, COMMIT, "a b/c.json"),
            format!("/org/name/resolve/{COMMIT}/a%20b/c.json")
        );
    }
}
