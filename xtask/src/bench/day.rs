//! A simulated day of mixed traffic, by the host's own router and fleet: the same numbers on every machine, kept in
//! `docs/src/day.md`.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Options;
use crate::files;
use crate::product;
use crate::progress::{self, Show};
use crate::project::Project;

/// The page, and what stands in it before and after the tables.
const PAGE: &str = "docs/src/day.md";
const MARKS: [&str; 2] = ["<!-- tables: cargo xtask bench --only day -->\n\n", "\n<!-- end of tables -->"];

/// Simulates, writes the tables to their page, and the section.
pub fn measure(project: &Project, _: &Options, page: &mut String) -> Result<()> {
    progress::headline("A simulated day");
    let mut cargo = project.cargo();
    cargo.args(["build", "--release"]).args(product::CRATES).args(["--example", "day"]);
    progress::run("Building the simulator", &mut cargo, &project.log("bench-day"), Show::Progress)?;
    let simulator = project.release().join("examples/day");
    let output = Command::new(&simulator)
        .output()
        .with_context(|| format!("{} could not be started", simulator.display()))?;
    if !output.status.success() {
        bail!("the simulator failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let tables = String::from_utf8(output.stdout).context("what the simulator printed")?;
    let file = project.root.join(PAGE);
    let old = std::fs::read_to_string(&file).with_context(|| format!("reading {PAGE}"))?;
    let new = between(&old, &tables).with_context(|| format!("{PAGE} has no place for the tables"))?;
    files::write_if_changed(&file, new.as_bytes())?;
    writeln!(
        page,
        "\n## A simulated day\n\nWhat is assumed, and what is lost: [a simulated day](day.md).\n\n{tables}"
    )?;
    Ok(())
}

/// The page with other tables; `None` when the marks are missing.
fn between(page: &str, tables: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{tables}{end}{after}"))
}
