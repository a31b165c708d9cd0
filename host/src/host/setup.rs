//! The configuration in force, and what was made from it: exchanged as a whole, kept by who began with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::similar::Known;
use super::snapshot::Facts;
use crate::config::{Changes, Config, Task};
use crate::error::{Error, Result};
use crate::pipeline::Prepared;
use crate::pipeline::transcribe::Vocabulary;
use crate::router::{Classifier, Rules};

/// Task and model.
type Kept = BTreeMap<(Task, bool, String), Arc<Prepared>>;

/// How long a model that cannot be used is not looked at again: looking reads files, and each request would.
const LOOKED: Duration = Duration::from_millis(250);

/// A configuration with what was made from it.
pub(super) struct Setup {
    pub(super) config: Arc<Config>,
    /// How many configurations came before.
    pub(super) generation: u64,
    /// Its rules, ladders and aliases.
    pub(super) rules: Rules,
    /// What is known of its models, and when.
    facts: Mutex<BTreeMap<String, (Instant, Arc<Facts>)>>,
    /// Pipelines without options of a request: their stages are made once.
    pipelines: Mutex<Kept>,
    /// The tokens of models that transcribe.
    vocabularies: Mutex<BTreeMap<String, Arc<Vocabulary>>>,
    /// The stages that say what prompts want, made when they are needed.
    pub(super) intent: OnceLock<Arc<Prepared>>,
    /// Vectors of texts that rules compare.
    pub(super) vectors: Known,
}

/// The rules of a checked configuration, with the classifier whose weights it names.
///
/// # Errors
/// `file-not-found`, `io` or `intent-model-invalid` for the weights, with their path; those of [`Rules::new`].
pub fn rules_of(config: &Config) -> Result<Rules> {
    let Some(path) = &config.routing.intent.model else { return Rules::new(config) };
    let mut weights = Vec::new();
    let most = Classifier::LARGEST as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut weights));
    read.map_err(|error| Error::io(path, &error))?;
    let classifier = Classifier::new(&weights).map_err(|error| error.within(path.display()))?;
    Rules::with_classifier(config, classifier)
}

impl Setup {
    pub(super) fn new(config: Config) -> Result<Self> {
        Self::with(config, 0, Kept::default())
    }

    fn with(config: Config, generation: u64, pipelines: Kept) -> Result<Self> {
        Ok(Self {
            rules: rules_of(&config)?,
            config: Arc::new(config),
            generation,
            facts: Mutex::default(),
            pipelines: Mutex::new(pipelines),
            vocabularies: Mutex::default(),
            intent: OnceLock::new(),
            vectors: Known::default(),
        })
    }

    /// The next one. Pipelines go along where nothing about them is different.
    pub(super) fn next(&self, config: Config, changes: &Changes) -> Result<Self> {
        let limits = config.stages.limits == self.config.stages.limits;
        let same = |id: &str| {
            let pipeline = config.model(id).and_then(|model| model.pipeline.as_deref());
            limits && !changes.models.names(id) && !pipeline.is_some_and(|id| changes.pipelines.names(id))
        };
        let mut kept = self.kept().clone();
        kept.retain(|(_, _, id), _| same(id));
        Self::with(config, self.generation + 1, kept)
    }

    /// The pipeline that was made for a model, and for texts or not.
    pub(super) fn pipeline(&self, task: Task, texts: bool, model: &str) -> Option<Arc<Prepared>> {
        self.kept().get(&(task, texts, model.to_owned())).cloned()
    }

    /// Keeps a pipeline.
    pub(super) fn keep(&self, task: Task, texts: bool, model: &str, pipeline: &Arc<Prepared>) {
        self.kept().insert((task, texts, model.to_owned()), Arc::clone(pipeline));
    }

    /// What is known of a model. What is wrong with it counts for a moment only: it may have passed.
    pub(super) fn facts(&self, model: &str) -> Option<Arc<Facts>> {
        let known = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, facts) = known.get(model)?;
        (!facts.is_unusable() || when.elapsed() < LOOKED).then(|| Arc::clone(facts))
    }

    /// Keeps what is known of a model.
    pub(super) fn know(&self, model: &str, facts: &Arc<Facts>) {
        let mut known = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(model.to_owned(), (Instant::now(), Arc::clone(facts)));
    }

    /// The tokens of a model that transcribes.
    pub(super) fn vocabulary(&self, model: &str) -> Option<Arc<Vocabulary>> {
        self.vocabularies.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Keeps the tokens of a model.
    pub(super) fn learn(&self, model: &str, vocabulary: &Arc<Vocabulary>) {
        let mut known = self.vocabularies.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(model.to_owned(), Arc::clone(vocabulary));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The setup in force. The lock is held to take or exchange it, never while something is done with it.
pub(super) struct Current(RwLock<Arc<Setup>>);

impl Current {
    pub(super) fn new(config: Config) -> Result<Self> {
        Ok(Self(RwLock::new(Arc::new(Setup::new(config)?))))
    }

    pub(super) fn get(&self) -> Arc<Setup> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place. What `meanwhile` does nobody sees before the new one, nor the new one before it.
    pub(super) fn exchange<T>(&self, next: Setup, meanwhile: impl FnOnce() -> T) -> T {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let done = meanwhile();
        *current = Arc::new(next);
        done
    }
}
