//! `cargo xtask docs`: the reference pages of the book, as the built program prints them.

use anyhow::{Context, Result, bail};

use crate::files;
use crate::project::Project;
use crate::{product, progress};

/// The pages: `pajamas reference PAGE` prints each.
const PAGES: &[&str] = &["cli", "config", "errors", "routes", "stages"];

/// Writes `docs/src/reference/*.md`, or, with `check`, says which differ from what the program prints.
///
/// # Errors
/// With `check`, when a page is not what the program prints now.
pub fn generate(project: &Project, check: bool) -> Result<()> {
    if !project.program().is_file() {
        product::build(project)?;
    }
    let mut stale = Vec::new();
    for page in PAGES {
        let path = project.root.join("docs/src/reference").join(page).with_extension("md");
        let printed = print(project, page)?;
        if !check {
            files::write_if_changed(&path, &printed)?;
        } else if !std::fs::read(&path).is_ok_and(|committed| committed == printed) {
            stale.push(project.show(&path));
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what the program prints: {}\nrun `cargo xtask docs` and commit the result",
            stale.join(", ")
        );
    }
    progress::done("Reference pages", if check { "as the program prints them" } else { "written" });
    Ok(())
}

fn print(project: &Project, page: &str) -> Result<Vec<u8>> {
    let output = project
        .pajamas()
        .args(["reference", page])
        // Help is wrapped to the width of the terminal, of which this variable is the last trace.
        .env_remove("COLUMNS")
        .output()
        .with_context(|| format!("{} could not be started", project.program().display()))?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("`pajamas reference {page}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
