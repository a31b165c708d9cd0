//! How well a backend runs one model, where it knows more than its probe said of the machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pajamas_plugin_api::{Cancel, LoadRequest};
use serde::Deserialize;

use super::{ActiveBackend, extension};

/// The extension of backends that judges a model: `docs/src/abi-versioning.md`.
const FITNESS: &str = "pajamas.fitness/1";

/// Answers that are kept; then all are asked for again.
const MOST: usize = 1024;

/// What a backend says of one model.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Fit {
    /// In place of the probe's score.
    pub(super) score: u32,
    /// Why.
    pub(super) reason: String,
}

/// What backends said, so that each is asked once for a model: it reads the file for it.
#[derive(Debug, Default)]
pub(super) struct Fitness(Mutex<HashMap<String, Option<Arc<Fit>>>>);

impl Fitness {
    /// What `backend` says of the model; `None` when it has nothing to add to its probe. A model that it cannot read
    /// is no matter here: loading says what is wrong.
    pub(super) fn of(&self, backend: &ActiveBackend, request: &LoadRequest) -> Option<Arc<Fit>> {
        let question = serde_json::to_value(request).ok()?;
        let key = format!("{} {question}", backend.full_id());
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fit) = known().get(&key) {
            return fit.clone();
        }
        let ask = || {
            let judge = backend.backend.extension(FITNESS)?;
            let answer = extension::call(&*judge, &question, &mut extension::silent, &Cancel::new()).ok()?;
            serde_json::from_value::<Option<Fit>>(answer).ok()?
        };
        let fit = ask().map(Arc::new);
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, fit.clone());
        fit
    }
}
