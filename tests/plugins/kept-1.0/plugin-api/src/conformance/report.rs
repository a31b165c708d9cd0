//! What the kit found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::PluginInfo;
use crate::host::{Outcome, Report};

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was checked: the plugin, a backend, or a backend with a model.
    pub subject: String,
    /// What it should do.
    pub name: String,
    /// Whether it does.
    pub outcome: Outcome,
    /// What was found, or why the check was skipped.
    pub detail: String,
    /// How long the check took, in milliseconds.
    pub duration_ms: f64,
}

/// All that was found about a plugin.
#[derive(Debug, Clone, Serialize)]
pub struct ConformanceReport {
    /// The steps of the loader.
    pub loading: Report,
    /// The plugin, when it was opened.
    pub plugin: Option<PluginInfo>,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Check>,
}

impl ConformanceReport {
    /// Whether the plugin was opened and no check failed.
    pub fn passed(&self) -> bool {
        self.plugin.is_some() && self.failed().next().is_none()
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| c.outcome == Outcome::Failed)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|c| c.outcome == outcome).count()
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.loading.library.display())?;
        if let Some(error) = self.loading.error() {
            return writeln!(f, "  FAILED  the plugin does not load: {error}");
        }
        let width = self.checks.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
        let mut subject = "";
        for check in &self.checks {
            if check.subject != subject {
                subject = &check.subject;
                writeln!(f, "\n{subject}")?;
            }
            let mark = match check.outcome {
                Outcome::Passed => "ok     ",
                Outcome::Failed => "FAILED ",
                Outcome::Skipped => "skipped",
            };
            let (name, time) = (&check.name, check.duration_ms);
            write!(f, "  {mark}  {name:width$}  {time:>8.1} ms  {}", check.detail)?;
            writeln!(f)?;
        }
        let (passed, failed) = (self.count(Outcome::Passed), self.count(Outcome::Failed));
        write!(f, "\n{passed} passed, {failed} failed, {} skipped", self.count(Outcome::Skipped))
    }
}
