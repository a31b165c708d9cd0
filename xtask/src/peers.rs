//! `cargo xtask peers`: the Python programs that ours is measured and compared against, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::deps;
use crate::files;
use crate::progress::{self, Show};
use crate::project::{Project, tool};

/// A Python environment of its own: what some peers need, others cannot live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// What most tests compare with; with `--bench` also llama.cpp with its bindings.
    Usual,
    /// MLX for processors, and mlx_lm.
    Mlx,
    /// llama.cpp's converter of Hugging Face folders.
    Converter,
}

impl Peers {
    /// Its folder below `target`.
    pub fn folder(self, project: &Project) -> PathBuf {
        project.target.join(match self {
            Self::Usual => "peers",
            Self::Mlx => "peers-mlx",
            Self::Converter => "peers-gguf",
        })
    }

    /// A program of the environment, such as `python`.
    pub fn program(self, project: &Project, name: &str) -> PathBuf {
        let folder = self.folder(project);
        if cfg!(windows) { folder.join(format!("Scripts/{name}.exe")) } else { folder.join("bin").join(name) }
    }
}

/// What `pip install` is told besides what to install.
const WHEELS: &[&str] = &["--only-binary", ":all:"];
/// Its dependencies are among those of the tests, or named with it. pip's cache may hold what other flags made of it.
const BUILT_HERE: &[&str] = &["--no-deps", "--require-hashes", "--no-cache-dir"];
/// llama.cpp with its Python bindings, pinned by its hash; its source has the converter, too.
const LLAMA_CPP: &str = "tests/peers/bench-requirements.txt";

/// Makes the environments, or brings them up to date; with `bench`, also what only the benchmarks measure against, of which
/// one takes ten minutes to compile. Nothing of the product needs them: tests that compare with a peer skip without it.
///
/// # Errors
/// When there is no Python with `venv`, or something cannot be downloaded or built.
pub fn install(project: &Project, bench: bool) -> Result<()> {
    bring(project, Peers::Usual, "Installing the peers", "tests/peers/requirements.txt", WHEELS)?;
    bring(project, Peers::Mlx, "Installing mlx_lm", "tests/peers/mlx-requirements.txt", WHEELS)?;
    if bench {
        bring(project, Peers::Usual, "Building llama.cpp for the benchmarks", LLAMA_CPP, BUILT_HERE)?;
        let requirements = "tests/peers/gguf-requirements.txt";
        bring(project, Peers::Converter, "Installing the converter's libraries", requirements, WHEELS)?;
        converter(project)?;
    }
    Ok(())
}

/// llama.cpp's converter, brought by [`install`] for the benchmarks.
///
/// # Errors
/// When it is not there.
pub fn converter_script(project: &Project) -> Result<PathBuf> {
    let folder = Peers::Converter.folder(project).join("source");
    let trees = files::sorted(&folder).unwrap_or_default();
    let mut scripts = trees.iter().map(|tree| tree.join("vendor/llama.cpp/convert_hf_to_gguf.py"));
    scripts
        .find(|script| script.is_file())
        .context("`cargo xtask peers --bench` brings llama.cpp's converter")
}

/// Unpacks the source that the bindings are built from: the converter is a script in it.
fn converter(project: &Project) -> Result<()> {
    if converter_script(project).is_ok() {
        return Ok(());
    }
    let python = Peers::Converter.program(project, "python");
    let folder = Peers::Converter.folder(project).join("source");
    let log = project.log("peers-converter");
    let mut pip = tool(&python, &project.root);
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-binary", "llama-cpp-python"]);
    pip.args(BUILT_HERE);
    pip.arg("--dest").arg(&folder).arg("--requirement").arg(project.root.join(LLAMA_CPP));
    progress::run("Fetching llama.cpp's converter", &mut pip, &log, Show::Progress)?;
    for archive in files::sorted(&folder)?.iter().filter(|path| path.extension().is_some_and(|e| e == "gz")) {
        let mut unpack = tool(&python, &folder);
        unpack.args(["-m", "tarfile", "--extract"]).arg(archive);
        progress::run("Unpacking it", &mut unpack, &log, Show::Progress)?;
    }
    converter_script(project).map(|_| ())
}

/// Has pip install what a file names, unless it has done so before.
fn bring(project: &Project, peers: Peers, label: &str, requirements: &str, options: &[&str]) -> Result<()> {
    let requirements = project.root.join(requirements);
    let folder = peers.folder(project);
    let wanted =
        std::fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let name = requirements.file_name().context("a file of requirements has a name")?;
    // What was installed, written down last: an interrupted installation is done again.
    let installed = folder.join(name);
    let python = peers.program(project, "python");
    if python.is_file() && std::fs::read(&installed).is_ok_and(|have| have == wanted) {
        progress::done("Peers", &format!("{} is up to date", name.display()));
        return Ok(());
    }
    make_environment(project, &folder)?;
    let mut pip = tool(python, &project.root);
    // The same compiler flags as ours, whatever CXXFLAGS is here: without them the peer dies on some processors.
    pip.env("CXXFLAGS", deps::CXXFLAGS);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(options);
    pip.arg("--requirement").arg(&requirements);
    let log = project.log(&format!("peers-{}", name.display()));
    progress::run(label, &mut pip, &log, Show::Progress)?;
    files::write_if_changed(&installed, &wanted)?;
    Ok(())
}

fn make_environment(project: &Project, folder: &Path) -> Result<()> {
    let python3 = if cfg!(windows) { "python" } else { "python3" };
    if !Command::new(python3).arg("--version").output().is_ok_and(|output| output.status.success()) {
        bail!("{python3} is missing. On Debian and Ubuntu: sudo apt-get install --yes python3-venv");
    }
    progress::run(
        "Making a Python environment",
        tool(python3, &project.root).args(["-m", "venv"]).arg(folder),
        &project.log("peers-venv"),
        Show::Progress,
    )
    .context("on Debian and Ubuntu: sudo apt-get install --yes python3-venv")
}
