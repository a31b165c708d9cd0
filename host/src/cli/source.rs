//! The model that a command reads: a path, or the id of a repository, which is fetched first.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;

use super::Global;
use super::watcher::Watcher;
use crate::error::Result;
use crate::hub;

/// The path of what `word` names.
pub fn find(global: &Global, word: &Path, cancel: &Cancel) -> Result<PathBuf> {
    watched(global, |progress| hub::find(word, progress, cancel))
}

/// Fetches, with a bar.
pub fn watched<T>(global: &Global, fetch: impl FnOnce(&mut hub::Progress<'_>) -> Result<T>) -> Result<T> {
    let mut watcher = Watcher::new(global.json);
    let fetched = fetch(&mut |step| {
        // The bar knows thousandths: enough for a person.
        let fraction = step.done as f64 / step.all.max(1) as f64;
        let name = step.file.rsplit('/').next().unwrap_or(step.file);
        let of = format!("{:.1} of {:.1} MB, {name}", step.done as f64 / 1e6, step.all as f64 / 1e6);
        watcher.show("downloading", fraction as f32, &of)
    });
    watcher.clear();
    fetched
}

/// What quantizers will call the source, before it is fetched; `None` for a path.
pub fn format_of(word: &Path) -> Result<Option<&'static str>> {
    let named = hub::named(word)?;
    Ok(named.map(|repository| if repository.file.is_some() { "gguf" } else { "huggingface" }))
}
