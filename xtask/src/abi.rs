//! `cargo xtask abi-check`: the layout of what crosses may only grow, and only with a new minor version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pajamas_plugin_api::ABI_VERSION;
use pajamas_plugin_api::host::layout_text;

/// Compares the layout of this build with the snapshots in `plugin-api/abi`; with `update`, writes the snapshot
/// of this version instead.
///
/// # Errors
/// When something that plugins rely on was removed or changed, when something was appended without raising the
/// minor version, or when a snapshot cannot be read or written.
pub fn check(update: bool) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/abi");
    let message = check_in(&folder, ABI_VERSION, &layout_text(), update)?;
    println!("{message}");
    Ok(())
}

fn check_in(folder: &Path, version: (u16, u16), now: &str, update: bool) -> Result<String> {
    let (major, minor) = version;
    let snapshot = |minor: u16| -> PathBuf { folder.join(format!("{major}.{minor}.layout.txt")) };
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());

    // Whatever this version does, it must not break the one before.
    if let Some(before) = minor.checked_sub(1) {
        let growth = Growth::between(&read(&snapshot(before))?, now);
        growth.refuse_breaks(&format!("{major}.{before}"))?;
    }
    let path = snapshot(minor);
    if update {
        fs::write(&path, now).with_context(|| path.display().to_string())?;
        return Ok(format!("wrote the layout of ABI {major}.{minor} to {}", path.display()));
    }
    if !path.exists() {
        return Ok(format!(
            "ABI {major}.{minor} only appends to {major}.{}; keep its layout: cargo xtask abi-check --update",
            minor.saturating_sub(1)
        ));
    }
    let growth = Growth::between(&read(&path)?, now);
    growth.refuse_breaks(&format!("{major}.{minor}"))?;
    if !growth.appended.is_empty() {
        bail!(
            "the ABI grew without a new version:\n  {}\nraise the minor version in plugin-api/Cargo.toml to \
             {major}.{}.0, then run: cargo xtask abi-check --update",
            growth.appended.join("\n  "),
            minor + 1
        );
    }
    Ok(format!("the layout of ABI {major}.{minor} is the one in the snapshot"))
}

/// How one layout differs from an earlier one.
#[derive(Debug, Default, PartialEq)]
struct Growth {
    appended: Vec<String>,
    broken: Vec<String>,
}

impl Growth {
    fn between(old: &str, new: &str) -> Self {
        let (old, new) = (blocks(old), blocks(new));
        let mut growth = Self::default();
        for (header, lines) in &old {
            match new.get(header) {
                None => growth.broken.push(format!("gone or changed: {header}")),
                Some(now) => growth.compare(header, lines, now),
            }
        }
        growth.appended.extend(new.keys().filter(|h| !old.contains_key(*h)).map(|h| format!("new: {h}")));
        growth
    }

    fn compare(&mut self, header: &str, old: &[&str], new: &[&str]) {
        for (index, line) in old.iter().enumerate() {
            match new.get(index) {
                Some(now) if now == line => {}
                Some(now) => self.broken.push(format!("{header}\n    was {line}\n    is  {now}")),
                None => self.broken.push(format!("{header}\n    gone: {line}")),
            }
        }
        for line in new.iter().skip(old.len()) {
            let text = format!("{header}\n    added: {line}");
            if header.starts_with("growing ") { self.appended.push(text) } else { self.broken.push(text) }
        }
    }

    fn refuse_breaks(&self, since: &str) -> Result<()> {
        if self.broken.is_empty() {
            return Ok(());
        }
        bail!(
            "plugins built against ABI {since} would no longer load:\n  {}\nwithin a major version only append: \
             fields and methods at the end of a growing type, methods with a default body",
            self.broken.join("\n  ")
        )
    }
}

/// A line without indentation opens a block; the indented lines after it are its fields, in order.
fn blocks(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut blocks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines().filter(|l| !l.is_empty()) {
        match line.strip_prefix("    ") {
            Some(field) => blocks.entry(current).or_default().push(field),
            None => {
                current = line;
                blocks.entry(line).or_default();
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "abi_stable: 0.11\n\ngrowing A: first 1 always there\n    a: u8\n    b: u8\n\nfrozen B: C, 1 bytes\n    c: u8\n";

    fn folder(snapshots: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (version, text) in snapshots {
            fs::write(folder.path().join(format!("{version}.layout.txt")), text).unwrap();
        }
        folder
    }

    fn refusal(version: (u16, u16), now: &str) -> String {
        let folder = folder(&[("1.0", OLD)]);
        check_in(folder.path(), version, now, false).unwrap_err().to_string()
    }

    #[test]
    fn the_layout_of_this_build_is_the_committed_one() {
        check(false).unwrap();
    }

    #[test]
    fn the_same_layout_passes() {
        let folder = folder(&[("1.0", OLD)]);
        assert!(check_in(folder.path(), (1, 0), OLD, false).unwrap().contains("is the one in the snapshot"));
    }

    #[test]
    fn a_removal_a_change_and_a_new_order_are_refused_in_every_version() {
        for now in [
            OLD.replace("    b: u8\n", ""),
            OLD.replace("    a: u8\n", ""),
            OLD.replace("b: u8", "b: u16"),
            OLD.replace("    a: u8\n    b: u8\n", "    b: u8\n    a: u8\n"),
            OLD.replace("C, 1 bytes", "C, 2 bytes"),
            OLD.replace("    c: u8\n", "    c: u8\n    d: u8\n"),
            OLD.replace("first 1", "first 2"),
            OLD.replace("0.11", "0.12"),
        ] {
            for version in [(1, 0), (1, 1)] {
                assert!(refusal(version, &now).contains("would no longer load"), "{now}");
            }
        }
    }

    #[test]
    fn growth_needs_a_new_minor_version() {
        let grown = OLD.replace("    b: u8\n", "    b: u8\n    e: u8\n");
        let refusal = refusal((1, 0), &grown);
        assert!(refusal.contains("added: e: u8") && refusal.contains("1.1.0"), "{refusal}");

        let folder = folder(&[("1.0", OLD)]);
        assert!(check_in(folder.path(), (1, 1), &grown, false).unwrap().contains("only appends"));
        check_in(folder.path(), (1, 1), &grown, true).unwrap();
        assert!(
            check_in(folder.path(), (1, 1), &grown, false).unwrap().contains("is the one in the snapshot")
        );
        assert!(check_in(folder.path(), (1, 1), OLD, false).is_err(), "1.1 lost what it had");
    }
}
