//! A simulated day of mixed traffic, by the host's own router and fleet: the same numbers on every machine, kept in
//! `docs/src/day.md`.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{Options, example};
use crate::files;
use crate::progress;
use crate::project::Project;

/// The page, and what stands in it before and after the tables.
const PAGE: &str = "docs/src/day.md";
const MARKS: [&str; 2] = ["<!-- tables: cargo xtask bench --only day -->\n\n", "\n<!-- end of tables -->"];

/// Simulates, writes the tables to their page, and the section.
pub fn measure(project: &Project, _: &Options, page: &mut String) -> Result<()> {
    progress::headline("A simulated day");
    let tables = example(project, "day", &[])?;
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
