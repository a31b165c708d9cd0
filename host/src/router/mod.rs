//! Which model takes a request. Pure: everything it needs is in the snapshot, so that each decision can be
//! explained and repeated. No clock, no lock, no I/O.

use crate::config::Task;
use crate::error::{Error, Result};

/// A configured model, as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// What it was made for; `None` when that is known only after loading.
    pub task: Option<Task>,
}

/// All that a decision may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The configured models, in the file's order.
    pub models: Vec<Candidate>,
    /// The default model of the task that is asked for.
    pub default: Option<String>,
}

/// The model for a request, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The model's id.
    pub model: String,
    /// Why this one.
    pub reason: String,
}

/// Chooses the model: the one asked for, else the task's default, else the only one that was made for the task.
///
/// # Errors
/// `model-not-found`; `task-mismatch`; `model-not-chosen` when several would do and none is
/// the default.
pub fn decide(snapshot: &Snapshot, task: Task, asked: Option<&str>) -> Result<Decision> {
    if let Some(id) = asked {
        return explicit(snapshot, task, id);
    }
    if let Some(id) = &snapshot.default {
        return Ok(Decision {
            model: id.clone(),
            reason: format!("the default for {task} (defaults.{task})"),
        });
    }
    let made_for: Vec<&Candidate> = snapshot.models.iter().filter(|m| m.task == Some(task)).collect();
    let able: Vec<&Candidate> = match made_for.is_empty() {
        false => made_for,
        true => snapshot.models.iter().filter(|m| m.task.is_some_and(|t| t.covers(task))).collect(),
    };
    match able.as_slice() {
        [only] => Ok(Decision { model: only.id.clone(), reason: format!("the only model for {task}") }),
        [] => Err(Error::new("model-not-chosen", format!("no configured model does `{task}`"))
            .help("give one with --model (an id or a path), or add it to pajamas.toml")),
        several => Err(Error::new(
            "model-not-chosen",
            format!(
                "several models do `{task}`: {}",
                several.iter().map(|m| m.id.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )
        .help(format!("name one, or set `{task}` under [defaults] in pajamas.toml"))),
    }
}

fn explicit(snapshot: &Snapshot, task: Task, id: &str) -> Result<Decision> {
    let model = snapshot.models.iter().find(|m| m.id == id).ok_or_else(|| not_found(id))?;
    match model.task {
        Some(made_for) if !made_for.covers(task) => {
            Err(Error::new("task-mismatch", format!("`{id}` is a model for {made_for}, not for {task}"))
                .help(format!("choose a model for {task}")))
        }
        _ => Ok(Decision { model: id.to_owned(), reason: "asked for".into() }),
    }
}

/// There is no model of this id.
fn not_found(id: &str) -> Error {
    Error::new("model-not-found", format!("no model `{id}` is configured"))
        .help("give the id of a configured model, or the path of a model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(default: Option<&str>) -> Snapshot {
        let model = |id: &str, task| Candidate { id: id.into(), task: Some(task) };
        Snapshot {
            models: vec![
                model("llama", Task::Chat),
                model("shapes", Task::Detect),
                model("yolo", Task::Detect),
            ],
            default: default.map(str::to_owned),
        }
    }

    fn reason(default: Option<&str>, task: Task, asked: Option<&str>) -> String {
        match decide(&snapshot(default), task, asked) {
            Ok(d) => format!("{}: {}", d.model, d.reason),
            Err(e) => format!("{}: {} ({})", e.code(), e.message(), e.how_to_fix()),
        }
    }

    #[test]
    fn every_decision_has_its_reason() {
        assert_eq!(reason(None, Task::Detect, Some("yolo")), "yolo: asked for");
        assert_eq!(
            reason(Some("shapes"), Task::Detect, None),
            "shapes: the default for detect (defaults.detect)"
        );
        assert_eq!(reason(None, Task::Chat, None), "llama: the only model for chat");
        assert_eq!(reason(None, Task::Generate, None), "llama: the only model for generate");
    }

    #[test]
    fn every_refusal_says_how_to_fix_it() {
        assert!(
            reason(None, Task::Detect, None)
                .starts_with("model-not-chosen: several models do `detect`: shapes, yolo")
        );
        assert!(reason(None, Task::Detect, Some("shape")).starts_with("model-not-found: no model `shape`"));
        assert!(
            reason(None, Task::Chat, Some("yolo")).starts_with("task-mismatch: `yolo` is a model for detect")
        );
        assert!(
            reason(None, Task::Classify, None)
                .starts_with("model-not-chosen: no configured model does `classify`")
        );
    }
}
