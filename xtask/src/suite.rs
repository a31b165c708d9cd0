//! `cargo xtask test`: everything that must hold before a change is taken.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use console::style;

use crate::progress::{self, Show};
use crate::project::{Project, tool};
use crate::skips::{Skips, Want};
use crate::{abi, deps, dist, docs, product};

/// One of the checks, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// What the build needs is installed.
    Prerequisites,
    /// The host and its plugins build and are packed.
    Build,
    /// What serves models is no larger than may ship.
    Size,
    /// The examples outside the workspace build and pass their tests, as a third party would build them.
    Examples,
    /// Every crate is formatted.
    Format,
    /// Clippy has nothing to say.
    Clippy,
    /// The stages' own logic, tested natively.
    Stages,
    /// The code examples in the documentation run.
    DocTests,
    /// The plugins' ABI has only grown.
    Abi,
    /// The generated pages of the documentation are those of the program.
    Docs,
    /// Licences, advisories and sources of every dependency.
    Dependencies,
    /// The rules of the repository, and xtask's own tests.
    Rules,
    /// Unit tests, and journeys through the built product.
    Tests,
}

/// How a check ended.
enum Outcome {
    Passed(String),
    Skipped(String),
}

struct Row {
    check: Check,
    time: Duration,
    result: Result<Outcome, String>,
}

/// Runs the checks, all of them when `only` is empty, and prints a table at the end, with what was left out.
///
/// # Errors
/// When one of them fails, or leaves out what `$PAJAMAS_REQUIRE` names. The others still run, unless there is nothing to run
/// them on.
pub fn run(project: &Project, only: &[Check]) -> Result<()> {
    let required = Want::required()?;
    let mut suite =
        Suite { project, required, rows: Vec::new(), summaries: Vec::new(), skips: Skips::default() };
    for &check in Check::value_variants() {
        if !only.is_empty() && !only.contains(&check) {
            continue;
        }
        suite.check(check);
        let failed = suite.rows.last().is_some_and(|row| row.result.is_err());
        if failed && matches!(check, Check::Prerequisites | Check::Build) {
            break;
        }
    }
    suite.report()
}

struct Suite<'a> {
    project: &'a Project,
    /// What may not be missing.
    required: Vec<Want>,
    rows: Vec<Row>,
    /// What the test runner said at its end.
    summaries: Vec<String>,
    /// What tests that passed left out.
    skips: Skips,
}

impl Suite<'_> {
    fn check(&mut self, check: Check) {
        progress::headline(check.name());
        let begun = Instant::now();
        let result = match check {
            Check::Prerequisites => deps::ensure(self.project).map(|()| passed("")),
            Check::Build => product::build(self.project).map(|()| passed("")),
            Check::Size => dist::serving_mb(self.project).and_then(|mb| {
                let (all, quant) = dist::all_mb(self.project)?;
                Ok(passed(format!(
                    "{mb:.1} MB serve, {all:.1} MB with all plugins, of which quant has {quant:.1}"
                )))
            }),
            Check::Examples => self.examples(),
            Check::Format => self.format(),
            Check::Clippy => self.clippy(),
            Check::Stages => self.stages(),
            Check::DocTests => self.doc_tests(),
            Check::Abi => abi::check(false).map(|()| passed("")),
            Check::Docs => docs::generate(self.project, true).map(|()| passed("")),
            Check::Dependencies => self.dependencies(),
            Check::Rules => self.tests("rules", &["--package", "xtask"]),
            Check::Tests => self.tests("tests", product::CRATES),
        };
        let result = result.map_err(|error| format!("{error:#}"));
        match &result {
            Ok(Outcome::Passed(_)) => {}
            Ok(Outcome::Skipped(reason)) => progress::skipped(check.name(), reason),
            Err(error) => eprintln!("{} {error}", style("failed:").red().bold().for_stderr()),
        }
        self.rows.push(Row { check, time: begun.elapsed(), result });
    }

    fn step(&self, label: &str, command: &mut Command) -> Result<()> {
        let log = label.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "-");
        progress::run(label, command, &self.project.log(&log), Show::Progress)
    }

    fn examples(&self) -> Result<Outcome> {
        let crates = self.project.outside_crates()?;
        for folder in &crates {
            let mut cargo = self.project.cargo_outside(folder);
            self.step(
                &format!("Building {}", self.project.show(folder)),
                cargo.args(["build", "--release"]),
            )?;
        }
        // What an author starts from has tests of its own; the plugins of the tests are tested by ours.
        for folder in crates.iter().filter(|folder| folder.starts_with(self.project.root.join("examples"))) {
            let mut cargo = self.project.cargo_outside(folder);
            self.step(&format!("Testing {}", self.project.show(folder)), cargo.args(["test", "--release"]))?;
        }
        Ok(passed(format!("{} crates", crates.len())))
    }

    fn format(&self) -> Result<Outcome> {
        let mut cargo = self.project.cargo();
        self.step("Formatting of the workspace", cargo.args(["fmt", "--all", "--check"]))?;
        let mut cargo = self.project.cargo_stages();
        self.step("Formatting of the stages", cargo.args(["fmt", "--all", "--check"]))?;
        for folder in self.project.outside_crates()? {
            let mut cargo = self.project.cargo_outside(&folder);
            // Without a package of its own named, rustfmt would follow the path dependencies.
            let label = format!("Formatting of {}", self.project.show(&folder));
            self.step(&label, cargo.args(["fmt", "--check"]))?;
        }
        Ok(passed(""))
    }

    fn clippy(&self) -> Result<Outcome> {
        const DENY: [&str; 3] = ["--", "-D", "warnings"];
        let clippy = |mut cargo: Command, label: &str, packages: &[&str]| {
            cargo.args(["clippy", "--release", "--all-targets"]).args(packages).args(DENY);
            self.step(label, &mut cargo)
        };
        clippy(self.project.cargo(), "Clippy on the product", product::CRATES)?;
        clippy(self.project.cargo(), "Clippy on xtask", &["--package", "xtask"])?;
        clippy(self.project.cargo_stages(), "Clippy on the stages", &["--workspace"])?;
        for folder in self.project.outside_crates()? {
            let label = format!("Clippy on {}", self.project.show(&folder));
            clippy(self.project.cargo_outside(&folder), &label, &[])?;
        }
        Ok(passed(""))
    }

    fn stages(&mut self) -> Result<Outcome> {
        let mut cargo = self.project.cargo_stages();
        // Without optimisation decoding pictures takes minutes; with the profile that ships, linking does.
        cargo.args(["test", "--workspace"]).env("CARGO_PROFILE_TEST_OPT_LEVEL", "1");
        // Decoders that others wrote shift by more than a number's bits in damaged files; as in the components, unchecked.
        cargo.args(["--config", "profile.dev.package.\"*\".overflow-checks=false"]);
        cargo.args(["--", "--show-output"]);
        self.step("Tests of the stages", &mut cargo)?;
        let output = std::fs::read_to_string(self.project.log("tests-of-the-stages"))?;
        self.left_out(&output)?;
        Ok(passed(cargo_summary(&output).unwrap_or_default().trim()))
    }

    fn doc_tests(&self) -> Result<Outcome> {
        let mut cargo = self.project.cargo();
        cargo.args(["test", "--release", "--doc"]).args(product::CRATES);
        self.step("Examples in the documentation", &mut cargo).map(|()| passed(""))
    }

    fn dependencies(&self) -> Result<Outcome> {
        let deny = || {
            let mut cargo = self.project.cargo();
            cargo.arg("deny");
            cargo
        };
        let there = deny().arg("--version").output().is_ok_and(|output| output.status.success());
        if !there {
            ensure!(!self.required.contains(&Want::CargoDeny), "cargo-deny is required, and not installed");
            return Ok(skipped("cargo-deny is not installed: cargo install --locked cargo-deny"));
        }
        let mut local = deny();
        self.step("Licences, sources and bans", local.args(["check", "licenses", "sources", "bans"]))?;
        let mut stages = self.project.cargo_stages();
        stages.args(["deny", "--config", "../deny.toml", "check", "licenses", "sources", "bans"]);
        self.step("Licences, sources and bans of the stages", &mut stages)?;
        let mut advisories = deny();
        match self.step("Advisories", advisories.args(["check", "advisories"])) {
            Ok(_) => Ok(passed("")),
            // The advisories lie on a server of their own, which a machine may not reach.
            Err(error) if error.to_string().contains("failed to fetch advisory database") => {
                Ok(skipped("advisories: their database cannot be reached from here; the rest passed"))
            }
            Err(error) => Err(error),
        }
    }

    fn tests(&mut self, log: &str, packages: &[&str]) -> Result<Outcome> {
        let log = self.project.log(log);
        let nextest = tool("cargo-nextest", &self.project.root)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        let mut cargo = self.project.cargo();
        let colour = if console::colors_enabled_stderr() { "always" } else { "never" };
        // nextest's report has what tests printed that passed; it knows where to put it from `.config/nextest.toml`.
        let report = self.project.target.join("nextest/suite/junit.xml");
        if nextest {
            let _ = std::fs::remove_file(&report);
            cargo.args(["nextest", "run", "--profile", "suite", "--release", "--no-fail-fast"]);
            cargo.args(["--no-tests", "pass", "--color", colour]).args(packages);
        } else {
            // Libraries and programs are among `--tests`; named alone, a crate without one of them is refused.
            cargo.args(["test", "--release", "--no-fail-fast", "--tests", "--color", colour]);
            cargo.args(packages).args(["--", "--show-output"]);
        }
        let result = progress::run("Running tests", &mut cargo, &log, Show::Lines);
        let output = std::fs::read_to_string(&log).unwrap_or_default();
        let summary = if nextest { nextest_summary(&output) } else { cargo_summary(&output) };
        self.summaries.extend(summary.clone());
        let said = if nextest { std::fs::read_to_string(&report) } else { Ok(output) };
        let left_out = said.context("the tests left no report").and_then(|said| self.left_out(&said));
        result?;
        left_out?;
        Ok(passed(summary.unwrap_or_default().trim()))
    }

    /// Remembers what tests left out, by what they printed.
    fn left_out(&mut self, said: &str) -> Result<()> {
        let skips = Skips::of(said);
        let allowed = skips.allow(&self.required);
        self.skips.add(skips);
        allowed
    }

    /// The table, and the verdict.
    fn report(&self) -> Result<()> {
        progress::headline("Summary");
        let failed: Vec<_> = self.rows.iter().filter(|row| row.result.is_err()).collect();
        for row in &self.rows {
            let (mark, detail) = match &row.result {
                Ok(Outcome::Passed(detail)) => (style("passed ").green(), detail.as_str()),
                Ok(Outcome::Skipped(reason)) => (style("skipped").yellow(), reason.as_str()),
                Err(error) => (style("FAILED ").red().bold(), error.lines().next().unwrap_or("")),
            };
            let time = progress::duration(row.time);
            eprintln!("  {:<14} {time:>12}  {}  {detail}", row.check.name(), mark.for_stderr());
        }
        let total = self.rows.iter().map(|row| row.time).sum();
        eprintln!("  {:<14} {:>12}", "all", progress::duration(total));
        for summary in &self.summaries {
            println!("{summary}");
        }
        let left_out = self.skips.count();
        if left_out > 0 {
            let label = format!("Left out by tests that passed, {left_out} times for want of:");
            eprintln!("{}", style(label).yellow().for_stderr());
            self.skips.lines().iter().for_each(|line| eprintln!("  {line}"));
        }
        if let [first, ..] = failed.as_slice() {
            bail!(
                "{} of {} checks failed. Run one alone with `cargo xtask test --only {}`",
                failed.len(),
                self.rows.len(),
                first.check.name()
            );
        }
        let verdict = if left_out > 0 { "Everything that was tried holds." } else { "Everything holds." };
        eprintln!("{}", style(verdict).green().for_stderr());
        Ok(())
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Prerequisites => "prerequisites",
            Self::Build => "build",
            Self::Size => "size",
            Self::Examples => "examples",
            Self::Format => "format",
            Self::Clippy => "clippy",
            Self::Stages => "stages",
            Self::DocTests => "doc-tests",
            Self::Abi => "abi",
            Self::Docs => "docs",
            Self::Dependencies => "dependencies",
            Self::Rules => "rules",
            Self::Tests => "tests",
        }
    }
}

fn passed(detail: impl Into<String>) -> Outcome {
    Outcome::Passed(detail.into())
}

fn skipped(reason: impl Into<String>) -> Outcome {
    Outcome::Skipped(reason.into())
}

/// nextest's own last word, `Summary [  12.3s] 200 tests run: 200 passed, 0 skipped`.
fn nextest_summary(output: &str) -> Option<String> {
    output.lines().rev().find(|line| line.trim_start().starts_with("Summary [")).map(str::to_owned)
}

/// The sum of what each test program of plain `cargo test` said.
fn cargo_summary(output: &str) -> Option<String> {
    let results = || output.lines().filter(|line| line.starts_with("test result:"));
    let passed: usize = results().filter_map(passed_in).sum();
    let programs = results().count();
    (programs > 0).then(|| format!("     Summary {programs} test programs: {passed} passed"))
}

/// How many tests passed, by the line `test result: ok. 12 passed; 0 failed; …`.
fn passed_in(line: &str) -> Option<usize> {
    let (before, _) = line.strip_prefix("test result:")?.split_once(" passed")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_word_of_nextest() {
        let output = "   PASS [ 0.1s] a\n     Summary [   1.2s] 3 tests run: 3 passed, 0 skipped\n";
        assert!(nextest_summary(output).unwrap().contains("3 tests run: 3 passed"));
        assert_eq!(nextest_summary("nothing"), None);
    }

    #[test]
    fn adds_up_what_cargo_test_says() {
        let output =
            "test result: ok. 12 passed; 0 failed; 0 ignored\nx\ntest result: FAILED. 3 passed; 1 failed";
        assert_eq!(cargo_summary(output).unwrap().trim(), "Summary 2 test programs: 15 passed");
        assert_eq!(cargo_summary(""), None);
    }

    #[test]
    fn every_check_has_the_name_that_selects_it() {
        for check in Check::value_variants() {
            assert_eq!(check.to_possible_value().unwrap().get_name(), check.name());
        }
    }
}
