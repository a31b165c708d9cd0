//! Artifacts that are made while models are served.

use std::sync::Arc;

use super::Host;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::jobs::{Jobs, Limits, Quantize, Status};

/// How many jobs there may be under a configuration.
pub(super) fn limits(config: &Config) -> Limits {
    Limits { queue: config.jobs.max_queue as usize, history: config.jobs.history as usize }
}

impl Host {
    /// The jobs that there are.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Puts a job behind the others that makes an artifact. What can be seen to be wrong with it is refused now; of a
    /// configuration that changes meanwhile it keeps the folder that it began with.
    ///
    /// # Errors
    /// `jobs-off` without `jobs.folder`; those of [`Quantize::within`] and [`Jobs::add`].
    pub fn quantize(&self, wanted: Quantize) -> Result<Status> {
        let folder = self.config().jobs.folder.clone().ok_or_else(|| {
            Error::new("jobs-off", "this server makes nothing: its configuration has no `jobs.folder`").help(
                "the operator may write `folder = \"…\"` below `[jobs]` into pajamas.toml, or use `pajamas convert`",
            )
        })?;
        wanted.within(&folder, &self.plugins)?;
        let asked = wanted.asked()?;
        let plugins = Arc::clone(&self.plugins);
        self.jobs.add(
            asked,
            Box::new(move |progress, cancel| {
                wanted.within(&folder, &plugins)?.run(&plugins, progress, cancel)
            }),
        )
    }
}
