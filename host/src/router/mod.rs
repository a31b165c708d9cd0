//! Which model takes a request. Pure: everything it needs is in the rules, the ask and the snapshot, so that each
//! decision can be explained and repeated. No clock, no lock, no I/O.
//!
//! Three steps: the first of the operator's [`Rules`] that applies, else the name that was asked for, else the task's
//! default, gives the models; [`predict`](predict::predict) says how long each would take; of the first step of the
//! ladder that has a model that can take the request and keeps the policies, the cheapest of those that answer first,
//! or as good as first, is taken.

mod ask;
mod choose;
mod decision;
mod intent;
mod name;
mod predict;
mod record;
mod rules;
mod similar;
mod snapshot;
mod steps;
#[cfg(test)]
mod tests;
mod words;

pub use ask::Ask;
pub use decision::{By, Considered, Decision, Degraded, Fault, Reason};
pub use intent::{Classifier, Intent};
pub use name::Name;
pub use predict::{Prediction, predict};
pub use record::{Ended, Record};
pub use rules::Rules;
pub use similar::{Comparison, Similar, nearest};
pub use snapshot::{Average, Device, Model, Observed, Share, Snapshot};
pub use steps::{Condition, Step, Steps};

use sha2::{Digest, Sha256};

use choose::choose;
use rules::{ANY, Named, Plan};

use crate::config::Task;

/// What tells two versions of something apart: the first six bytes of its SHA-256, in hex.
fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Chooses the model for a request: by the first rule that applies; else the one asked for; else the task's default;
/// else the only one that was made for the task. A request that cannot be given to any is refused in the decision:
/// `model-not-found`, `model-not-chosen`, `task-mismatch`, `no-candidate`, `deadline-unmet`, `route-policy`.
pub fn decide(rules: &Rules, ask: &Ask, snapshot: &Snapshot) -> Decision {
    let (rule, steps, intent) = rules.first(ask);
    let mut decision = Decision {
        chosen: None,
        by: By::Rule,
        rule: steps.applied().map(ToString::to_string),
        name: None,
        degraded: None,
        breaks: Vec::new(),
        predicted: None,
        priority: rule.and_then(|rule| rule.priority),
        intent,
        steps,
        candidates: Vec::new(),
        refused: None,
    };
    let own;
    let plan = match rule {
        Some(rule) => &rule.plan,
        None => match unruled(rules, ask, snapshot, &mut decision) {
            Ok(plan) => {
                own = plan;
                &own
            }
            Err(fault) => {
                decision.refused = Some(fault);
                return decision;
            }
        },
    };
    let policies = rule.map_or(&rules.policies, |rule| &rule.policies);
    let choice = choose(ask, snapshot, plan, policies);
    decision.candidates = choice.considered;
    decision.degraded = choice.degraded;
    match choice.chosen.and_then(|place| decision.candidates.get(place)) {
        Some(chosen) => {
            decision.chosen = Some(chosen.model.to_string());
            decision.predicted = Some(chosen.predicted);
            decision.breaks.clone_from(&chosen.breaks);
        }
        None => decision.refused = Some(refusal(ask.task, &decision)),
    }
    decision
}

/// The models of a request that no rule is for.
fn unruled(rules: &Rules, ask: &Ask, snapshot: &Snapshot, decision: &mut Decision) -> Result<Plan, Fault> {
    let alone = |id: &str| vec![vec![Name::from(id)]];
    let mut of = |name: &str, by: By| {
        decision.by = by;
        match rules.named(name)? {
            Named::Model => Some(alone(name)),
            Named::Plan(plan) => {
                decision.name = Some(name.to_owned());
                Some(plan.clone())
            }
        }
    };
    let task = ask.task;
    if let Some(name) = ask.model.as_deref()
        && (name != ANY || rules.named(ANY).is_some())
    {
        return of(name, By::Asked).ok_or_else(|| {
            fault(
                "model-not-found",
                format!("no model `{name}` is configured"),
                "give the id of a configured model, or the path of a model",
            )
        });
    }
    if let Some(plan) = rules.default_of(task).and_then(|name| of(name, By::Default)) {
        return Ok(plan);
    }
    decision.by = By::Only;
    let those = |fits: &dyn Fn(Task) -> bool| -> Vec<&str> {
        let fitting = snapshot.models.iter().filter(|(_, model)| model.task.is_some_and(fits));
        fitting.map(|(id, _)| id.as_str()).collect()
    };
    // An embedder beside a chat model does not make it unclear who continues a text.
    let nearest: [&dyn Fn(Task) -> bool; 3] =
        [&|made_for| made_for == task, &|made_for| made_for.is_akin(task), &|made_for| made_for.covers(task)];
    let able = nearest.into_iter().map(those).find(|able| !able.is_empty()).unwrap_or_default();
    match able.as_slice() {
        [only] => Ok(alone(only)),
        [] => Err(fault(
            "model-not-chosen",
            format!("no configured model does `{task}`"),
            "give one with --model (an id or a path), or add it to pajamas.toml",
        )),
        several => Err(fault(
            "model-not-chosen",
            format!("several models do `{task}`: {}", several.join(", ")),
            &format!("name one, or set `{task}` under [defaults] in pajamas.toml"),
        )),
    }
}

/// Why none of the models that were considered takes the request.
fn refusal(task: Task, decision: &Decision) -> Fault {
    let reason = |one: &Considered| {
        let reasons: Vec<String> = one.rejected.iter().chain(&one.breaks).map(ToString::to_string).collect();
        format!("`{}`: {}", one.model, reasons.join(", and "))
    };
    match decision.candidates.as_slice() {
        [Considered { model, rejected: Some(Reason::Task { made_for }), .. }] => fault(
            "task-mismatch",
            format!("`{model}` is a model for {made_for}, not for {task}"),
            &format!("choose a model for {task}"),
        ),
        all if all.iter().any(|one| matches!(one.rejected, Some(Reason::Late { .. }))) => {
            let words: Vec<String> = all.iter().map(reason).collect();
            fault(
                "deadline-unmet",
                format!("no model would answer in time: {}", words.join("; ")),
                "give it a longer `timeout`, ask for fewer tokens, or try again when less waits",
            )
        }
        all => {
            let by_policy = all.iter().any(|one| one.rejected.is_none());
            let (code, help) = match by_policy {
                true => {
                    ("route-policy", "try again later, or loosen the policies, or set `otherwise = \"best\"`")
                }
                false => ("no-candidate", "add a model that can take it, or ask for another"),
            };
            let words: Vec<String> = all.iter().map(reason).collect();
            fault(code, format!("no model takes this request: {}", words.join("; ")), help)
        }
    }
}

fn fault(code: &str, message: String, help: &str) -> Fault {
    Fault { code: code.to_owned(), message, help: help.to_owned() }
}
