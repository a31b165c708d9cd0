//! What was done to a plugin, step by step: the same for one that was taken and one that was refused.

use std::path::PathBuf;

use serde::Serialize;

use super::Manifest;
use crate::probe_symbol::ProbeReport;
use crate::{PluginError, Result};

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `plugin.toml` parses.
    Manifest,
    /// The plugin is for this platform and ABI.
    Platform,
    /// The library's sha256 is the manifest's.
    Hash,
    /// The system opens the library.
    Open,
    /// The probe symbol is there and fits.
    Probe,
    /// The layouts of all types that cross agree.
    Layout,
    /// The plugin's own start succeeds and describes its parts.
    Create,
    /// At least one backend scores above 0 here, or there is a quantizer.
    Score,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Fine.
    Passed,
    /// Refused: no later step was taken.
    Failed,
    /// Not applicable, with the reason in the detail.
    Skipped,
}

/// One step taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Which.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// The error code of a failed step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was found.
    pub detail: String,
    /// How to fix a failed step.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// All that was done to one plugin.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The library.
    pub library: PathBuf,
    /// Its manifest, when it was read.
    pub manifest: Option<Manifest>,
    /// Its probe symbol, when it was read.
    pub probe: Option<ProbeReport>,
    /// The steps taken.
    pub steps: Vec<StepReport>,
}

impl Report {
    pub(super) fn new(library: PathBuf) -> Self {
        Self { library, manifest: None, probe: None, steps: Vec::new() }
    }

    /// The error that ended it, if one did.
    pub fn error(&self) -> Option<PluginError> {
        let failed = self.steps.iter().find(|s| s.outcome == Outcome::Failed)?;
        let code = failed.code.clone().unwrap_or_default();
        Some(PluginError { code, message: failed.detail.clone(), help: failed.help.clone() })
    }

    /// Records a step's end and hands its value on.
    pub(super) fn record<T>(&mut self, step: Step, result: Result<(T, String)>) -> Option<T> {
        match result {
            Ok((value, detail)) => {
                self.push(step, Outcome::Passed, None, detail, String::new());
                Some(value)
            }
            Err(e) => {
                self.push(step, Outcome::Failed, Some(e.code), e.message, e.help);
                None
            }
        }
    }

    /// Refuses a plugin whose name another one, found earlier, already has.
    pub fn shadowed(&mut self, name: &str) {
        let detail = format!("a plugin named `{name}` was found earlier in the search and is used instead");
        self.push(Step::Score, Outcome::Failed, Some("plugin-shadowed".into()), detail, String::new());
    }

    pub(super) fn skip(&mut self, step: Step, reason: &str) {
        self.push(step, Outcome::Skipped, None, reason.into(), String::new());
    }

    fn push(&mut self, step: Step, outcome: Outcome, code: Option<String>, detail: String, help: String) {
        self.steps.push(StepReport { step, outcome, code, detail, help });
    }
}
