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
const WAIT: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(600)];

/// The models that are loaded for nobody in particular.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    /// Those that are being loaded.
    loading: BTreeSet<String>,
    /// Those that are to be, as soon as somebody can.
    wanted: BTreeSet<String>,
}

impl Ahead {
    /// Whether this one is being loaded.
    pub(super) fn loads(&self, id: &str) -> bool {
        self.ids().loading.contains(id)
    }

    /// This one is to be loaded, with the next request that comes or this one.
    pub(super) fn want(&self, id: &str) {
        self.ids().wanted.insert(id.to_owned());
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
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
        let may = self.may_begin_with(|setup| self.foresee(setup, request));
        let wanted = std::mem::take(&mut self.ahead.ids().wanted);
        for id in wanted {
            // Without it rules are passed over, and no request fails.
            if let Err(error) = self.load_ahead(&id) {
                tracing::error!(model = id, code = error.code(), "not loaded: {}", error.message());
            }
        }
        may
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
                if let Some(error) = self.models.back_off(&spec.id) {
                    return Err(error);
                }
                self.load_ahead(&spec.id)?;
                // After a panic the next load may well be good.
                if let Some(failure) = failure.filter(|failure| failure.breaks == 0) {
                    return Err(Error::new(failure.code, failure.message));
                }
            }
        }
        let [least, unknown, most] = WAIT;
        let wait = self.models.left_to_load(&spec.id).unwrap_or(unknown).clamp(least, most);
        // In whole seconds, of which none is too few.
        let wait = Duration::from_secs(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
        Err(Error::new("model-loading", format!("`{}` is being loaded", spec.id))
            .help("try again, or set `server.while_loading = \"wait\"`")
            .retry_after(wait))
    }

    fn load_ahead(self: &Arc<Self>, id: &str) -> Result<()> {
        if !self.ahead.ids().loading.insert(id.to_owned()) {
            return Ok(());
        }
        let (host, wanted) = (Arc::clone(self), id.to_owned());
        let work = move || {
            let find =
                |setup: &Setup| Spec::of_model(super::configured(&setup.config, &wanted)?).map(Arc::new);
            if let Err(error) = host.lease_of(&find, &Cancel::new()) {
                tracing::error!(model = wanted, code = error.code(), "not loaded: {}", error.message());
            }
            host.ahead.ids().loading.remove(&wanted);
        };
        let begun = std::thread::Builder::new().name("load".to_owned()).spawn(work);
        begun.map(drop).map_err(|error| {
            self.ahead.ids().loading.remove(id);
            Error::new("internal", format!("no thread to load with: {error}"))
        })
    }
}
