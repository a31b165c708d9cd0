//! `cargo xtask peers`: the Python programs that ours is measured and compared against, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::deps;
use crate::files;
use crate::progress::{self, Show};
use crate::project::{Project, tool};

/// What the tests compare with, pinned.
const REQUIREMENTS: &str = "tests/peers/requirements.txt";
/// What only the benchmarks need besides: a program that is compiled here, pinned by its hash.
const BENCH: &str = "tests/peers/bench-requirements.txt";

/// The environment's Python.
pub fn python(project: &Project) -> PathBuf {
    let folder = project.target.join("peers");
    if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") }
}

/// Makes the environment, or brings it up to date; with `bench`, also with what only the benchmarks measure against,
/// which takes ten minutes to compile. Nothing of the product needs it: tests that compare with a peer skip without it.
///
/// # Errors
/// When there is no Python with `venv`, or something cannot be downloaded or built.
pub fn install(project: &Project, bench: bool) -> Result<()> {
    let only_wheels = ["--only-binary", ":all:"];
    bring(project, "Installing the peers", REQUIREMENTS, &only_wheels)?;
    if bench {
        // Its dependencies are among those of the tests, or named with it. pip's cache may hold what other flags made of it.
        let built_here = ["--no-deps", "--require-hashes", "--no-cache-dir"];
        bring(project, "Building llama.cpp for the benchmarks", BENCH, &built_here)?;
    }
    Ok(())
}

/// Has pip install what a file names, unless it has done so before.
fn bring(project: &Project, label: &str, requirements: &str, options: &[&str]) -> Result<()> {
    let requirements = project.root.join(requirements);
    let folder = project.target.join("peers");
    let wanted =
        std::fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let name = requirements.file_name().context("a file of requirements has a name")?;
    // What was installed, written down last: an interrupted installation is done again.
    let installed = folder.join(name);
    if python(project).is_file() && std::fs::read(&installed).is_ok_and(|have| have == wanted) {
        progress::done("Peers", &format!("{} is up to date", name.display()));
        return Ok(());
    }
    make_environment(project, &folder)?;
    let mut pip = tool(python(project), &project.root);
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
