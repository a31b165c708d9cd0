//! The choice of a model for a request: what the router has to know is gathered, it decides, the decision is kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::Cancel;
use serde_json::json;

use super::Host;
use super::ask::{ask, common};
use super::setup::Setup;
use super::similar::{Asker, Patience};
use crate::artifact::{self, Reference};
use crate::config::{Affinity, Config, Task, suggest};
use crate::error::{Error, Result};
use crate::models::Spec;
use crate::pipeline::{Request, Route};
use crate::plugins::Choice;
use crate::remote;
use crate::router::{self, Ask, Decision, Fault, Similar, decide};

/// Models that a request does not go to, and why.
pub(super) type Excluded = BTreeMap<String, Fault>;

/// How near a request is to the examples of rules: found out once, however often it is routed.
pub(super) type Compared = RefCell<BTreeMap<String, Similar>>;

/// A request that has its model.
pub(super) struct Routed {
    pub(super) spec: Arc<Spec>,
    /// `None` for a path, and for a model that was asked for by a rule's examples.
    pub(super) decision: Option<Decision>,
    /// Whether it is there to say how near two texts are.
    pub(super) compares: bool,
    /// The number of the decision among those that are kept.
    pub(super) number: Option<u64>,
    pub(super) begun: Instant,
    /// What it has in common with others: they go from now on where it goes.
    pub(super) common: Vec<u64>,
}

const AFFINITIES: [Affinity; 2] = [Affinity::Session, Affinity::Prefix];

impl Host {
    /// Refuses a name that nothing has: of a model, a ladder, an alias, or one that a rule knows.
    ///
    /// # Errors
    /// `model-not-found` with the nearest name.
    pub fn known(&self, name: &str) -> Result<()> {
        let setup = self.current.get();
        if setup.rules.know(name) { Ok(()) } else { Err(unknown(&setup.config, name)) }
    }

    /// Headers that rules look at, in lower case.
    pub fn wanted_headers(&self) -> Vec<String> {
        self.current.get().rules.headers().collect()
    }

    /// The model for a request: one of the configuration, or a path that the caller gave. The decision is kept.
    pub(super) fn route(
        &self,
        setup: &Setup,
        request: &Request,
        excluded: &Excluded,
        compared: &Compared,
        cancel: &Cancel,
    ) -> Result<Routed> {
        let begun = Instant::now();
        if let Some(spec) = path(setup, request.model.as_deref())? {
            return Ok(Routed::straight(spec, begun));
        }
        let wanted = AFFINITIES.into_iter().filter(|_| setup.rules.affinity());
        let commons: Vec<(Affinity, u64)> =
            wanted.filter_map(|affinity| Some((affinity, common(request, affinity)?))).collect();
        let ask = Ask { similar: compared.take(), ..self.sensed_for(setup, ask(request), cancel) };
        let asker = Asker { params: &request.params, cancel, patience: Patience::Usual };
        let ask = self.compared_for(setup, ask, &asker);
        compared.borrow_mut().clone_from(&ask.similar);
        let mut snapshot = self.snapshot(setup, excluded);
        snapshot.affinity = commons
            .iter()
            .filter_map(|(affinity, common)| Some((*affinity, self.still_there(*common)?)))
            .collect();
        let decision = decide(&setup.rules, &ask, &snapshot);
        let number = self.keep(setup, request, ask, snapshot, &decision);
        let spec =
            self.decided(setup, &decision).inspect_err(|error| self.close(number, begun, Some(error)))?;
        let common = commons.into_iter().map(|(_, common)| common).collect();
        Ok(Routed { decision: Some(decision), number, common, ..Routed::straight(spec, begun) })
    }

    /// The model that has what a request has in common with an earlier one in its cache still.
    fn still_there(&self, common: u64) -> Option<String> {
        let (model, loads) = self.memory.habits.of(common)?;
        (self.models.loads(&model).map(|(loads, _)| loads) == loads).then_some(model)
    }

    /// A model of the configuration, whatever the rules say.
    pub(super) fn straight(&self, setup: &Setup, id: &str) -> Result<Routed> {
        let begun = Instant::now();
        Ok(Routed { compares: true, ..Routed::straight(self.spec(setup, id)?, begun) })
    }

    /// As [`route`](Self::route), for what is no request: nothing is kept.
    pub(super) fn resolve(&self, setup: &Setup, task: Task, asked: Option<&str>) -> Result<Arc<Spec>> {
        if let Some(spec) = path(setup, asked)? {
            return Ok(spec);
        }
        let ask = Ask::new(task, asked);
        let snapshot = self.snapshot(setup, &Excluded::new());
        self.decided(setup, &decide(&setup.rules, &ask, &snapshot))
    }

    /// As [`route`](Self::route), without keeping it: the request will be routed once more.
    pub(super) fn foresee(&self, setup: &Setup, request: &Request) -> Result<Arc<Spec>> {
        if let Some(spec) = path(setup, request.model.as_deref())? {
            return Ok(spec);
        }
        let (params, cancel) = (&request.params, &Cancel::new());
        let ask = self.sensed_for(setup, ask(request), cancel);
        let ask = self.compared_for(setup, ask, &Asker { params, cancel, patience: Patience::NoLoad });
        let snapshot = self.snapshot(setup, &Excluded::new());
        self.decided(setup, &decide(&setup.rules, &ask, &snapshot))
    }

    /// The model that was decided for.
    fn decided(&self, setup: &Setup, decision: &Decision) -> Result<Arc<Spec>> {
        self.spec(setup, decision.model()?)
    }

    fn spec(&self, setup: &Setup, id: &str) -> Result<Arc<Spec>> {
        let model = setup.config.model(id).ok_or_else(|| unknown(&setup.config, id))?;
        // Looked for once more where it was not found, to say why.
        self.facts(setup, model).spec.clone().map_or_else(|| Spec::of_model(model).map(Arc::new), Ok)
    }

    /// Whether a request whose model could not be had may go to another one, which is then not this. Says why not.
    pub(super) fn may_go_elsewhere(&self, routed: &Routed, error: &Error, excluded: &mut Excluded) -> bool {
        if !routed.has_others() || error.code() == "cancelled" {
            return false;
        }
        // Of another server the breaker remembers it.
        if error.code() != "queue-full" && !remote::is_remote(error.code()) {
            self.memory.troubles.add(&routed.spec.id, error.into());
        }
        excluded.insert(routed.spec.id.clone(), error.into());
        self.record_end(routed, Some(error));
        true
    }
}

impl Routed {
    /// One that nobody had to decide on.
    fn straight(spec: Arc<Spec>, begun: Instant) -> Self {
        Self { spec, decision: None, compares: false, number: None, begun, common: Vec::new() }
    }

    /// Whether another model could take the request.
    pub(super) fn has_others(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| {
            let able = |one: &router::Considered| one.model != self.spec.id && one.rejected.is_none();
            decision.candidates.iter().any(able)
        })
    }

    /// The priority that a rule gave to the request, where it says none itself.
    pub(super) fn priority(&self) -> Option<i32> {
        self.decision.as_ref()?.priority
    }

    /// The route, as it is told.
    pub(super) fn told(&self, request: &Request, choice: &Choice<'_>) -> Route {
        let (by, reason) = match self.compares {
            true => ("similar", "examples of rules name it"),
            false => ("path", "the path asked for"),
        };
        let route = Route {
            model: self.spec.id.clone(),
            reason: reason.to_owned(),
            format: self.spec.format.clone(),
            backend: choice.backend.full_id(),
            device: choice.device.map_or_else(|| "unknown".to_owned(), |d| d.id.clone()),
            rejected: choice.rejected.clone(),
            by,
            rule: None,
            degraded_from: None,
            degraded: Vec::new(),
            breaks: Vec::new(),
            remote: self.spec.remote().map(str::to_owned),
            trace: None,
        };
        let Some(decision) = &self.decision else { return route };
        let degraded = decision.degraded.as_ref();
        Route {
            reason: decision.reason(request.task),
            by: decision.by.name(),
            rule: decision.rule.clone(),
            degraded_from: degraded.map(|degraded| degraded.from.to_string()),
            degraded: degraded.iter().flat_map(|d| d.what.iter().map(ToString::to_string)).collect(),
            breaks: decision.breaks.iter().map(|reason| reason.name().to_owned()).collect(),
            trace: request.params.hints.trace.then(|| json!(decision)),
            ..route
        }
    }
}

/// The model at a path, where that was asked for.
fn path(setup: &Setup, asked: Option<&str>) -> Result<Option<Arc<Spec>>> {
    let Some(word) = asked.filter(|word| !setup.rules.know(word)) else { return Ok(None) };
    match artifact::resolve(word, &setup.config)? {
        Reference::Path(source) => Ok(Some(Arc::new(Spec::of_path(word, &source)?))),
        Reference::Configured(_) => Ok(None),
    }
}

/// Nothing has this name.
pub(super) fn unknown(config: &Config, name: &str) -> Error {
    Error::new("model-not-found", format!("no model `{name}` is configured")).help(suggest::help(
        name,
        "models",
        config.names(),
    ))
}
