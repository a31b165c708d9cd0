//! The repository's files, as the tests of its rules read them.

use std::path::{Path, PathBuf};

/// A source file.
pub struct Source {
    /// Its path from the root, with `/`.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Its lines that are not comments, with their numbers.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// What comes before its unit tests.
    pub fn before_tests(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
    }

    /// Whether it holds only tests.
    pub fn is_test(&self) -> bool {
        self.name.contains("/tests/") || self.name.ends_with("/tests.rs")
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
}

/// `path` from the root, with `/`.
pub fn show(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// Every Rust source file of the repository.
pub fn rust_sources() -> Vec<Source> {
    let sources: Vec<_> = walk(&root(), &|path| path.extension().is_some_and(|e| e == "rs"))
        .into_iter()
        .filter_map(|path| Some(Source { name: show(&path), text: std::fs::read_to_string(&path).ok()? }))
        .collect();
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

/// Every file of a name.
pub fn with_name(name: &str) -> Vec<PathBuf> {
    walk(&root(), &|path| path.file_name().is_some_and(|n| n == name))
}

/// The files below a folder that are wanted; without what is built, and without the kept copies of old releases,
/// which do not change any more.
pub fn walk(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = folder.read_dir() else { return found };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            let skip = ["target", "book", "node_modules"].contains(&name)
                || name.starts_with("kept-")
                || name.starts_with(".git");
            if !skip {
                found.extend(walk(&path, wanted));
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}
