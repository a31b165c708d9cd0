//! `plugin.toml`, the file beside a plugin's dylib: what may be known before opening it.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ABI_VERSION, PluginError, Result, codes};

/// The manifest's file name.
pub const MANIFEST_NAME: &str = "plugin.toml";

/// What a plugin says about itself without being opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's name, as configuration refers to it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The ABI it was built against, `major.minor`.
    pub abi: String,
    /// Platforms the library runs on, for example `linux-x86_64`: see [`platform`].
    pub platforms: Vec<String>,
    /// File name of the library beside the manifest.
    pub library: String,
    /// sha256 of the library, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Licence as an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Further libraries that the plugin brings along and loads: they are verified with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ManifestFile>,
}

/// A library that a plugin brings along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Path below the manifest's folder, with `/`.
    pub path: String,
    /// sha256 of the file, lower-case hexadecimal.
    pub sha256: String,
}

/// This machine's platform, `OS-ARCHITECTURE`: `linux-x86_64`, `macos-aarch64`, `windows-x86_64` …
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// The file name of a dylib made from a crate's library: `libNAME.so`, `libNAME.dylib`, `NAME.dll`.
pub fn library_file_name(crate_name: &str) -> String {
    format!(
        "{}{}{}",
        std::env::consts::DLL_PREFIX,
        crate_name.replace('-', "_"),
        std::env::consts::DLL_SUFFIX
    )
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// `plugin-manifest-missing` and `plugin-manifest-invalid`, with the path.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            PluginError::new("plugin-manifest-missing", format!("{}: {e}", path.display()))
                .help(format!("every plugin needs a {MANIFEST_NAME} beside its library"))
        })?;
        let invalid = |why: String| {
            PluginError::new("plugin-manifest-invalid", format!("{}: {why}", path.display()))
                .help("docs/src/plugin-authors.md describes the manifest")
        };
        let manifest: Self = toml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if Path::new(&manifest.library).components().count() != 1 || manifest.library.starts_with('.') {
            return Err(invalid(format!("`library` must be a plain file name, not {:?}", manifest.library)));
        }
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        if let Some(file) = manifest.files.iter().find(|f| !Path::new(&f.path).components().all(plain)) {
            return Err(invalid(format!(
                "`files` must lie below the manifest's folder, not at {:?}",
                file.path
            )));
        }
        manifest.abi_version().map_err(|e| invalid(e.message))?;
        Ok(manifest)
    }

    /// The manifest of a library that was built here, against this version of the API.
    ///
    /// # Errors
    /// `plugin-library-missing` when the library cannot be read.
    pub fn for_library(library: &Path, name: &str, version: &str) -> Result<Self> {
        let file_name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            name: name.into(),
            version: version.into(),
            abi: format!("{}.{}", ABI_VERSION.0, ABI_VERSION.1),
            platforms: vec![platform()],
            library: file_name,
            sha256: Some(digest(library)?),
            license: None,
            description: None,
            files: Vec::new(),
        })
    }

    /// Adds a library that the plugin brings along: `path` below `folder`, the folder of the manifest.
    ///
    /// # Errors
    /// `plugin-library-missing` when the file cannot be read.
    pub fn with_file(mut self, folder: &Path, path: &str) -> Result<Self> {
        let sha256 = digest(&folder.join(path))?;
        self.files.push(ManifestFile { path: path.into(), sha256 });
        Ok(self)
    }

    /// The text of `plugin.toml`.
    ///
    /// # Errors
    /// `internal` when a field cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| PluginError::new(codes::INTERNAL, format!("plugin manifest: {e}")))
    }

    /// `abi` as numbers.
    pub(crate) fn abi_version(&self) -> Result<(u16, u16)> {
        self.abi
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| {
                PluginError::new(
                    "plugin-manifest-invalid",
                    format!("`abi` must be MAJOR.MINOR, not {:?}", self.abi),
                )
            })
    }
}

/// The sha256 of a file, lower-case hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let missing =
        |e: std::io::Error| PluginError::new("plugin-library-missing", format!("{}: {e}", path.display()));
    let mut file = File::open(path).map_err(missing)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(missing)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// A library to look at, and the manifest beside it, from whatever path a person gives: the plugin's folder, its
/// manifest or its library.
pub(crate) fn locate(path: &Path) -> (PathBuf, Option<PathBuf>) {
    let folder = if path.is_dir() {
        path.to_path_buf()
    } else {
        path.parent().unwrap_or(Path::new(".")).to_path_buf()
    };
    let manifest = folder.join(MANIFEST_NAME);
    if path.is_dir() || path.file_name().is_some_and(|n| n == MANIFEST_NAME) {
        return (path.to_path_buf(), Some(manifest));
    }
    (path.to_path_buf(), manifest.is_file().then_some(manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MANIFEST_NAME);
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path)
    }

    const GOOD: &str = "name='a'\nversion='1'\nabi='1.0'\nplatforms=['linux-x86_64']\nlibrary='liba.so'\n";

    #[test]
    fn reads_a_manifest() {
        assert_eq!(read(GOOD).unwrap().abi_version().unwrap(), (1, 0));
    }

    #[test]
    fn reads_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("liba.so"), "abc").unwrap();
        let manifest = Manifest::for_library(&dir.path().join("liba.so"), "a", "1.2.3").unwrap();
        let manifest = manifest.with_file(dir.path(), "liba.so").unwrap();
        assert_eq!(read(&manifest.to_toml().unwrap()).unwrap(), manifest);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((manifest.sha256.as_deref(), manifest.files[0].sha256.as_str()), (Some(abc), abc));
        let nowhere = Manifest::for_library(Path::new("/nowhere/liba.so"), "a", "1");
        assert_eq!(nowhere.unwrap_err().code, "plugin-library-missing");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in [
            format!("{GOOD}surprise=1\n"),
            GOOD.replace("liba.so", "../liba.so"),
            GOOD.replace("1.0", "one"),
            format!("{GOOD}[[files]]\npath='../x.so'\nsha256='00'\n"),
            "name=".into(),
        ] {
            assert_eq!(read(&bad).unwrap_err().code, "plugin-manifest-invalid", "{bad}");
        }
        assert_eq!(
            Manifest::read(Path::new("/nowhere/plugin.toml")).unwrap_err().code,
            "plugin-manifest-missing"
        );
    }
}
