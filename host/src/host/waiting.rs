//! Requests that may not wait for a load: refused at once, while the model is loaded for those that come later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pajamas_plugin_api::Cancel;

use super::Host;
use super::setup::Setup;
use crate::config::{Task, WhileLoading};
use crate::error::{Error, Result};
use crate::models::{Spec, State};
use crate::pipeline::Request;

/// What a refused caller is told to wait: at least, for a model that was never loaded, and at most.
const WAIT: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(60)];

/// The models that are loaded for nobody in particular.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<BTreeSet<String>>);

impl Ahead {
    fn ids(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Refuses a request whose model is not in memory, where `server.while_loading` says so, and has it loaded.
    ///
    /// # Errors
    /// `model-loading` with how long to wait; why the latest load failed, since waiting would not help; `model-not-found`
    /// and what else finding the model may refuse.
    pub fn may_begin(self: &Arc<Self>, request: &Request) -> Result<()> {
        self.may_begin_with(|setup| self.foresee(setup, request))
    }

    /// As [`may_begin`](Self::may_begin), for what is no request but needs a model of text.
    ///
    /// # Errors
    /// As for that.
    pub fn may_begin_text(self: &Arc<Self>, model: Option<&str>) -> Result<()> {
        self.may_begin_with(|setup| self.resolve(setup, Task::Generate, model))
    }

    fn may_begin_with(self: &Arc<Self>, find: impl FnOnce(&Setup) -> Result<Arc<Spec>>) -> Result<()> {
        let setup = self.current.get();
        if setup.config.server.while_loading == WhileLoading::Wait {
            return Ok(());
        }
        let spec = find(&setup)?;
        if spec.remote().is_some() {
            return Ok(());
        }
        match self.models.state(&spec.id) {
            // Of a quarantined one the request says why.
            (State::Quarantined, _) => return Ok(()),
            (state, _) if state.is_in_memory() => return Ok(()),
            (State::Loading, _) => {}
            (_, failure) => {
                self.load_ahead(&spec)?;
                // After a panic the next load may well be good.
                if let Some(failure) = failure.filter(|failure| failure.breaks == 0) {
                    return Err(Error::new(failure.code, failure.message));
                }
            }
        }
        let [least, unknown, most] = WAIT;
        let wait = self.models.took_to_load(&spec.id).unwrap_or(unknown).clamp(least, most);
        Err(Error::new("model-loading", format!("`{}` is being loaded", spec.id))
            .help("try again, or set `server.while_loading = \"wait\"`")
            .retry_after(wait))
    }

    fn load_ahead(self: &Arc<Self>, spec: &Spec) -> Result<()> {
        if !self.ahead.ids().insert(spec.id.clone()) {
            return Ok(());
        }
        let (host, id) = (Arc::clone(self), spec.id.clone());
        let work = move || {
            let find = |setup: &Setup| Spec::of_model(super::configured(&setup.config, &id)?).map(Arc::new);
            if let Err(error) = host.lease_of(&find, &Cancel::new()) {
                tracing::error!(model = id, code = error.code(), "not loaded: {}", error.message());
            }
            host.ahead.ids().remove(&id);
        };
        let begun = std::thread::Builder::new().name("load".to_owned()).spawn(work);
        begun.map(drop).map_err(|error| {
            self.ahead.ids().remove(&spec.id);
            Error::new("internal", format!("no thread to load with: {error}"))
        })
    }
}
