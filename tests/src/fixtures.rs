//! Plugins outside the workspace, built as a third party builds them, and packed into folders of their own.
//!
//! Every crate is built by `cargo build --release` into one target folder, `outside` below the workspace's, so
//! that their common dependencies are compiled once. Cargo's own lock keeps test processes that run at the same
//! time apart, and makes the second build a matter of milliseconds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use pajamas_plugin_api::host::{MANIFEST_NAME, Manifest, library_file_name};
use tempfile::TempDir;

/// Why a fixture is not there.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
}

/// The target folder of crates outside the workspace.
///
/// # Errors
/// When the running test does not lie in a target folder.
pub fn target() -> Result<PathBuf> {
    // target/release/deps/TEST
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).ok_or("the test's executable has no target folder")?;
    Ok(target.join("outside"))
}

/// Builds a crate and returns the folder `release` with what was built.
///
/// # Errors
/// When the build fails, with cargo's own words.
pub fn build(folder: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let target = target()?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet"])
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", &target)
        // The workspace's settings for llama.cpp and for coverage are not a third party's.
        .env_remove("RUSTFLAGS")
        .output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cannot build {}:\n{words}", folder.display()).into());
    }
    Ok(target.join("release"))
}

/// Builds a plugin below the repository, for example `examples/backend-minimal`, and returns its library.
///
/// # Errors
/// When the build fails.
pub fn plugin(path: &str) -> Result<PathBuf> {
    let folder = repository().join(path);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(build(&folder, &[])?.join(library_file_name(&name)))
}

/// Builds `tests/plugins/liars` and returns one of its libraries.
///
/// # Errors
/// When the build fails.
pub fn liar(name: &str) -> Result<PathBuf> {
    let release = build(&repository().join("tests/plugins/liars"), &["--examples"])?;
    Ok(release.join("examples").join(library_file_name(name)))
}

/// A plugin in a temporary folder of its own, with a manifest: what an installed plugin looks like.
pub struct Packed {
    folder: TempDir,
    manifest: Manifest,
}

impl Packed {
    /// Copies a library and writes its manifest.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(library: &Path, name: &str, version: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join(library.file_name().ok_or("a library has a file name")?);
        fs::copy(library, &copy)?;
        let packed = Self { manifest: Manifest::for_library(&copy, name, version)?, folder };
        packed.write()?;
        Ok(packed)
    }

    /// The plugin's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The library in it.
    pub fn library(&self) -> PathBuf {
        self.folder().join(&self.manifest.library)
    }

    /// Changes the manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn edit(mut self, change: impl FnOnce(&mut Manifest)) -> Result<Self> {
        change(&mut self.manifest);
        self.write()?;
        Ok(self)
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(self.folder().join(MANIFEST_NAME), self.manifest.to_toml()?)?)
    }
}

/// Copies a crate's sources, changing some, into a place that stays the same from run to run, and touches only
/// what differs: cargo then builds it once.
///
/// `edits` are (file, text, text instead); each text must occur, so that a fixture cannot silently lose its point.
///
/// # Errors
/// When a file cannot be read or written, or a text does not occur.
pub fn patched(from: &Path, to: &Path, edits: &[(&str, &str, &str)]) -> Result<()> {
    for file in sources(from)? {
        let name = file.strip_prefix(from)?.to_string_lossy().replace('\\', "/");
        let mut text = fs::read_to_string(&file)?;
        for (_, old, new) in edits.iter().filter(|(f, _, _)| *f == name) {
            if !text.contains(old) {
                return Err(format!("{}: {old:?} does not occur", file.display()).into());
            }
            text = text.replacen(old, new, 1);
        }
        let target = to.join(&name);
        if fs::read_to_string(&target).is_ok_and(|there| there == text) {
            continue;
        }
        fs::create_dir_all(target.parent().ok_or("a file lies in a folder")?)?;
        // Renamed into place: another test process may be reading.
        let draft = target.with_extension(format!("draft-{}", std::process::id()));
        fs::write(&draft, text)?;
        fs::rename(draft, target)?;
    }
    Ok(())
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|n| n != "target") {
                found.extend(sources(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
