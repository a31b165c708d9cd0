//! The façade: configuration in, [`Host::run`] out. What the server and the command line both call.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pajamas_plugin_api::{Cancel, EngineStats, LoadRequest, ProgressSink, Prompt, Signature, Token};

use crate::admission::Admission;
use crate::artifact::{self, Reference};
use crate::chat::Conversation;
use crate::config::{Config, GrantedFile, Model, Options, Step, Task, suggest};
use crate::error::{Error, Result};
use crate::hardware::Hardware;
use crate::metrics::{Metrics, Now};
use crate::models::{Lease, Loaded, Models, Spec, Status};
use crate::pipeline::{
    Event, Input, Outcome, Output, Params, Prepared, Request, Route, Workshop, text, vision,
};
use crate::plugins::{Choice, Plugins};
use crate::router::{self, Candidate, Decision, Snapshot};
use crate::stages::Stages;

/// A running host. Share it behind an `Arc`; every method may be called from any thread, and blocks it.
pub struct Host {
    config: Config,
    hardware: Hardware,
    plugins: Plugins,
    stages: Stages,
    models: Arc<Models>,
    admission: Arc<Admission>,
    metrics: Metrics,
    /// Pipelines without options of a request, by model: their stages are made once.
    pipelines: Mutex<BTreeMap<String, Arc<Prepared>>>,
}

/// What is told while a request is carried out; `Break` cancels it.
pub type Events<'e> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'e;

impl Host {
    /// Starts a host: looks at the machine, opens the plugins, sets the stages up. Loads no model.
    ///
    /// # Errors
    /// What is wrong with the configuration's stages; a plugin that is refused is no error but a report.
    pub fn start(config: Config) -> Result<Self> {
        let hardware = Hardware::detect();
        let plugins = Plugins::load(&config.plugins);
        let stages = Stages::new(&config.stages)?;
        let known = stages.names();
        config.check_stages(&known.iter().map(String::as_str).collect::<Vec<_>>())?;
        let models = Arc::new(Models::new(config.memory.clone(), hardware.memory.total));
        for device in plugins.backends().iter().flat_map(|backend| &backend.probe.devices) {
            models.expect(&device.id, device.memory_total);
        }
        Ok(Self {
            config,
            hardware,
            plugins,
            stages,
            models,
            admission: Arc::default(),
            metrics: Metrics::default(),
            pipelines: Mutex::default(),
        })
    }

    /// The configuration it runs under.
    pub fn config(&self) -> &Config {
        &self.config
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

    /// Carries out one request: routes it, loads the model when it has to, runs the pipeline.
    ///
    /// # Errors
    /// Everything that can be refused has a code: `model-not-found`, `backend-unavailable`, `out-of-memory`,
    /// `context-length-exceeded`, a stage's or a backend's own, `cancelled`.
    pub fn run(&self, request: Request, cancel: &Cancel, events: &mut Events<'_>) -> Result<Outcome> {
        let Request { task, model, input, params } = request;
        let (spec, decision) = self.resolve(task, model.as_deref())?;
        let choice = self.plugins.choose(&spec.format, &spec.backend, &spec.device)?;
        let route = route(&spec, &decision, &choice);
        let _ticket = self.admission.enter(&spec.id, self.config.server.max_queue)?;
        if events(Event::Route(&route)).is_break() {
            return Err(Error::new("cancelled", "the request was cancelled"));
        }
        let mut meter = self.metrics.begin(task, &route);
        let mut measured = |event: Event<'_>| {
            if let Event::Token { .. } = event {
                meter.token();
            }
            events(event)
        };
        let result = self.lease(&spec, &choice, cancel, &mut measured).and_then(|lease| {
            let result = self.carry_out(task, &spec, &lease, input, &params, cancel, &mut measured);
            match &result {
                Ok(_) => self.models.succeeded(&spec.id),
                Err(e) if matches!(e.code(), "panicked" | "session-poisoned") => {
                    self.models.panicked(&spec.id, e)
                }
                Err(_) => {}
            }
            result
        });
        let result = result.map(|(output, steps)| Outcome { route, output, steps });
        meter.end(&result);
        result
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
            models: self.models_status(),
            engines: self.models.loaded().into_iter().filter_map(engine).collect(),
            devices: self.models.devices(),
            plugins: self.plugins.loaded(),
        };
        self.metrics.encode(&now).map_err(|_| Error::new("internal", "the metrics cannot be written"))
    }

    /// What the host counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the models of the configuration, and others in memory, are doing.
    pub fn models_status(&self) -> Vec<Status> {
        self.models.status(self.config.models.iter().map(|model| &*model.id))
    }

    /// A model of the configuration.
    ///
    /// # Errors
    /// `model-not-found` with the nearest name.
    pub fn configured(&self, id: &str) -> Result<&Model> {
        let known = self.config.models.iter().map(|model| &*model.id);
        self.config.model(id).ok_or_else(|| {
            Error::new("model-not-found", format!("no model `{id}` is configured"))
                .help(suggest::help(id, "models", known))
        })
    }

    /// Loads a model of the configuration, also one that was quarantined. Blocks until it is ready.
    ///
    /// # Errors
    /// `model-not-found`, and what loading may refuse.
    pub fn load(&self, id: &str, cancel: &Cancel) -> Result<()> {
        let model = self.configured(id)?;
        let spec = Spec::of_model(model)?;
        let choice = self.plugins.choose(&spec.format, &spec.backend, &spec.device)?;
        self.models.forgive(id);
        self.lease(&spec, &choice, cancel, &mut |_| ControlFlow::Continue(())).map(drop)
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
        let (spec, _) = self.resolve(Task::Generate, model)?;
        let choice = self.plugins.choose(&spec.format, &spec.backend, &spec.device)?;
        self.lease(&spec, &choice, cancel, &mut |_| ControlFlow::Continue(()))
    }

    /// Loads the models that the configuration wants ready from the start. One that fails is logged: its requests
    /// will say why.
    pub fn preload(&self, cancel: &Cancel) {
        for model in self.config.models.iter().filter(|m| m.preload) {
            if let Err(error) = self.load(&model.id, cancel) {
                tracing::error!(model = %model.id, code = error.code(), "not preloaded: {}", error.message());
            }
        }
    }

    /// The model for a request: one of the configuration, or a path that the caller gave.
    fn resolve(&self, task: Task, asked: Option<&str>) -> Result<(Spec, Decision)> {
        if let Some(word) = asked
            && let Reference::Path(source) = artifact::resolve(word, &self.config)?
        {
            let decision = Decision { model: word.to_owned(), reason: "the path asked for".into() };
            return Ok((Spec::of_path(word, &source)?, decision));
        }
        let candidates =
            self.config.models.iter().map(|m| Candidate { id: m.id.to_string(), task: self.task_of(m) });
        let snapshot = Snapshot {
            models: candidates.collect(),
            default: self.config.defaults.of(task).map(ToString::to_string),
        };
        let decision = router::decide(&snapshot, task, asked)?;
        let model = self.configured(&decision.model)?;
        Ok((Spec::of_model(model)?, decision))
    }

    fn lease(
        &self,
        spec: &Spec,
        choice: &Choice<'_>,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<Lease> {
        let request = LoadRequest {
            path: spec.file.clone(),
            format: spec.format.clone(),
            device: choice.device.map_or_else(String::new, |d| d.id.clone()),
            options: spec.options.clone().into(),
        };
        let mut progress = Progress(events);
        self.models.lease(&spec.id, choice, &request, &mut progress, cancel)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request, each used once")]
    fn carry_out(
        &self,
        task: Task,
        spec: &Spec,
        lease: &Lease,
        input: Input,
        params: &Params,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<(Output, Vec<crate::pipeline::StepTime>)> {
        let (session, signature) = (&*lease.session, &lease.signature);
        match task {
            Task::Generate | Task::Chat => text::generate(session, signature, input, params, events, cancel),
            Task::Embed => {
                text::embed(session, signature, input, params, self.config.stages.limits.output.get(), cancel)
            }
            Task::Rerank => {
                text::rerank(session, signature, input, self.config.stages.limits.output.get(), cancel)
            }
            _ => {
                let Input::Values(values) = input else {
                    return Err(Error::new("invalid-input", format!("{task} works on values, not on text")));
                };
                let pipeline = self.pipeline(task, spec, signature, &params.options)?;
                let (values, steps) = pipeline.run(values, session, signature, cancel)?;
                Ok((Output::Values(values), steps))
            }
        }
    }

    /// The pipeline of a model, made once unless the request has options of its own.
    fn pipeline(
        &self,
        task: Task,
        spec: &Spec,
        signature: &Signature,
        options: &Options,
    ) -> Result<Arc<Prepared>> {
        let key = format!("{task}/{}", spec.id);
        let kept =
            |this: &Self| this.pipelines.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(pipeline) = kept(self).filter(|_| options.is_empty()) {
            return Ok(pipeline);
        }
        let steps = self.steps(task, spec, signature)?;
        let read = |file: &GrantedFile| {
            let path = match file {
                GrantedFile::Artifact(inside) => spec.folder().join(inside),
                GrantedFile::Local(path) => PathBuf::from(path.as_ref() as &Path),
            };
            std::fs::read(&path).map_err(|e| Error::io(&path, &e))
        };
        let workshop = Workshop { stages: &self.stages, limits: self.config.stages.limits, read: &read };
        let pipeline = Arc::new(Prepared::new(&steps, options, &workshop)?);
        if options.is_empty() {
            let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
            pipelines.insert(key, Arc::clone(&pipeline));
        }
        Ok(pipeline)
    }

    fn steps(&self, task: Task, spec: &Spec, signature: &Signature) -> Result<Vec<Step>> {
        match spec.pipeline.as_deref().and_then(|id| self.config.pipeline(id)) {
            Some(pipeline) if pipeline.task == task => Ok(pipeline.steps.clone()),
            Some(pipeline) => Err(Error::new(
                "task-mismatch",
                format!(
                    "the pipeline `{}` of `{}` is for {}, not for {task}",
                    &*pipeline.id, spec.id, pipeline.task
                ),
            )),
            None => vision::default_steps(task, signature, spec.labels.clone()),
        }
    }
}

fn route(spec: &Spec, decision: &Decision, choice: &Choice<'_>) -> Route {
    Route {
        model: decision.model.clone(),
        reason: decision.reason.clone(),
        format: spec.format.clone(),
        backend: choice.backend.full_id(),
        device: choice.device.map_or_else(|| "unknown".to_owned(), |d| d.id.clone()),
        rejected: choice.rejected.clone(),
    }
}

/// Loading, as an event.
struct Progress<'e, 'f>(&'e mut Events<'f>);

impl ProgressSink for Progress<'_, '_> {
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()> {
        (self.0)(Event::Loading { fraction, message })
    }
}
