//! Models of a hub (Hugging Face's, or what `HF_ENDPOINT` names): from an id to files on the disk.
//!
//! Only what a conversion reads is fetched. Files lie in the cache that other programs of the hub share, and are named
//! there only when their sums are right.

mod cache;
mod choose;
mod download;
mod http;
mod listing;
mod names;
mod repository;
mod settings;
mod space;
mod sum;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;
use serde::Serialize;

use crate::error::{Error, Result};
use cache::Cache;
pub use cache::Origin;
use choose::{Chosen, INDEX, choose};
use download::Download;
use http::{Failure, Http, Tries};
use listing::{Entry, Listing};
pub use repository::Repository;
pub use settings::Settings;

/// The largest index of weights that is read.
const MOST_INDEX: u64 = 64 << 20;

/// What is told while a repository is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'s> {
    /// The file at work.
    pub file: &'s str,
    /// Bytes of all files that are there.
    pub done: u64,
    /// Bytes of all files.
    pub all: u64,
}

/// Told of each step; stops it by [`ControlFlow::Break`].
pub type Progress<'p> = dyn FnMut(Step<'_>) -> ControlFlow<()> + 'p;

/// A model that lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// `org/name`.
    pub repository: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it is at.
    pub commit: String,
    /// The model: a folder, or a GGUF file.
    pub path: PathBuf,
    /// Its files.
    pub files: Vec<PulledFile>,
    /// Bytes that came over the network for it.
    pub downloaded: u64,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PulledFile {
    /// Its path in the repository.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// What lies at `word` when that is a path, or what it names on a hub, which is then fetched. A path that exists goes first.
///
/// # Errors
/// As for [`pull`]; the path is returned as it is when there is nothing at it and it is no id.
pub fn find(word: &Path, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<PathBuf> {
    let Some(repository) = named(word)? else { return Ok(word.to_owned()) };
    let pulled = pull(&repository, &Settings::from_process()?, progress, cancel);
    pulled.map(|pulled| pulled.path).map_err(|error| match error.code() {
        "repository-not-found" | "hub-offline" | "hub-unavailable" => {
            error.within(format_args!("there is no file or folder `{}` here, and on the hub", word.display()))
        }
        _ => error,
    })
}

/// The repository that `word` names, unless something lies at this path.
///
/// # Errors
/// `repository-invalid`.
pub fn named(word: &Path) -> Result<Option<Repository>> {
    match word.to_str() {
        Some(text) if !word.exists() => Repository::read(text),
        _ => Ok(None),
    }
}

/// Fetches what a conversion reads of a repository, unless it is in the cache.
///
/// # Errors
/// `repository-…`, `revision-not-found`, `hub-…`, `download-…`, `disk-full`; `cancelled`, with what came kept; `io`.
pub fn pull(
    repository: &Repository,
    settings: &Settings,
    progress: &mut Progress<'_>,
    cancel: &Cancel,
) -> Result<Pulled> {
    let cache = Cache::new(&settings.cache, repository);
    let here = |error: Error| error.within(repository);
    if settings.offline {
        return cached(&cache, repository).map_err(here);
    }
    let http = Http::new(settings, cancel)?;
    match listing(&http, repository) {
        Ok(listing) => fetch(&http, &cache, repository, &listing, progress).map_err(here),
        Err(error) if error.code() == "hub-unavailable" => match cached(&cache, repository) {
            Ok(pulled) => {
                tracing::warn!("{error}; what is in the cache is used: {repository} at {}", pulled.commit);
                Ok(pulled)
            }
            Err(_) => Err(here(error)),
        },
        Err(error) => Err(here(error)),
    }
}

/// What the hub says that the repository holds.
fn listing(http: &Http, repository: &Repository) -> Result<Listing> {
    let path = listing::path(repository);
    Listing::parse(&trying(http, || http.read(&path, listing::MOST_BYTES))?)
}

/// Tries until there is an answer, or there will be none.
fn trying<T>(http: &Http, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut tries = Tries::default();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(failure) => http.again(&mut tries, false, failure)?,
        }
    }
}

fn fetch(
    http: &Http,
    cache: &Cache,
    repository: &Repository,
    listing: &Listing,
    progress: &mut Progress<'_>,
) -> Result<Pulled> {
    let paths: Vec<&str> = listing.files.iter().map(|file| file.path.as_str()).collect();
    let Chosen { files, main } = choose(&paths, repository.file.as_deref())?;
    let chosen = listing.files.iter().filter(|file| files.contains(&file.path));
    let mut entries =
        chosen.map(|file| known(http, repository, listing, file)).collect::<Result<Vec<_>>>()?;
    // The weights last: where they are, everything is.
    let weights = |entry: &Entry| entry.path.ends_with(".safetensors") || main.is_some();
    entries.sort_by_key(|entry| (weights(entry), entry.path.clone()));
    let size = |entry: &Entry| entry.size.unwrap_or_default();
    let all = entries.iter().map(size).fold(0, u64::saturating_add);
    let blobs = cache.prepare()?;
    space::check(&blobs, entries.iter().map(|entry| missing(cache, entry)).fold(0, u64::saturating_add))?;
    let (mut done, mut downloaded) = (0u64, 0);
    for entry in &entries {
        let download = Download { http, cache, repository, commit: &listing.commit, entry };
        let mut told =
            |have: u64| match progress(Step { file: &entry.path, done: done.saturating_add(have), all }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(http::cancelled()),
            };
        downloaded += download.run(&mut told)?;
        cache.link(&listing.commit, &entry.path, entry.etag.as_deref().unwrap_or_default())?;
        done = done.saturating_add(size(entry));
    }
    cache.write_commit(&repository.revision, &listing.commit)?;
    pulled(cache, repository, &listing.commit, &Chosen { files, main }, downloaded)
}

/// A file with the name of its content, which the hub is asked for where its list has none.
fn known(http: &Http, repository: &Repository, listing: &Listing, file: &Entry) -> Result<Entry> {
    if file.etag.is_some() {
        return Ok(file.clone());
    }
    let path = listing::file_path(repository, &listing.commit, &file.path);
    let answer = trying(http, || http.head(&path)).map_err(|error| error.within(&file.path))?;
    listing::named(file, answer.etag(), answer.size())
}

/// Bytes of a file that are still to come.
fn missing(cache: &Cache, entry: &Entry) -> u64 {
    let (etag, size) = (entry.etag.as_deref().unwrap_or_default(), entry.size.unwrap_or_default());
    if cache.has(etag, entry.size) {
        return 0;
    }
    let there = std::fs::metadata(cache.incomplete(etag)).map_or(0, |about| about.len());
    size.saturating_sub(there)
}

/// What the cache has of a repository, without asking anybody.
fn cached(cache: &Cache, repository: &Repository) -> Result<Pulled> {
    let lacks = |what: String| {
        Error::new("hub-offline", what)
            .help("fetch it with `pajamas pull` where the hub is reached, with HF_HUB_OFFLINE not set")
    };
    let Some(commit) = cache.commit(&repository.revision) else {
        return Err(lacks(format!("the cache does not know the revision {}", repository.revision)));
    };
    let paths = cache.paths(&commit);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let chosen = choose(&paths, repository.file.as_deref()).map_err(|error| {
        lacks(format!("the cache has not all of the commit {commit}: {}", error.message()))
    })?;
    if let Some(shard) = first_missing(&cache.snapshot(&commit), &paths) {
        return Err(lacks(format!("the cache has not all of the commit {commit}: {shard} is missing")));
    }
    pulled(cache, repository, &commit, &chosen, 0)
}

/// A file of weights that the index names, and that is not there.
fn first_missing(snapshot: &Path, paths: &[&str]) -> Option<String> {
    let index = snapshot.join(INDEX);
    let about = std::fs::metadata(&index).ok()?;
    if about.len() > MOST_INDEX {
        return None;
    }
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).ok()?).ok()?;
    let mut shards = index["weight_map"].as_object()?.values().filter_map(|file| file.as_str());
    shards.find(|shard| !paths.contains(shard)).map(str::to_owned)
}

fn pulled(
    cache: &Cache,
    repository: &Repository,
    commit: &str,
    chosen: &Chosen,
    downloaded: u64,
) -> Result<Pulled> {
    let snapshot =
        std::path::absolute(cache.snapshot(commit)).map_err(|e| Error::io(cache.snapshot(commit), &e))?;
    let mut files = chosen
        .files
        .iter()
        .map(|path| {
            let about =
                std::fs::metadata(snapshot.join(path)).map_err(|e| Error::io(snapshot.join(path), &e))?;
            Ok(PulledFile { path: path.clone(), bytes: about.len() })
        })
        .collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Pulled {
        repository: repository.id.clone(),
        revision: repository.revision.clone(),
        commit: commit.to_owned(),
        path: chosen.main.as_ref().map_or_else(|| snapshot.clone(), |file| snapshot.join(file)),
        files,
        downloaded,
    })
}
