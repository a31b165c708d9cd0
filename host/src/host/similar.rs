//! How near what the user says is to the examples of rules: the model that knows is asked before the router decides, by a
//! request of its own that no rule sends elsewhere. Whoever waits for it holds nothing that another waits for: neither a
//! model, nor a place in a line, nor a lock.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, Prompt};
use sha2::{Digest, Sha256};

use super::Host;
use super::ask::beginning;
use super::routing::Excluded;
use super::setup::Setup;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::pipeline::{Hints, Input, Output, Params, Request};
use crate::router::{Ask, Comparison, Similar, nearest, predict};

/// Texts whose vectors are kept: where a model calls functions, the user's last words come again with each turn.
const LATEST: usize = 64;
/// Bytes of a text that are no longer cut down when a model takes no more.
const SHORTEST: usize = 64;
/// How often it is looked whether the request was cancelled, or has waited enough.
const POLL: Duration = Duration::from_millis(20);

/// How long the model is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not for a load.
    NoLoad,
    /// As the configuration and the request say.
    Usual,
    /// As long as it takes.
    Endless,
}

/// The request that is to be routed, as far as asking another model goes by it.
pub(super) struct Asker<'r> {
    pub(super) params: &'r Params,
    pub(super) cancel: &'r Cancel,
    pub(super) patience: Patience,
}

/// Vectors of texts, in their order.
#[derive(Debug)]
struct Vectors {
    rows: Vec<Vec<f32>>,
    /// Whether the model takes less than all of one.
    cut: bool,
}

/// Vectors that were made under one configuration. Bounded: by its rules, and by [`LATEST`].
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of examples, by the name of their comparison.
    examples: BTreeMap<String, Arc<Vectors>>,
    /// Of what users said, by what tells model and text from others; the oldest first.
    latest: VecDeque<([u8; 32], Arc<Vectors>)>,
}

impl Known {
    fn examples(&self, name: &str) -> Option<Arc<Vectors>> {
        self.kept().examples.get(name).cloned()
    }

    fn keep_examples(&self, name: &str, vectors: &Arc<Vectors>) {
        self.kept().examples.insert(name.to_owned(), Arc::clone(vectors));
    }

    fn text(&self, key: [u8; 32]) -> Option<Arc<Vectors>> {
        self.kept().latest.iter().find(|(kept, _)| *kept == key).map(|(_, vectors)| Arc::clone(vectors))
    }

    fn keep_text(&self, key: [u8; 32], vectors: &Arc<Vectors>) {
        let mut kept = self.kept();
        kept.latest.push_back((key, Arc::clone(vectors)));
        while kept.latest.len() > LATEST {
            kept.latest.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// The ask with how near its text is to the examples of rules that may apply. Blocks until the models that say so were
    /// asked, and loads them.
    pub fn compared(&self, ask: Ask) -> Ask {
        let (params, cancel) = (&Params::default(), &Cancel::new());
        self.compared_for(&self.current.get(), ask, &Asker { params, cancel, patience: Patience::Endless })
    }

    /// The same for a request. A model that cannot be asked is asked once, and its rules are passed over.
    pub(super) fn compared_for(&self, setup: &Setup, mut ask: Ask, asker: &Asker<'_>) -> Ask {
        let usual = setup.config.routing.similar.wait.duration();
        // The other half of its time is for the answer.
        let limit = asker.params.hints.deadline.map_or(usual, |deadline| usual.min(deadline / 2));
        let begun = Instant::now();
        let mut refused: BTreeMap<&str, String> = BTreeMap::new();
        let mut all = 0_u64;
        while let Some(comparison) = setup.rules.wants_similar(&ask) {
            let model = comparison.model.as_str();
            let left = (asker.patience != Patience::Endless).then(|| limit.saturating_sub(begun.elapsed()));
            let asked = Instant::now();
            let text = ask.text.as_deref().unwrap_or_default();
            let said = match refused.get(model) {
                Some(code) => Err(code.clone()),
                None => self.compare(setup, comparison, text, asker, left).map_err(|error| {
                    let code = error.code().to_owned();
                    // The words may be those of another server about what the user said.
                    tracing::warn!(model, code, "rules with its examples are passed over");
                    refused.insert(model, code.clone());
                    code
                }),
            };
            let said = said.unwrap_or_else(|code| {
                self.metrics.not_compared(model, &code);
                Similar { code: Some(code), ..Similar::default() }
            });
            let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
            all = all.saturating_add(took);
            let similar = Similar { model: model.to_owned(), took: Some(took), ..said };
            ask.similar.insert(comparison.name.clone(), similar);
        }
        ask.deadline = ask.deadline.map(|deadline| deadline.saturating_sub(all));
        ask
    }

    fn compare(
        &self,
        setup: &Setup,
        comparison: &Comparison,
        text: &str,
        asker: &Asker<'_>,
        left: Option<Duration>,
    ) -> Result<Similar> {
        let Comparison { name, model, examples, .. } = comparison;
        let key = Sha256::new().chain_update(model).chain_update([0_u8]).chain_update(text).finalize().into();
        let (known, own) = (setup.vectors.examples(name), setup.vectors.text(key));
        let (examples, own) = match (known, own) {
            (Some(examples), Some(own)) => (examples, own),
            (known, own) => {
                self.may_be_asked(setup, model, asker.patience, left)?;
                let made = within(left, asker.cancel, |cancel| {
                    let make = |texts: &[&str]| self.vectors(model, texts, asker, cancel).map(Arc::new);
                    let examples = match known {
                        Some(known) => known,
                        None => {
                            let made = make(&examples.iter().map(String::as_str).collect::<Vec<_>>())?;
                            setup.vectors.keep_examples(name, &made);
                            made
                        }
                    };
                    let own = match own {
                        Some(own) => own,
                        None => {
                            let made = make(&[text])?;
                            setup.vectors.keep_text(key, &made);
                            made
                        }
                    };
                    Ok((examples, own))
                });
                made.map_err(|error| match error.code() {
                    "cancelled" if !asker.cancel.is_cancelled() => self.too_late(model, left),
                    _ => error,
                })?
            }
        };
        let near = own.rows.first().and_then(|own| nearest(own, &examples.rows));
        let (nearest, score) = near.ok_or_else(|| invalid(model, "cannot be compared with each other"))?;
        Ok(Similar { score: Some(score), nearest: Some(nearest), cut: own.cut, ..Similar::default() })
    }

    /// Whether a model can be asked in time, as far as that is known without asking.
    ///
    /// # Errors
    /// `model-loading`; `deadline-unmet`; why it cannot be used now.
    fn may_be_asked(
        &self,
        setup: &Setup,
        id: &str,
        patience: Patience,
        left: Option<Duration>,
    ) -> Result<()> {
        if let Some(error) = self.models.back_off(id) {
            return Err(error);
        }
        let snapshot = self.snapshot(setup, &Excluded::new());
        // Of one that is gone the request says so.
        let Some(model) = snapshot.models.get(id) else { return Ok(()) };
        if let Some(fault) = &model.unusable {
            return Err(fault.clone().into());
        }
        if !model.state.is_in_memory() && (patience == Patience::NoLoad || self.ahead.loads(id)) {
            self.ahead.want(id);
            return Err(Error::new("model-loading", format!("`{id}` is being loaded"))
                .help("try again, or write `preload = true` at the model"));
        }
        let predicted = predict(&Ask::new(Task::Embed, Some(id)), model);
        let late = |left: &Duration| !predicted.guessed && Duration::from_micros(predicted.total) > *left;
        if left.as_ref().is_some_and(late) { Err(self.too_late(id, left)) } else { Ok(()) }
    }

    /// A model is not had in time. It is loaded for those that come later.
    fn too_late(&self, id: &str, left: Option<Duration>) -> Error {
        if !self.models.state(id).0.is_in_memory() {
            self.ahead.want(id);
        }
        let seconds = left.unwrap_or_default().as_secs_f64();
        Error::new("deadline-unmet", format!("`{id}` does not answer within {seconds:.1} s"))
            .help("write `preload = true` at the model, or raise `routing.similar.wait`")
    }

    /// Vectors of texts, each as much of it as the model takes.
    fn vectors(&self, model: &str, texts: &[&str], asker: &Asker<'_>, cancel: &Cancel) -> Result<Vectors> {
        let mut most = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut cut = false;
        loop {
            let prompts = texts.iter().map(|text| Prompt::text(beginning(text, most))).collect();
            let params = Params {
                normalize: true,
                priority: asker.params.priority,
                hints: Hints { key: asker.params.hints.key.clone(), ..Hints::default() },
                ..Params::default()
            };
            let model_id = Some(model.to_owned());
            let request =
                Request { task: Task::Embed, model: model_id, input: Input::Texts(prompts), params };
            let find = |setup: &Setup, _: &Request, _: &Excluded| self.straight(setup, model);
            match self.admitted(request, cancel, &mut |_| ControlFlow::Continue(()), &find) {
                Err(error) if error.code() == "context-length-exceeded" && most > SHORTEST => {
                    (most, cut) = (most / 2, true);
                }
                Err(error) => return Err(error),
                Ok(outcome) => {
                    return rows(outcome.output, texts.len())
                        .map(|rows| Vectors { rows, cut })
                        .ok_or_else(|| invalid(model, "are not one for each text"));
                }
            }
        }
    }
}

/// One vector for each text.
fn rows(output: Output, texts: usize) -> Option<Vec<Vec<f32>>> {
    let Output::Embeddings(tensor, _) = output else { return None };
    let size = tensor.shape().last().and_then(|size| usize::try_from(*size).ok()).filter(|size| *size > 0)?;
    let rows: Vec<Vec<f32>> = tensor.as_f32()?.chunks(size).map(<[f32]>::to_vec).collect();
    (rows.len() == texts).then_some(rows)
}

fn invalid(model: &str, what: &str) -> Error {
    Error::new("plugin-protocol", format!("the vectors of `{model}` {what}"))
}

/// Does something that ends after `limit`, or when the request does.
fn within<T>(limit: Option<Duration>, cancel: &Cancel, work: impl FnOnce(&Cancel) -> Result<T>) -> Result<T> {
    let Some(limit) = limit else { return work(cancel) };
    let (own, begun) = (Cancel::new(), Instant::now());
    let (working, over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let own = &own;
        let watch = move || {
            let left = || limit.saturating_sub(begun.elapsed());
            while over.recv_timeout(POLL.min(left())) == Err(RecvTimeoutError::Timeout) {
                if cancel.is_cancelled() || left().is_zero() {
                    own.cancel();
                    break;
                }
            }
        };
        let watch = std::thread::Builder::new().name("compare".to_owned()).spawn_scoped(scope, watch);
        watch.map_err(|error| Error::new("internal", format!("no thread to compare with: {error}")))?;
        let result = work(own);
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_too_long_is_told_to_stop_and_so_is_who_is_cancelled() {
        let until_told = |cancel: &Cancel| loop {
            cancel.check()?;
            std::thread::yield_now();
        };
        let short = Some(Duration::from_millis(1));
        let late: Result<()> = within(short, &Cancel::new(), until_told);
        assert_eq!(late.unwrap_err().code(), "cancelled");
        let cancel = Cancel::new();
        cancel.cancel();
        let stopped: Result<()> = within(Some(Duration::MAX), &cancel, until_told);
        assert_eq!(stopped.unwrap_err().code(), "cancelled");
        assert_eq!(within(short, &Cancel::new(), |_| Ok(7)).unwrap(), 7);
        assert_eq!(within(None, &Cancel::new(), |_| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn only_the_latest_texts_are_kept_and_all_examples() {
        let known = Known::default();
        let vectors = Arc::new(Vectors { rows: vec![vec![1.0]], cut: false });
        known.keep_examples("a", &vectors);
        for number in 0..=LATEST as u8 {
            known.keep_text([number; 32], &vectors);
        }
        assert!(known.text([0; 32]).is_none() && known.text([1; 32]).is_some());
        assert!(known.examples("a").is_some() && known.examples("b").is_none());
    }
}
