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
    // From the repository's root, whose rust-toolchain.toml decides on the compiler.
    let output = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .args(arguments)
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", &target)
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

/// A change to a file: its name below the crate's folder, a text in it, and what stands there instead.
pub type Edit = (&'static str, &'static str, &'static str);

/// Copies a folder of sources, changing some, to a place that stays the same from run to run, and touches only
/// what differs: cargo then builds it once. Lock files that are there already stay: they are cargo's.
///
/// # Errors
/// When a file cannot be read or written, or a text to be changed does not occur: a fixture must not lose its
/// point in silence.
pub fn patched(from: &Path, to: &Path, edits: &[Edit]) -> Result<()> {
    for file in sources(from)? {
        let name = file.strip_prefix(from)?.to_string_lossy().replace('\\', "/");
        patched_file(from, to, &name, edits)?;
    }
    Ok(())
}

/// As [`patched`], for one file.
///
/// # Errors
/// As for [`patched`].
pub fn patched_file(from: &Path, to: &Path, name: &str, edits: &[Edit]) -> Result<()> {
    let (file, target) = (from.join(name), to.join(name));
    let mut text = fs::read_to_string(&file)?;
    for (_, old, new) in edits.iter().filter(|(f, _, _)| *f == name) {
        if !text.contains(old) {
            return Err(format!("{}: {old:?} does not occur", file.display()).into());
        }
        text = text.replacen(old, new, 1);
    }
    let settled = if name == "Cargo.lock" { target.exists() } else { holds(&target, &text) };
    if settled { Ok(()) } else { write(&target, &text) }
}

fn holds(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|there| there == text)
}

/// Writes a file by renaming it into place: another test process may be reading.
fn write(file: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(file.parent().ok_or("a file lies in a folder")?)?;
    let draft = file.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, text)?;
    Ok(fs::rename(draft, file)?)
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
