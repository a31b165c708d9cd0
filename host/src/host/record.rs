//! What is kept of requests: how each was decided, how it ended, and what it took.

use std::time::{Duration, Instant};

use pajamas_plugin_api::EngineStats;
use serde_json::{Value, json};

use super::Host;
use super::routing::{Excluded, Routed};
use super::setup::Setup;
use crate::config::{Ladder, Record as Keep};
use crate::error::{Error, Result};
use crate::metrics::Took;
use crate::models::Lease;
use crate::pipeline::{Outcome, Output, Request};
use crate::router::{Ask, Decision, Ended, Record, Snapshot};

impl Host {
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

    /// Keeps a decision; gives its number.
    pub(super) fn keep(
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
    pub(super) fn close(&self, number: Option<u64>, begun: Instant, error: Option<&Error>) {
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
