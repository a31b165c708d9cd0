//! Where things are in the repository, and how its tools are started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The repository, as cargo describes it.
#[derive(Debug)]
pub struct Project {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
    packages: Vec<Package>,
}

/// What a member's `Cargo.toml` says.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// One line about it.
    #[serde(default)]
    pub description: Option<String>,
}

/// The part of `cargo metadata` that is used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

impl Project {
    /// Asks cargo about the workspace that this program was built from.
    pub fn open() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = here.parent().context("xtask lies in a folder of the repository")?.to_path_buf();
        let output = tool("cargo", &root)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cargo metadata could not be started")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cargo metadata printed something unexpected")?;
        Ok(Self { root, target: metadata.target_directory, packages: metadata.packages })
    }

    /// Where cargo puts what it builds: everything here is built in the release profile, so that the demo, the
    /// tests and what ships share one build of every dependency.
    pub fn release(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The built `pajamas` program.
    pub fn program(&self) -> PathBuf {
        self.release().join(format!("pajamas{}", std::env::consts::EXE_SUFFIX))
    }

    /// Where the whole output of a step is kept.
    pub fn log(&self, step: &str) -> PathBuf {
        self.target.join("xtask").join(format!("{step}.log"))
    }

    /// A member of the workspace.
    pub fn package(&self, name: &str) -> Result<&Package> {
        self.packages
            .iter()
            .find(|p| p.name == name)
            .with_context(|| format!("the workspace has no package {name}"))
    }

    /// The folder of a crate that the workspace depends on.
    pub fn dependency(&self, name: &str) -> Result<PathBuf> {
        #[derive(Deserialize)]
        struct Found {
            name: String,
            manifest_path: PathBuf,
        }
        #[derive(Deserialize)]
        struct All {
            packages: Vec<Found>,
        }
        let output = self.cargo().args(["metadata", "--locked", "--format-version", "1"]).output()?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let all: All = serde_json::from_slice(&output.stdout)?;
        let found = all.packages.into_iter().find(|package| package.name == name);
        let manifest = found.with_context(|| format!("nothing here depends on {name}"))?.manifest_path;
        Ok(manifest.parent().context("a manifest lies in a folder")?.to_path_buf())
    }

    /// Cargo in the workspace.
    pub fn cargo(&self) -> Command {
        self.cargo_in(&self.root, &self.target)
    }

    /// Cargo in a crate outside the workspace. Those crates share a target folder of their own: their
    /// dependencies are locked apart from the workspace's.
    pub fn cargo_outside(&self, folder: &Path) -> Command {
        self.cargo_in(folder, &self.target.join("outside"))
    }

    /// Cargo in the workspace of the stages, which keeps its own target folder.
    pub fn cargo_stages(&self) -> Command {
        let folder = self.root.join("wasm-stages");
        self.cargo_in(&folder, &folder.join("target"))
    }

    fn cargo_in(&self, folder: &Path, target: &Path) -> Command {
        let mut command = tool("cargo", folder);
        command.env("CARGO_TARGET_DIR", target);
        command
    }

    /// The built `pajamas`, run from the repository's root.
    pub fn pajamas(&self) -> Command {
        tool(self.program(), &self.root)
    }

    /// Folders of the crates a third party might have written: the examples, and the plugins made for tests.
    /// Sorted.
    pub fn outside_crates(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for parent in ["examples", "tests/plugins"] {
            let parent = self.root.join(parent);
            if !parent.is_dir() {
                continue;
            }
            for entry in parent.read_dir()? {
                let folder = entry?.path();
                if folder.join("Cargo.toml").is_file() {
                    found.push(folder);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// `path` as a person at the repository's root would write it.
    pub fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// A program started in `folder`, free of what `cargo run` put into this program's environment.
pub fn tool(program: impl Into<OsString>, folder: &Path) -> Command {
    let mut program = program.into();
    if program == "cargo"
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        program = cargo;
    }
    let mut command = Command::new(program);
    command.current_dir(folder);
    for (key, _) in std::env::vars_os() {
        // The library path in particular would hide a plugin that cannot find its own libraries.
        let text = key.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == LIBRARY_PATH {
            command.env_remove(&key);
        }
    }
    if let Some(own) = library_path_without_cargo() {
        command.env(LIBRARY_PATH, own);
    }
    command
}

/// The variable that `cargo run` extends.
const LIBRARY_PATH: &str = if cfg!(target_os = "macos") {
    "DYLD_FALLBACK_LIBRARY_PATH"
} else if cfg!(windows) {
    // On Windows cargo extends PATH, which a child needs as it is.
    "PAJAMAS_NO_LIBRARY_PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// The library path as it was before cargo put its own folders in front.
fn library_path_without_cargo() -> Option<OsString> {
    let path = std::env::var_os(LIBRARY_PATH)?;
    let exe = std::env::current_exe().ok()?;
    let built = exe.parent()?;
    let own = std::env::split_paths(&path).filter(|folder| {
        !folder.starts_with(built)
            && !folder.components().any(|c| c.as_os_str() == ".rustup" || c.as_os_str() == "rustlib")
    });
    std::env::join_paths(own).ok().filter(|path| !path.is_empty())
}
