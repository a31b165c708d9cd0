//! How well the servers are that models run on: a breaker for each model, told by its requests, and, while it is open, by
//! asking the server whether it is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::breaker::{Breaker, Ended, Pass, Phase, Policy};
use super::client::is_there;
use super::fault::{UNAVAILABLE, says_it_fails};
use crate::config::Remote;
use crate::error::{Error, Result};

/// How long is waited at a time: the host, the model or the breaker may be gone before it is time to ask.
const PIECE: Duration = Duration::from_millis(200);

/// How well all of them are. Every method may be called from any thread.
#[derive(Debug)]
pub struct Health(Arc<Watch>);

#[derive(Debug)]
struct Watch {
    /// Times are counted from here.
    begun: Instant,
    models: Mutex<BTreeMap<String, Watched>>,
}

/// A model, and how well its server is.
#[derive(Debug)]
struct Watched {
    remote: Remote,
    breaker: Breaker,
    /// Whether a thread asks while the breaker is open.
    watched: bool,
    /// Why the latest failure was one.
    failure: Option<(String, String)>,
}

/// How well a model's server is, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Condition {
    /// The model's id.
    pub model: String,
    /// Where it runs.
    pub url: String,
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// The share of failures among the latest requests.
    pub failure_share: f64,
    /// Milliseconds until it is asked again, while nothing goes to it.
    pub retry_ms: Option<u64>,
    /// What the latest failure was.
    pub code: Option<String>,
    /// Its words.
    pub message: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Watch { begun: Instant::now(), models: Mutex::default() }))
    }
}

impl Health {
    /// Lets a request to a model's server through; what becomes of it is told to the permit.
    ///
    /// # Errors
    /// `remote-unavailable`, with when to try again.
    pub fn enter(&self, model: &str, remote: &Remote) -> Result<Permit> {
        let now = self.0.now();
        let mut models = self.0.models();
        let watched = entry(&mut models, model, remote);
        match watched.breaker.admit(now) {
            Ok(pass) => {
                let (watch, model) = (Arc::clone(&self.0), model.to_owned());
                Ok(Permit { watch, model, remote: remote.clone(), pass: Some(pass) })
            }
            Err(wait) => Err(left_alone(model, watched, wait)),
        }
    }

    /// Why no request can go to a model now, if none can.
    pub fn refuses(&self, model: &str, remote: &Remote) -> Option<Error> {
        let now = self.0.now();
        let models = self.0.models();
        let watched = models.get(model).filter(|watched| watched.remote == *remote)?;
        watched.breaker.would_admit(now).err().map(|wait| left_alone(model, watched, wait))
    }

    /// How well the servers of these models are.
    pub fn of<'r>(&self, remotes: impl IntoIterator<Item = (&'r str, &'r Remote)>) -> Vec<Condition> {
        let now = self.0.now();
        let models = self.0.models();
        let condition = |(model, remote): (&str, &Remote)| {
            let fresh = Breaker::new(policy(remote));
            let known = models.get(model).filter(|watched| watched.remote == *remote);
            let breaker = known.map_or(&fresh, |watched| &watched.breaker);
            let (failures, failure_share) = breaker.failures();
            let failure = known.and_then(|watched| watched.failure.clone());
            let (code, message) = failure.unzip();
            Condition {
                model: model.to_owned(),
                url: remote.url.to_string(),
                state: breaker.phase().name(),
                failures,
                failure_share: (failure_share * 1e3).round() / 1e3,
                retry_ms: breaker.rests_until().map(|until| until.saturating_sub(now)),
                code,
                message,
            }
        };
        remotes.into_iter().map(condition).collect()
    }

    /// Forgets the failures of a model's server: the next request goes to it.
    pub fn forgive(&self, model: &str) {
        self.0.models().remove(model);
    }
}

/// That nothing goes to a server now, and why.
fn left_alone(model: &str, watched: &Watched, wait: u64) -> Error {
    let wait = Duration::from_millis(wait);
    let why = watched.failure.as_ref().map_or("", |(_, message)| message.as_str());
    let message =
        format!("the server of `{model}` failed and is left alone for {:.1} s: {why}", wait.as_secs_f64());
    Error::new(UNAVAILABLE, message).help("see `remotes` in /admin/models").retry_after(wait)
}

fn policy(remote: &Remote) -> Policy {
    let ms = |period: crate::config::Period| u64::try_from(period.duration().as_millis()).unwrap_or(u64::MAX);
    Policy { failures: remote.failures.max(1), rest: ms(remote.rest), most: ms(remote.max_rest) }
}

/// What is known of a model; nothing yet when it is another one than before.
fn entry<'m>(models: &'m mut BTreeMap<String, Watched>, model: &str, remote: &Remote) -> &'m mut Watched {
    if models.get(model).is_some_and(|watched| watched.remote != *remote) {
        models.remove(model);
    }
    models.entry(model.to_owned()).or_insert_with(|| Watched {
        remote: remote.clone(),
        breaker: Breaker::new(policy(remote)),
        watched: false,
        failure: None,
    })
}

/// From 0 to 1. Without the system's dice in the middle: the rest is spread less.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |drawn| f64::from(drawn) / f64::from(u32::MAX))
}

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing panics while the lock is held; should it, the map is still whole.
    fn models(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(
        self: &Arc<Self>,
        model: &str,
        remote: &Remote,
        pass: Pass,
        ended: Ended,
        error: Option<&Error>,
    ) {
        let now = self.now();
        let mut models = self.models();
        // It may have become another one meanwhile.
        let Some(watched) = models.get_mut(model).filter(|watched| watched.remote == *remote) else { return };
        let before = watched.breaker.phase();
        watched.breaker.report(now, pass, ended, chance());
        if let Some(error) = error {
            watched.failure = Some((error.code().to_owned(), error.message().to_owned()));
        }
        let phase = watched.breaker.phase();
        if before != phase {
            tell(model, phase);
        }
        if phase == Phase::Closed && ended == Ended::Well {
            watched.failure = None;
        }
        if phase == Phase::Open && !watched.watched {
            watched.watched = self.watch(model, remote);
        }
    }

    /// Asks, from a thread of its own, until the server is there. Says whether there is such a thread; without one a
    /// request asks.
    fn watch(self: &Arc<Self>, model: &str, remote: &Remote) -> bool {
        let (watch, model, remote) = (Arc::downgrade(self), model.to_owned(), remote.clone());
        let work = move || while ask(&watch, &model, &remote) {};
        std::thread::Builder::new().name("remote-probe".to_owned()).spawn(work).is_ok()
    }
}

/// Waits until it is time and asks once; `false` when there is nothing more to ask.
fn ask(watch: &Weak<Watch>, model: &str, remote: &Remote) -> bool {
    let wait = {
        let Some(watch) = watch.upgrade() else { return false };
        let now = watch.now();
        let mut models = watch.models();
        let Some(watched) = models.get_mut(model).filter(|watched| watched.remote == *remote) else {
            return false;
        };
        match watched.breaker.rests_until() {
            Some(until) => Duration::from_millis(until.saturating_sub(now)),
            None => {
                watched.watched = false;
                return false;
            }
        }
    };
    if !wait.is_zero() {
        std::thread::sleep(wait.min(PIECE));
        return watch.strong_count() > 0;
    }
    let due = |watch: &Watch| {
        let now = watch.now();
        let mut models = watch.models();
        models.get_mut(model).filter(|watched| watched.remote == *remote).is_some_and(|w| w.breaker.due(now))
    };
    if !watch.upgrade().is_some_and(|watch| due(&watch)) {
        return watch.strong_count() > 0;
    }
    let there = is_there(remote);
    let Some(watch) = watch.upgrade() else { return false };
    let now = watch.now();
    let mut models = watch.models();
    let Some(watched) = models.get_mut(model).filter(|watched| watched.remote == *remote) else {
        return false;
    };
    watched.breaker.probed(now, there, chance());
    if there {
        tell(model, watched.breaker.phase());
    }
    true
}

fn tell(model: &str, phase: Phase) {
    match phase {
        Phase::Open => tracing::warn!(model, "its server fails: it is left alone for a while"),
        Phase::HalfOpen => tracing::info!(model, "its server is there again: one request is tried"),
        Phase::Closed => tracing::info!(model, "its server is well again"),
    }
}

/// The leave of one request. Dropped without a word, nothing is known of it.
#[derive(Debug)]
pub struct Permit {
    watch: Arc<Watch>,
    model: String,
    remote: Remote,
    pass: Option<Pass>,
}

impl Permit {
    /// How the request ended.
    pub fn ended<T>(mut self, result: &Result<T>) {
        let (ended, error) = match result {
            Ok(_) => (Ended::Well, None),
            Err(error) if says_it_fails(error.code()) => (Ended::Badly, Some(error)),
            Err(error) if error.code() == "cancelled" => (Ended::Unknown, None),
            // It said no, or we did: it is there.
            Err(_) => (Ended::Well, None),
        };
        if let Some(pass) = self.pass.take() {
            self.watch.report(&self.model, &self.remote, pass, ended, error);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.watch.report(&self.model, &self.remote, pass, Ended::Unknown, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Remote {
        serde_json::from_value(serde_json::json!({
            "url": "http://127.0.0.1:9/v1", "model": "m", "failures": 2, "rest": "1h", "max_rest": "1h",
        }))
        .unwrap()
    }

    fn failed() -> Result<()> {
        Err(Error::new("remote-timeout", "it said nothing"))
    }

    #[test]
    fn a_server_that_fails_is_left_alone_until_it_is_forgiven() {
        let (health, remote) = (Health::default(), remote());
        for _ in 0..2 {
            assert!(health.refuses("m", &remote).is_none());
            health.enter("m", &remote).unwrap().ended(&failed());
        }
        let refused = health.enter("m", &remote).unwrap_err();
        assert_eq!(refused.code(), "remote-unavailable");
        assert!(refused.message().ends_with(" s: it said nothing") && refused.wait().is_some(), "{refused}");
        let condition = health.of([("m", &remote)]).remove(0);
        assert_eq!((condition.state, condition.failures), ("open", 2));
        assert_eq!(condition.code.as_deref(), Some("remote-timeout"));
        health.forgive("m");
        assert!(health.enter("m", &remote).is_ok());
    }

    #[test]
    fn a_model_that_became_another_one_begins_anew() {
        let (health, before) = (Health::default(), remote());
        let slow = health.enter("m", &before).unwrap();
        (0..2).for_each(|_| health.enter("m", &before).unwrap().ended(&failed()));
        let other = Remote { model: "other".to_owned(), ..before.clone() };
        assert!(health.refuses("m", &before).is_some() && health.refuses("m", &other).is_none());
        health.enter("m", &other).unwrap().ended(&failed());
        // What is said of the one before is of no matter.
        slow.ended(&Ok(()));
        assert_eq!(health.of([("m", &other)])[0].failures, 1);
    }

    #[test]
    fn a_refusal_and_a_cancelled_request_are_no_failures() {
        let (health, remote) = (Health::default(), remote());
        for code in ["remote-refused", "remote-busy", "cancelled", "remote-denied"] {
            for _ in 0..5 {
                health.enter("m", &remote).unwrap().ended(&Err::<(), _>(Error::new(code, "")));
            }
        }
        assert_eq!(health.of([("m", &remote)])[0].state, "closed");
    }
}
