//! Building the server's page, and knowing when it has to be built again.
//!
//! What is built is committed, so that nobody needs Node.js to build or test the host. A lock file says which sources it
//! was made of; a test compares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::progress::{self, Show};
use crate::project::{Project, tool};

/// What the page is made of, below `host/page`.
const SOURCES: [&str; 7] =
    ["package.json", "package-lock.json", "tsconfig.json", "index.html", "style.css", "icon.svg", "src"];
/// What it becomes, below `host/page/dist`.
const BUILT: [&str; 4] = ["index.html", "app.js", "style.css", "icon.svg"];
const LOCK: &str = "dist/page.lock";

/// `dist/page.lock`: hashes of the sources, and of what was built of them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    sources: String,
    built: String,
}

impl Lock {
    fn now(page: &Path) -> Result<Self> {
        Ok(Self { sources: files::hash(page, SOURCES)?, built: files::hash(&page.join("dist"), BUILT)? })
    }
}

/// Checks the types and bundles the page into `host/page/dist`, or (`check`) only says whether that is needed.
pub fn build(project: &Project, check: bool) -> Result<()> {
    let page = project.root.join("host/page");
    if check {
        ensure!(!drifted(&page)?, "the page is not built from its sources; run `cargo xtask page`");
        return Ok(());
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut install = tool(npm, &page);
    // esbuild and TypeScript come as programs: nothing of a package runs while it is installed.
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    progress::run(
        "Installing esbuild and TypeScript",
        &mut install,
        &project.log("page-npm"),
        Show::Progress,
    )
    .context("the page is built with npm, which comes with Node.js")?;
    let node = |program: &str, arguments: &[&str]| {
        let mut command = tool("node", &page);
        command.arg(format!("node_modules/{program}")).args(arguments);
        progress::run(
            &format!("Running {}", program.rsplit('/').next().unwrap_or(program)),
            &mut command,
            &project.log("page-build"),
            Show::Progress,
        )
    };
    node("typescript/bin/tsc", &["--project", "."])?;
    let common = ["--bundle", "--minify", "--charset=utf8", "--legal-comments=none", "--log-level=warning"];
    let bundle = |input: &str, output: &str, more: &[&str]| {
        let output = format!("--outfile=dist/{output}");
        node("esbuild/bin/esbuild", &[&[input, &output], &common[..], more].concat())
    };
    bundle("src/main.ts", "app.js", &["--format=esm", "--target=es2022"])?;
    // The browsers that know light-dark().
    bundle("style.css", "style.css", &["--target=chrome123,firefox120,safari17.5"])?;
    for name in ["index.html", "icon.svg"] {
        files::copy_if_changed(&page.join(name), &page.join("dist").join(name))?;
    }
    let text = format!("# Written by `cargo xtask page`.\n{}", toml::to_string(&Lock::now(&page)?)?);
    files::write_if_changed(&page.join(LOCK), text.as_bytes())?;
    for name in BUILT {
        let size = fs::metadata(page.join("dist").join(name))?.len();
        println!("{name:<12} {size:>8} bytes");
    }
    Ok(())
}

/// Whether the sources, what was built and the lock do not belong together.
fn drifted(page: &Path) -> Result<bool> {
    let path: PathBuf = page.join(LOCK);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lock: Lock = toml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(lock != Lock::now(page)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_page_belongs_to_its_sources() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/page");
        assert!(!drifted(&page).unwrap(), "run `cargo xtask page` and commit host/page/dist");
    }
}
