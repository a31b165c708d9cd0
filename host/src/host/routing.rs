//! The choice of a model: what the router has to know is gathered, it decides, the decision is kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::{Cancel, EngineStats};
use serde_json::{Value, json};

use super::Host;
use super::ask::{ask, common, sensed};
use super::setup::Setup;
use super::similar::{Asker, Patience};
use crate::artifact::{self, Reference};
use crate::config::{Affinity, Config, Known, Ladder, Model, Record as Keep, Task, suggest};
use crate::error::{Error, Result};
use crate::metrics::Took;
use crate::models::{DeviceGlance, Lease, Spec, State, by_device};
use crate::pipeline::{Outcome, Output, Request, Route};
use crate::plugins::Choice;
use crate::remote;
use crate::router::{self, Ask, Decision, Device, Ended, Fault, Record, Similar, Snapshot, decide};

/// What is known of a configured model without loading it; found out once for a configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Where it lies and what it is; `None` where that was not found out.
    spec: Option<Arc<Spec>>,
    task: Option<Task>,
    source: String,
    context: Option<u32>,
    device: String,
    /// What it would hold on its device.
    memory: Option<u64>,
    unusable: Option<Fault>,
}

/// Models that a request does not go to, and why.
pub(super) type Excluded = BTreeMap<String, Fault>;

/// How near a request is to the examples of rules: found out once, however often it is routed.
pub(super) type Compared = RefCell<BTreeMap<String, Similar>>;

/// A request that has its model.
pub(super) struct Routed {
    pub(super) spec: Arc<Spec>,
    /// `None` for a path, and for a model that was asked for by a rule's examples.
    decision: Option<Decision>,
    /// Whether it is there to say how near two texts are.
    compares: bool,
    /// The number of the decision among those that are kept.
    number: Option<u64>,
    begun: Instant,
    /// What it has in common with others: they go from now on where it goes.
    common: Vec<u64>,
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

    /// The latest decisions, the oldest first, and what a decision would be made of now.
    pub fn decisions(&self) -> Value {
        let setup = self.current.get();
        let snapshot = self.snapshot(&setup, &Excluded::new());
        // The names of a configuration that was checked stand for something.
        let ladder = |l: &Ladder| {
            let steps = setup.config.steps(&l.id).unwrap_or_default();
            json!({ "id": l.id, "description": l.description, "steps": steps })
        };
        json!({
            "rules": setup.rules.fingerprint(),
            "ladders": setup.config.ladders.iter().map(ladder).collect::<Vec<_>>(),
            "snapshot": snapshot,
            "decisions": self.memory.decisions.all(),
        })
    }

    /// What a decision would be made of now.
    pub fn snapshot_now(&self) -> Snapshot {
        self.snapshot(&self.current.get(), &Excluded::new())
    }

    /// Headers that rules look at, in lower case.
    pub fn wanted_headers(&self) -> Vec<String> {
        self.current.get().rules.headers().collect()
    }

    /// Compares rules and ladders with the models that they name: what these do, and whether they can ever be in the
    /// memory of this machine. Of a model that no backend here can run nothing is known.
    ///
    /// # Errors
    /// `config-conflict`, `config-too-large`.
    pub fn check_routes(&self) -> Result<()> {
        let setup = self.current.get();
        let devices = self.models.glance([]).devices;
        let mut known = BTreeMap::new();
        for model in &setup.config.models {
            let facts = self.look(model, true).unwrap_or_default();
            let budget = devices.get(&facts.device).map(|device| device.budget);
            let memory = budget.zip(facts.memory);
            let leaves = memory.and_then(|(budget, needs)| budget.checked_sub(needs));
            let too_large = memory.filter(|(budget, needs)| needs > budget);
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            let too_large = too_large.map(|(budget, needs)| {
                let (needs, budget) = (mib(needs), mib(budget));
                format!(
                    "`{}` needs {needs} MiB on {}, where models may hold {budget} MiB",
                    model.id, facts.device
                )
            });
            known.insert(model.id.to_string(), Known { task: facts.task, too_large, leaves });
        }
        Ok(setup.config.check_known(&|id| known.get(id).cloned().unwrap_or_default())?)
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
        let routed =
            |spec| Routed { spec, decision: None, compares: false, number: None, begun, common: Vec::new() };
        if let Some(spec) = path(setup, request.model.as_deref())? {
            return Ok(routed(spec));
        }
        let wanted = AFFINITIES.into_iter().filter(|_| setup.rules.affinity());
        let commons: Vec<(Affinity, u64)> =
            wanted.filter_map(|affinity| Some((affinity, common(request, affinity)?))).collect();
        let ask = Ask { similar: compared.take(), ..sensed(&setup.rules, ask(request)) };
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
        Ok(Routed { decision: Some(decision), number, common, ..routed(spec) })
    }

    /// The model that has what a request has in common with an earlier one in its cache still.
    fn still_there(&self, common: u64) -> Option<String> {
        let (model, loads) = self.memory.habits.of(common)?;
        (self.models.loads(&model).map(|(loads, _)| loads) == loads).then_some(model)
    }

    /// A model of the configuration, whatever the rules say.
    pub(super) fn straight(&self, setup: &Setup, id: &str) -> Result<Routed> {
        let begun = Instant::now();
        let spec = self.spec(setup, id)?;
        Ok(Routed { spec, decision: None, compares: true, number: None, begun, common: Vec::new() })
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
        let ask = sensed(&setup.rules, ask(request));
        let (params, cancel) = (&request.params, &Cancel::new());
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

    fn keep(
        &self,
        setup: &Setup,
        request: &Request,
        ask: Ask,
        snapshot: Snapshot,
        decision: &Decision,
    ) -> Option<u64> {
        let ask = match setup.config.routing.record {
            Keep::Off => return None,
            Keep::Facts => setup.rules.without_words(ask, decision),
            Keep::Text => ask,
        };
        Some(self.memory.decisions.keep(&Record {
            request: request.params.hints.id.clone(),
            rules: setup.rules.fingerprint().to_owned(),
            ask,
            snapshot,
            decision: decision.clone(),
            outcome: None,
        }))
    }

    /// All that a decision may look at, but for where requests like it went.
    pub(super) fn snapshot(&self, setup: &Setup, excluded: &Excluded) -> Snapshot {
        let config = &setup.config;
        let glance = self.models.glance(config.models.iter().map(|model| &*model.id));
        let inside: BTreeMap<String, u32> = self.admission.inside().into_iter().collect();
        let troubles = self.memory.troubles.now();
        let models = config.models.iter().map(|model| {
            let facts = self.facts(setup, model);
            let spec = facts.spec.as_deref();
            let id = model.id.to_string();
            let (mut state, held) = glance.models.get(&id).cloned().unwrap_or_default();
            if model.remote.is_some() && state == State::Unloaded {
                // Nothing has to be loaded for it.
                state = State::Ready;
            }
            let health = &self.memory.health;
            let resting = model.remote.as_ref().and_then(|remote| health.refuses(&id, remote));
            let resting = resting.as_ref().map(Fault::from);
            let (observed, slots) = self.memory.observed.of(&id, &facts.device);
            let known = router::Model {
                task: facts.task,
                state,
                source: facts.source.clone(),
                format: spec.map_or_else(String::new, |spec| spec.format.clone()),
                precision: spec.and_then(|spec| spec.precision.clone()),
                context: facts.context,
                device: facts.device.clone(),
                memory: held.get(&facts.device).copied().or(facts.memory),
                gave_back: glance
                    .gave_back
                    .get(&id)
                    .and_then(|held| held.get(&facts.device))
                    .copied()
                    .unwrap_or(0),
                inside: inside.get(&id).copied().unwrap_or(0),
                // Until it was asked for the first time, what its entry says.
                slots: if slots == 0 {
                    model.remote.as_ref().map_or(0, |remote| remote.parallel)
                } else {
                    slots
                },
                remote: model.remote.is_some(),
                cost: model.cost.get(),
                unusable: excluded
                    .get(&id)
                    .or(resting.as_ref())
                    .or_else(|| troubles.get(&id))
                    .or(facts.unusable.as_ref())
                    .cloned(),
                observed,
            };
            (id, known)
        });
        let heat = setup.rules.heat();
        let devices = glance.devices.iter().map(|(id, device)| {
            let DeviceGlance { room, held, idle, .. } = *device;
            let temperature = if heat { self.temperature(id) } else { None };
            (id.clone(), Device { budget: room, held, idle, temperature })
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Snapshot {
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            models: models.collect(),
            devices: devices.collect(),
            affinity: BTreeMap::new(),
        }
    }

    /// The temperature of a device in degrees Celsius, where it is known.
    fn temperature(&self, device: &str) -> Option<u32> {
        if device == "cpu" {
            return self.memory.heat.cpu();
        }
        let mut devices = self.plugins.backends().iter().flat_map(|backend| &backend.probe.devices);
        let name = devices.find(|known| known.id == device).map_or("", |known| &known.name);
        if device.starts_with("cuda:") { self.memory.heat.gpu(name) } else { None }
    }

    /// Found out when it is asked for the first time; again and again where something is wrong, which may pass.
    fn facts(&self, setup: &Setup, model: &Model) -> Arc<Facts> {
        if let Some(facts) = setup.facts(&model.id) {
            return facts;
        }
        // A backend reads the file to estimate: only where models are compared.
        let facts = match self.look(model, setup.rules.compare(&model.id)) {
            Ok(facts) => Arc::new(facts),
            Err(error) => {
                let unusable = Some(Fault::from(&error));
                return Arc::new(Facts { task: model.task, unusable, ..Facts::default() });
            }
        };
        if facts.unusable.is_none() {
            setup.know(&model.id, &facts);
        }
        facts
    }

    fn look(&self, model: &Model, estimate: bool) -> Result<Facts> {
        let spec = Spec::of_model(model)?;
        let mut hasher = DefaultHasher::new();
        model.location().hash(&mut hasher);
        model.remote.as_ref().map(|remote| (&remote.url, &remote.model)).hash(&mut hasher);
        let context = spec.options.get("context_length").and_then(Value::as_u64);
        let mut facts = Facts {
            task: spec.task,
            source: format!("{:016x}", hasher.finish()),
            context: context.and_then(|tokens| u32::try_from(tokens).ok()),
            ..Facts::default()
        };
        let spec = Arc::new(spec);
        facts.spec = Some(Arc::clone(&spec));
        match self.plugins.choose(spec.asked()) {
            Ok(choice) => {
                facts.device = choice.device.map_or_else(String::new, |device| device.id.clone());
                if estimate {
                    let runner = choice.backend.runner(spec.isolation)?;
                    let estimate = runner.estimate(&spec.asked().request(choice.device));
                    match estimate {
                        Ok(memory) => facts.memory = by_device(&memory).get(&facts.device).copied(),
                        Err(error) => facts.unusable = Some(Fault::from(&Error::from(error))),
                    }
                }
            }
            Err(error) => facts.unusable = Some(Fault::from(&error)),
        }
        Ok(facts)
    }

    /// A model was loaded or woken, or was ready already: what that took is remembered.
    pub(super) fn leased(&self, lease: &Lease) {
        let (model, device) = (&lease.id, &lease.device);
        self.memory.troubles.over(model);
        if let Some((wakes, took)) = self.models.wakes(model) {
            self.memory.observed.woken(model, device, wakes, took);
        }
        let Some((loads, took)) = self.models.loads(model) else { return };
        if self.memory.observed.loaded(model, device, loads, took)
            && let Ok(Some(stats)) = EngineStats::of(&*lease.session)
        {
            self.memory.observed.has_slots(model, device, stats.slots);
        }
    }

    /// A request ended: what it took is remembered, and where it went.
    pub(super) fn ended(&self, routed: &Routed, device: &str, worked: Duration, result: &Result<Outcome>) {
        let id = &routed.spec.id;
        if routed.decision.is_none() && !routed.compares {
            return;
        }
        if let Ok(outcome) = result {
            self.memory.observed.add(id, device, took(&outcome.output, worked));
            let loads = self.models.loads(id).map(|(loads, _)| loads);
            for common in &routed.common {
                self.memory.habits.went(*common, (id.clone(), loads));
            }
        }
        self.record_end(routed, result.as_ref().err());
    }

    /// What became of a request, without anything to remember.
    pub(super) fn record_end(&self, routed: &Routed, error: Option<&Error>) {
        self.close(routed.number, routed.begun, error);
    }

    /// A decision of this number has its outcome, and goes to the log as it is now.
    fn close(&self, number: Option<u64>, begun: Instant, error: Option<&Error>) {
        let Some(number) = number else { return };
        let code = error.map_or("ok", Error::code).to_owned();
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.memory.decisions.ended(number, Ended { code, took });
        if let Some(path) = &self.current.get().config.routing.log
            && let Some(told) = self.memory.decisions.one(number)
        {
            self.memory.decision_log.add(path, &told.to_string());
        }
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
        let route = Route {
            model: self.spec.id.clone(),
            reason: if self.compares { "examples of rules name it" } else { "the path asked for" }.to_owned(),
            format: self.spec.format.clone(),
            backend: choice.backend.full_id(),
            device: choice.device.map_or_else(|| "unknown".to_owned(), |d| d.id.clone()),
            rejected: choice.rejected.clone(),
            by: if self.compares { "similar" } else { "path" },
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
            degraded_from: degraded.map(|degraded| degraded.from.clone()),
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

fn took(output: &Output, worked: Duration) -> Took {
    let Output::Text(summary) = output else { return Took { service: worked, ..Took::default() } };
    let (usage, timings) = (summary.usage, &summary.timings);
    let time = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
    Took {
        service: worked.saturating_sub(time(timings.queue_ms)),
        first_token: Some((usage.prompt_tokens.saturating_sub(usage.cached_tokens), time(timings.prompt_ms))),
        decode: Some((usage.completion_tokens, time(timings.decode_ms))),
    }
}
