//! What the keys of the server may use, and who waits behind whom.

use std::time::Duration;

use super::ask::ask;
use super::{Events, Host};
use crate::admission::{Allowance, Comer, Limits, Pass, Waiting};
use crate::config::{Config, Key};
use crate::error::Result;
use crate::models::Spec;
use crate::pipeline::{Event, Outcome, Output, Request};
use crate::plugins::Choice;
use crate::remote::Condition;

impl Host {
    /// Lets a request in as far as its key goes; `None` when nothing holds it.
    ///
    /// # Errors
    /// `rate-limited`.
    pub(super) fn pass(&self, request: &Request) -> Result<Option<Pass>> {
        let Some(name) = request.params.hints.key.as_deref() else { return Ok(None) };
        let Some(limits) = self.limits(name) else { return Ok(None) };
        let tokens = if limits.tokens.is_some() { ask(request).tokens } else { 0 };
        self.keys.enter(name, limits, tokens).map(Some)
    }

    /// What is left to a key of the server.
    pub fn allowance(&self, name: &str) -> Allowance {
        self.limits(name).map(|limits| self.keys.allowance(name, limits)).unwrap_or_default()
    }

    /// Who waits for which model, before its engine.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.admission.waiting()
    }

    /// How well the servers of remote models are.
    pub fn remotes(&self) -> Vec<Condition> {
        let config = self.config();
        let remotes = config.models.iter().filter_map(|model| Some((&*model.id, model.remote.as_ref()?)));
        self.memory.health.of(remotes)
    }

    /// A request, as those that wait for its model see it. Another server has a queue of its own.
    pub(super) fn comer<'c>(&self, spec: &'c Spec, choice: &Choice<'_>, request: &'c Request) -> Comer<'c> {
        let device = choice.device.map_or("", |device| &device.id);
        let slots = match spec.remote() {
            Some(_) => 0,
            None => self.memory.observed.of(&spec.id, device).1,
        };
        let key = request.params.hints.key.as_deref();
        Comer { model: &spec.id, slots, priority: request.params.priority.unwrap_or(0), key }
    }

    fn limits(&self, name: &str) -> Option<Limits> {
        let config = self.config();
        let key = config.server.keys.iter().find(|key| *key.name == *name)?;
        Limits::of(key)
    }
}

/// The priority of a request: what it says itself, or else the rule that took it, up to its key's, which holds where neither
/// says anything.
pub(super) fn priority(
    config: &Config,
    said: Option<i32>,
    of_rule: Option<i32>,
    key: Option<&str>,
) -> Option<i32> {
    let said = said.or(of_rule);
    let key: Option<&Key> = config.server.keys.iter().find(|one| key.is_some_and(|name| *one.name == *name));
    match (said, key.and_then(|key| key.priority)) {
        (Some(said), Some(most)) => Some(said.min(most.0)),
        (said, of_key) => said.or(of_key.map(|priority| priority.0)),
    }
}

/// Carries a request out and counts what it used.
pub(super) fn counted(
    pass: Pass,
    events: &mut Events<'_>,
    carry_out: impl FnOnce(&mut Events<'_>) -> Result<Outcome>,
) -> Result<Outcome> {
    let mut told = 0_u32;
    let result = carry_out(&mut |event: Event<'_>| {
        told = told.saturating_add(u32::from(matches!(event, Event::Token { .. })));
        events(event)
    });
    let used = match &result {
        Ok(outcome) => used(&outcome.output),
        // What went wrong before anything was answered costs nothing.
        Err(_) if told == 0 => 0,
        Err(_) => pass.counted().saturating_add(told),
    };
    pass.used(used);
    result
}

/// Tokens that a request used, of its prompt and of its answer.
fn used(output: &Output) -> u32 {
    let usage = match output {
        Output::Text(summary) => summary.usage,
        Output::Embeddings(_, usage) | Output::Scores(_, usage) => *usage,
        Output::Transcript(transcript) => transcript.usage(),
        Output::Speech(speech) => speech.usage(),
        Output::Values(_) => return 0,
    };
    usage.prompt_tokens.saturating_add(usage.completion_tokens)
}

/// Waiting here is waiting like that for a place in the model's engine.
pub(super) fn with_wait(mut outcome: Outcome, waited: Duration) -> Outcome {
    if let Output::Text(summary) = &mut outcome.output {
        summary.timings.queue_ms += waited.as_secs_f64() * 1e3;
    }
    outcome
}
