//! Another configuration for a running host: checked as a whole, compared, and applied where it is different.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::Cancel;
use serde::Serialize;

use super::Host;
use crate::config::{Changes, Config};
use crate::error::{Error, Result};
use crate::models::Spec;

/// What made a host read its configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The process got SIGHUP.
    Signal,
    /// The file is another.
    File,
    /// Somebody asked for it over HTTP.
    Admin,
}

impl Cause {
    /// Whether somebody wants to know what came of it. A file whose changes were asked for by hand is seen to be another
    /// a moment later: that is none.
    pub fn is_news(self, result: &Result<Changes>) -> bool {
        self != Self::File || !matches!(result, Ok(changes) if changes.is_empty())
    }
}

/// What became of reading the configuration again.
#[derive(Debug, Clone, Serialize)]
pub struct Reload {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// Why.
    pub cause: Cause,
    /// What is different now; missing when the new configuration was refused.
    pub changes: Option<Changes>,
    /// Why it was refused; the configuration before it is in force.
    pub error: Option<Refused>,
}

/// An error as it is told.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// Its code.
    pub code: String,
    /// What is wrong, and where.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        let [code, message, help] = [error.code(), error.message(), error.how_to_fix()].map(str::to_owned);
        Self { code, message, help }
    }
}

impl Host {
    /// Exchanges the configuration. Requests that run keep the old one to their end, with the model that they have;
    /// models that are the same stay in memory.
    ///
    /// # Errors
    /// What is wrong with the new one, its stages or its new and changed models: then nothing is different.
    pub fn reconfigure(&self, new: Config) -> Result<Changes> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply(new)
    }

    /// Reads the configuration again from where it came from, and exchanges it.
    ///
    /// # Errors
    /// As for [`Config::load`] and [`reconfigure`](Self::reconfigure).
    pub fn reload(&self, cause: Cause) -> Result<Changes> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.config().again().map_err(Error::from).and_then(|new| self.apply(new));
        self.metrics.reloaded(result.is_ok());
        match &result {
            Ok(changes) if !changes.needs_restart.is_empty() => {
                tracing::warn!(?cause, "configuration reloaded: {changes}");
            }
            Ok(changes) => tracing::info!(?cause, "configuration reloaded: {changes}"),
            Err(error) => {
                let code = error.code();
                tracing::error!(?cause, code, "the configuration stays as it was: {}", error.message());
            }
        }
        if cause.is_news(&result) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reload {
                time: u64::try_from(now).unwrap_or(u64::MAX),
                cause,
                changes: result.as_ref().ok().cloned(),
                error: result.as_ref().err().map(Refused::from),
            });
        }
        result
    }

    /// The latest reload that there is something to say about.
    pub fn last_reload(&self) -> Option<Reload> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Only one at a time: the caller holds the lock.
    fn apply(&self, new: Config) -> Result<Changes> {
        let mut new = new.with_ways();
        let old = self.current.get();
        let changes = new.succeed(&old.config)?;
        let known = self.stages.names();
        new.check_stages(&known.iter().map(String::as_str).collect::<Vec<_>>())?;
        for id in changes.models.added.iter().chain(&changes.to_load_anew) {
            new.model(id).map_or(Ok(()), |model| Spec::of_model(model).map(drop))?;
        }
        let memory = (new.memory != old.config.memory).then(|| new.memory.clone());
        let next = old.next(new, &changes)?;
        let generation = next.generation;
        // An id that comes back later means another model than the one that went.
        let others = changes.models.removed.iter().chain(&changes.to_load_anew).map(String::as_str);
        let ttls = next.config.ttls();
        self.current.exchange(next, || self.models.outdate(others, generation));
        self.models.set_ttls(ttls);
        // What was pinned by hand stays so unless its entry is another now.
        let config = self.config();
        for id in changes.models.all() {
            self.models.pin(id, config.model(id).is_some_and(|model| model.pin));
        }
        self.jobs.limit(super::jobs::limits(&config));
        if let Some(memory) = memory {
            self.models.limit(memory);
        }
        Ok(changes)
    }

    /// Loads the new and changed models that the configuration wants ready.
    pub fn preload_changed(&self, changes: &Changes, cancel: &Cancel) {
        self.preload_those(|id| changes.models.names(id), cancel);
    }
}
