//! The façade: configuration in, [`Host::run`] out. What the server and the command line both call.

mod ask;
mod decision_log;
mod intent;
mod jobs;
mod memory;
mod quota;
mod recommend;
mod record;
mod reload;
mod routing;
mod setup;
mod similar;
mod snapshot;
mod speak;
mod vectors;
mod waiting;
mod warm;
mod work;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pajamas_plugin_api::{Cancel, EngineStats, ProgressSink, Prompt, Token};

use crate::admission::{Admission, Keys};
use crate::chat::Conversation;
use crate::config::{Config, Model, Task};
use crate::error::{Error, Result};
use crate::hardware::Hardware;
use crate::jobs::Jobs;
use crate::metrics::{Metrics, Now};
use crate::models::{Keep, Lease, Loaded, Models, Order, Spec, Status, is_lost};
use crate::pipeline::{Event, Outcome, Request, Route, text};
use crate::plugins::{Choice, Machine, Plugins};
use crate::remote;
use crate::stages::Stages;
pub use ask::ask as ask_of;
pub use intent::sensed;
use memory::Memory;
use quota::{counted, priority, with_wait};
pub use recommend::recommended;
pub use reload::{Cause, Refused, Reload};
use routing::{Compared, Excluded, Routed, unknown};
pub use setup::rules_of;
use setup::{Current, Setup};
use waiting::Ahead;
use work::Work;

/// A running host. Share it behind an `Arc`; every method may be called from any thread, and blocks it.
pub struct Host {
    current: Current,
    /// Held by who exchanges the configuration: one at a time.
    reloading: Mutex<()>,
    last_reload: Mutex<Option<Reload>>,
    hardware: Hardware,
    plugins: Arc<Plugins>,
    stages: Stages,
    models: Arc<Models>,
    admission: Arc<Admission>,
    keys: Arc<Keys>,
    metrics: Metrics,
    ahead: Ahead,
    memory: Memory,
    jobs: Jobs,
}

/// What is told while a request is carried out; `Break` cancels it.
pub type Events<'e> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'e;

/// Finds the model of a request, other than those that are excluded.
type Find<'f> = dyn Fn(&Setup, &Request, &Excluded) -> Result<Routed> + 'f;

impl Host {
    /// Starts a host: looks at the machine, opens the plugins, sets the stages up. Loads no model.
    ///
    /// # Errors
    /// What is wrong with the configuration's stages; a plugin that is refused is no error but a report.
    pub fn start(config: Config) -> Result<Self> {
        let config = config.with_ways();
        let hardware = Hardware::detect();
        let mut plugins = Plugins::load(&config.plugins);
        plugins.add(remote::backend());
        let plugins = Arc::new(plugins);
        let stages = Stages::new(&config.stages)?;
        let known = stages.names();
        config.check_stages(&known.iter().map(String::as_str).collect::<Vec<_>>())?;
        let models =
            Models::new(config.memory.clone(), hardware.memory.total).on(Machine::new(Arc::clone(&plugins)));
        let models = Arc::new(models);
        models.set_ttls(config.ttls());
        config.models.iter().filter(|model| model.pin).for_each(|model| models.pin(&model.id, true));
        for device in plugins.backends().iter().flat_map(|backend| &backend.probe.devices) {
            models.expect(&device.id, device.memory_total);
        }
        let jobs = Jobs::new(jobs::limits(&config))?;
        Ok(Self {
            current: Current::new(config)?,
            reloading: Mutex::default(),
            last_reload: Mutex::default(),
            hardware,
            plugins,
            stages,
            models,
            admission: Arc::default(),
            keys: Arc::default(),
            metrics: Metrics::default(),
            ahead: Ahead::default(),
            memory: Memory::default(),
            jobs,
        })
    }

    /// The configuration it runs under now. Another may take its place at any time: who needs several values that fit
    /// together takes them from one.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.current.get().config)
    }

    /// The machine it runs on.
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// Its native plugins.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// Its WASM stages.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Its loaded models.
    pub fn models(&self) -> &Arc<Models> {
        &self.models
    }

    /// What a configured model does, as far as that is known without loading it.
    pub fn task_of(&self, model: &Model) -> Option<Task> {
        model.task.or_else(|| Spec::of_model(model).ok().and_then(|spec| spec.task))
    }

    /// Carries out one request: looks what its key may still use, routes it, loads the model when it has to, runs the
    /// pipeline.
    ///
    /// # Errors
    /// Everything that can be refused has a code: `rate-limited`, `model-not-found`, `backend-unavailable`,
    /// `out-of-memory`, `context-length-exceeded`, a stage's or a backend's own, `cancelled`.
    pub fn run(&self, request: Request, cancel: &Cancel, events: &mut Events<'_>) -> Result<Outcome> {
        let compared = Compared::default();
        let find = |setup: &Setup, request: &Request, excluded: &Excluded| {
            self.route(setup, request, excluded, &compared, cancel)
        };
        match self.pass(&request)? {
            Some(pass) => counted(pass, events, |events| self.admitted(request, cancel, events, &find)),
            None => self.admitted(request, cancel, events, &find),
        }
    }

    fn admitted(
        &self,
        mut request: Request,
        cancel: &Cancel,
        events: &mut Events<'_>,
        find: &Find<'_>,
    ) -> Result<Outcome> {
        let said = request.params.priority;
        let mut told: Option<Route> = None;
        let mut excluded = Excluded::new();
        let mut retried = false;
        loop {
            let setup = self.current.get();
            let routed = find(&setup, &request, &excluded)?;
            let key = request.params.hints.key.as_deref();
            request.params.priority = priority(&setup.config, said, routed.priority(), key);
            let spec = &*routed.spec;
            let choice = match self.plugins.choose(spec.asked()) {
                Ok(choice) => choice,
                Err(error) if self.may_go_elsewhere(&routed, &error, &mut excluded) => continue,
                Err(error) => return self.fail(&routed, error),
            };
            let route = routed.told(&request, &choice);
            let comer = self.comer(spec, &choice, &request);
            let ticket = match self.admission.enter(comer, setup.config.server.max_queue, cancel) {
                Ok(ticket) => ticket,
                Err(error) if self.may_go_elsewhere(&routed, &error, &mut excluded) => continue,
                Err(error) => return self.fail(&routed, error),
            };
            let remote = setup.config.model(&spec.id).and_then(|model| model.remote.as_ref());
            let permit = remote.map(|remote| self.memory.health.enter(&spec.id, remote)).transpose();
            let permit = match permit {
                Ok(permit) => permit,
                Err(error) if self.may_go_elsewhere(&routed, &error, &mut excluded) => continue,
                Err(error) => return self.fail(&routed, error),
            };
            if told.as_ref() != Some(&route) && events(Event::Route(&route)).is_break() {
                return self.fail(&routed, Error::new("cancelled", "the request was cancelled"));
            }
            told = Some(route.clone());
            let mut meter = self.metrics.begin(request.task, &route);
            let mut streamed = false;
            let mut measured = |event: Event<'_>| {
                streamed |= matches!(event, Event::Token { .. } | Event::Parts(_));
                if let Event::Token { .. } = event {
                    meter.token();
                }
                events(event)
            };
            let keep = request.params.keep_alive;
            let lease = match self.lease(&setup, spec, &choice, keep, cancel, &mut measured) {
                // The model became another one before this request had it: it begins anew.
                Ok(None) => {
                    request.model.as_deref().map_or(Ok(()), |name| self.known(name))?;
                    continue;
                }
                Ok(Some(lease)) => lease,
                Err(error) if self.may_go_elsewhere(&routed, &error, &mut excluded) => continue,
                Err(error) => {
                    let result = self.fail(&routed, error);
                    meter.end(&result);
                    return result;
                }
            };
            self.leased(&lease);
            let begun = Instant::now();
            // Kept for another try only where one session's end is not that of the host.
            let may_leave = permit.is_some() && routed.has_others();
            let again = (may_leave || lease.isolated && !retried).then(|| request.clone());
            let Request { task, input, params, .. } = request;
            let work = Work { host: self, setup: &setup, task, spec, lease: &lease };
            let result = work.carry_out(input, &params, cancel, &mut measured);
            let worked = begun.elapsed();
            match &result {
                Ok(_) => self.models.succeeded(&spec.id),
                Err(e) if is_lost(e) => self.models.broke(&lease, e),
                Err(_) => {}
            }
            if let Some(permit) = permit {
                permit.ended(&result);
            }
            let again = again.filter(|_| !streamed && !cancel.is_cancelled());
            if let (Err(error), Some(whole)) = (&result, &again)
                && remote::is_remote(error.code())
                && self.may_go_elsewhere(&routed, error, &mut excluded)
            {
                tracing::warn!(
                    model = spec.id,
                    code = error.code(),
                    "another model is asked: nothing was answered yet"
                );
                request = whole.clone();
                meter.end(&result.map(|(output, steps)| Outcome { route, output, steps }));
                continue;
            }
            let lost = result.as_ref().is_err_and(|error| error.code().starts_with("worker-"));
            if let Some(whole) = again.filter(|_| lost) {
                tracing::warn!(model = spec.id, "tried once more: nothing was answered yet");
                self.record_end(&routed, result.as_ref().err());
                meter.end(&result.map(|(output, steps)| Outcome { route, output, steps }));
                (request, retried) = (whole, true);
                continue;
            }
            let result = result.map(|(output, steps)| Outcome { route, output, steps });
            self.ended(&routed, &lease.device, worked, &result);
            let result = result.map(|outcome| with_wait(outcome, ticket.waited()));
            meter.end(&result);
            return result;
        }
    }

    /// A request that has a decision ends without a model.
    fn fail(&self, routed: &Routed, error: Error) -> Result<Outcome> {
        self.record_end(routed, Some(&error));
        Err(error)
    }

    /// What has been counted and timed so far, and the state of everything now, in OpenMetrics text.
    ///
    /// # Errors
    /// `internal` when it cannot be written.
    pub fn metrics_text(&self) -> Result<String> {
        let engine = |model: Arc<Loaded>| {
            let stats = EngineStats::of(&*model.session).ok().flatten()?;
            Some((model.id.clone(), stats))
        };
        let now = Now {
            inside: self.admission.inside(),
            keys: self.keys.inside(),
            waiting: self.admission.waiting(),
            models: self.models_status(),
            engines: self.models.loaded().into_iter().filter_map(engine).collect(),
            devices: self.models.devices(),
            plugins: self.plugins.loaded(),
            jobs: self.jobs.counts(),
            remotes: self.remotes().into_iter().map(|remote| (remote.model, remote.state)).collect(),
        };
        self.metrics.encode(&now).map_err(|_| Error::new("internal", "the metrics cannot be written"))
    }

    /// What the host counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the models of the configuration, and others in memory, are doing.
    pub fn models_status(&self) -> Vec<Status> {
        self.models.status(self.config().models.iter().map(|model| &*model.id))
    }

    /// A model of the configuration.
    ///
    /// # Errors
    /// `model-not-found` with the nearest name.
    pub fn configured(&self, id: &str) -> Result<Model> {
        configured(&self.config(), id).cloned()
    }

    /// Loads a model of the configuration, also one that was quarantined. Blocks until it is ready.
    ///
    /// # Errors
    /// `model-not-found`, and what loading may refuse.
    pub fn load(&self, id: &str, cancel: &Cancel) -> Result<()> {
        let find = |setup: &Setup| {
            let model = configured(&setup.config, id)?;
            let spec = Spec::of_model(model)?;
            self.models.forgive(&model.id);
            self.memory.health.forgive(&model.id);
            Ok(Arc::new(spec))
        };
        self.lease_of(&find, cancel).map(drop)
    }

    /// Turns text into the model's tokens.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn tokenize(&self, model: Option<&str>, prompt: &Prompt, cancel: &Cancel) -> Result<Vec<Token>> {
        Ok(self.text_model(model, cancel)?.session.tokenize(prompt)?)
    }

    /// Turns the model's tokens into text.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn detokenize(&self, model: Option<&str>, tokens: &[u32], cancel: &Cancel) -> Result<String> {
        Ok(self.text_model(model, cancel)?.session.detokenize(tokens)?)
    }

    /// The prompt that a conversation becomes, by the model's own template.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn render(
        &self,
        model: Option<&str>,
        conversation: &Conversation,
        cancel: &Cancel,
    ) -> Result<String> {
        let model = self.text_model(model, cancel)?;
        text::rendered(&model.signature, conversation)
    }

    /// How many tokens a conversation is, as [`run`](Self::run) would send it.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn count(&self, model: Option<&str>, conversation: &Conversation, cancel: &Cancel) -> Result<usize> {
        let model = self.text_model(model, cancel)?;
        Ok(model.session.tokenize(&text::conversation(&model.signature, conversation)?)?.len())
    }

    fn text_model(&self, model: Option<&str>, cancel: &Cancel) -> Result<Lease> {
        self.lease_of(&|setup| self.resolve(setup, Task::Generate, model), cancel)
    }

    /// The model that `find` finds in the configuration, loaded.
    fn lease_of(&self, find: &dyn Fn(&Setup) -> Result<Arc<Spec>>, cancel: &Cancel) -> Result<Lease> {
        loop {
            let setup = self.current.get();
            let spec = find(&setup)?;
            let choice = self.plugins.choose(spec.asked())?;
            if let Some(lease) =
                self.lease(&setup, &spec, &choice, None, cancel, &mut |_| ControlFlow::Continue(()))?
            {
                return Ok(lease);
            }
        }
    }

    /// Loads the models that the configuration wants ready from the start. One that fails is logged: its requests
    /// will say why.
    pub fn preload(&self, cancel: &Cancel) {
        self.preload_those(|_| true, cancel);
    }

    fn preload_those(&self, wanted: impl Fn(&str) -> bool, cancel: &Cancel) {
        for model in self.config().models.iter().filter(|m| m.preload && wanted(&m.id)) {
            let warm = || if model.warm { self.warm(&model.id, cancel) } else { Ok(()) };
            if let Err(error) = self.load(&model.id, cancel).and_then(|()| warm()) {
                tracing::error!(model = %model.id, code = error.code(), "not preloaded: {}", error.message());
            }
        }
    }

    /// `None` when the model is another one since the setup.
    fn lease(
        &self,
        setup: &Setup,
        spec: &Spec,
        choice: &Choice<'_>,
        keep: Option<Keep>,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<Option<Lease>> {
        let request = spec.asked().request(choice.device);
        let mut progress = Progress(events);
        let order = Order {
            id: &spec.id,
            generation: setup.generation,
            choice,
            request: &request,
            isolation: spec.isolation,
            chat_template: spec.chat_template.as_deref(),
            keep,
        };
        self.models.lease(order, &mut progress, cancel)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.models.close();
    }
}

/// The model of a name; of several that it stands for the best.
fn configured<'c>(config: &'c Config, name: &'c str) -> Result<&'c Model> {
    let steps = config.steps(name).ok();
    let best = steps.as_ref().and_then(|steps| config.model(steps.first()?.first()?));
    best.ok_or_else(|| unknown(config, name))
}

/// Loading, as an event.
struct Progress<'e, 'f>(&'e mut Events<'f>);

impl ProgressSink for Progress<'_, '_> {
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()> {
        (self.0)(Event::Loading { fraction, message })
    }
}
