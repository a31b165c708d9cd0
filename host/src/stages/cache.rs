//! Compiled stages on disk.
//!
//! A cached file is machine code that the host runs, so the folder must belong to this user and be closed to all
//! others; a folder that is not is not used, and stages are compiled each time. Files are never shipped. Their name
//! says which component, engine version, configuration and processor features they were made for.

use std::borrow::Cow;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// A folder of compiled components, or none.
#[derive(Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
    engine: String,
}

/// A component ready to be instantiated, and whether it was found in the cache.
pub struct Compiled {
    pub component: Component,
    pub cached: bool,
}

impl Cache {
    /// Opens the folder, making it if it does not exist. Returns, beside the cache, why it cannot be used.
    pub fn open(folder: Option<&Path>, engine: &Engine) -> (Self, Option<String>) {
        let mut hasher = HashIntoSha(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = hex(&hasher.0.finalize())[..16].to_owned();
        match folder.map(|folder| private(folder).map(|()| folder.to_path_buf())).transpose() {
            Ok(folder) => (Self { folder, engine }, None),
            Err(why) => (Self { folder: None, engine }, Some(why)),
        }
    }

    /// The compiled component: from the folder when it is there, and made of its bytes (and kept) when it is not.
    pub fn compile<'b>(
        &self,
        engine: &Engine,
        sha256: &str,
        bytes: impl FnOnce() -> std::io::Result<Cow<'b, [u8]>>,
    ) -> wasmtime::Result<Compiled> {
        let Some(folder) = &self.folder else {
            return Ok(Compiled { component: Component::new(engine, bytes()?)?, cached: false });
        };
        let file = folder.join(format!("{sha256}-{}.cwasm", self.engine));
        if file.is_file() {
            // SAFETY: the file is native code that this program wrote: the folder was found to be ours and closed to
            // all others, and files get their names only when they are whole. What is of another engine, or no
            // compiled component at all, is refused by its header.
            if let Ok(component) = unsafe { Component::deserialize_file(engine, &file) } {
                return Ok(Compiled { component, cached: true });
            }
        }
        let code = engine.precompile_component(&bytes()?)?;
        // A full disk is no reason to refuse a stage.
        let _ = self.keep(&file, sha256, &code);
        // SAFETY: the engine made these bytes a moment ago.
        let component = unsafe { Component::deserialize(engine, &code)? };
        Ok(Compiled { component, cached: false })
    }

    /// Writes under a temporary name and renames, then drops what other engines made of the same component.
    fn keep(&self, file: &Path, sha256: &str, code: &[u8]) -> std::io::Result<()> {
        let Some(folder) = file.parent() else { return Ok(()) };
        let partial = Partial::new(folder);
        let mut out = fs::File::create_new(&partial.0)?;
        out.write_all(code)?;
        out.sync_all()?;
        fs::rename(&partial.0, file)?;
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(sha256) && path != file {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// A file that is removed unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn new(folder: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(folder.join(format!(".{}-{count}.partial", std::process::id())))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the folder if needed, and checks that nobody else can write to it.
#[cfg(unix)]
fn private(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    let why = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(why)?;
    let held = fs::metadata(folder).map_err(why)?;
    if held.mode() & 0o077 != 0 {
        let folder = folder.display();
        return Err(format!("{folder}: others may enter or write it (chmod 700 {folder} closes it)"));
    }
    // Whoever owns a file that this process makes is this user.
    let probe = Partial::new(folder);
    let mine = fs::File::create_new(&probe.0).and_then(|file| file.metadata()).map_err(why)?;
    if mine.uid() != held.uid() {
        return Err(format!("{}: it belongs to another user", folder.display()));
    }
    Ok(())
}

/// Elsewhere the folder lies below the user's own profile, whose access list it inherits.
#[cfg(not(unix))]
fn private(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Feeds what is hashed to SHA-256: names of files must be the same in every process.
struct HashIntoSha(Sha256);

impl Hasher for HashIntoSha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
