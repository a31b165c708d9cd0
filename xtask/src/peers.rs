//! `cargo xtask peers`: the Python programs that ours is measured and compared against, in a folder of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::files;
use crate::progress::{self, Show};
use crate::project::{Project, tool};

/// What is installed, pinned.
const REQUIREMENTS: &str = "tests/peers/requirements.txt";

/// The environment's Python.
pub fn python(project: &Project) -> PathBuf {
    let folder = project.target.join("peers");
    if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") }
}

/// Makes the environment, or brings it up to date. Nothing of the product needs it: tests that compare with a peer
/// skip without it.
pub fn install(project: &Project) -> Result<()> {
    let requirements = project.root.join(REQUIREMENTS);
    let wanted = std::fs::read(&requirements).with_context(|| format!("reading {REQUIREMENTS}"))?;
    // What was installed, written down last: an interrupted installation is done again.
    let installed = project.target.join("peers").join("requirements.txt");
    if python(project).is_file() && std::fs::read(&installed).is_ok_and(|have| have == wanted) {
        progress::done("Peers", "up to date");
        return Ok(());
    }
    let python3 = if cfg!(windows) { "python" } else { "python3" };
    if !Command::new(python3).arg("--version").output().is_ok_and(|output| output.status.success()) {
        bail!("{python3} is missing. On Debian and Ubuntu: sudo apt-get install --yes python3-venv");
    }
    let folder = project.target.join("peers");
    progress::run(
        "Making a Python environment",
        tool(python3, &project.root).args(["-m", "venv"]).arg(&folder),
        &project.log("peers-venv"),
        Show::Progress,
    )
    .context("on Debian and Ubuntu: sudo apt-get install --yes python3-venv")?;
    progress::run(
        "Installing the peers",
        tool(python(project), &project.root)
            .args([
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
                "--requirement",
            ])
            .arg(&requirements),
        &project.log("peers-install"),
        Show::Progress,
    )?;
    files::write_if_changed(&installed, &wanted)?;
    Ok(())
}
