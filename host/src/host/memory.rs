//! What a host remembers for the choice of models, beside what it observed: where requests went, which models are in
//! trouble, the latest decisions. All of it is bounded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::decision_log::DecisionLog;
use crate::hardware::Heat;
use crate::metrics::Observations;
use crate::remote::Health;
use crate::router::{Ended, Fault, Record};

/// Sessions and beginnings that are remembered at least; at most twice as many.
const HABITS: usize = 4096;
/// How long a model that could not be loaded is passed over, where there are others.
const TROUBLE: Duration = Duration::from_secs(30);
/// Decisions that are kept, and the bytes of their JSON.
const RECORDS: usize = 256;
const RECORD_BYTES: usize = 4 << 20;

/// What a host remembers for the choice of models.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) observed: Observations,
    pub(super) habits: Habits,
    pub(super) troubles: Troubles,
    pub(super) decisions: Decisions,
    /// The same on disk, where the configuration wants it.
    pub(super) decision_log: DecisionLog,
    pub(super) heat: Heat,
    /// How well the servers of remote models are.
    pub(super) health: Health,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where requests of a session, or with a common beginning, went.
#[derive(Debug, Default)]
pub(super) struct Habits(Mutex<[HashMap<u64, Place>; 2]>);

/// A model, and how often it had been loaded then: what it had in its cache is gone with the next load.
type Place = (String, Option<u64>);

impl Habits {
    /// The model that a request like this one went to.
    pub(super) fn of(&self, common: u64) -> Option<Place> {
        let [young, old] = &*lock(&self.0);
        young.get(&common).or_else(|| old.get(&common)).cloned()
    }

    /// A request went there.
    pub(super) fn went(&self, common: u64, place: Place) {
        let mut generations = lock(&self.0);
        if generations[0].len() >= HABITS {
            let young = std::mem::take(&mut generations[0]);
            generations[1] = young;
        }
        generations[0].insert(common, place);
    }
}

/// Models that could not be loaded a moment ago.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, (Instant, Fault)>>);

impl Troubles {
    /// Loading a model failed.
    pub(super) fn add(&self, model: &str, fault: Fault) {
        lock(&self.0).insert(model.to_owned(), (Instant::now(), fault));
    }

    /// A model is well again.
    pub(super) fn over(&self, model: &str) {
        lock(&self.0).remove(model);
    }

    /// All that are in trouble.
    pub(super) fn now(&self) -> BTreeMap<String, Fault> {
        let mut troubles = lock(&self.0);
        troubles.retain(|_, (since, _)| since.elapsed() < TROUBLE);
        troubles.iter().map(|(model, (_, fault))| (model.clone(), fault.clone())).collect()
    }
}

/// The latest decisions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Decisions(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    next: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    number: u64,
    json: String,
    outcome: Option<Ended>,
}

impl Kept {
    fn told(&self) -> Option<Value> {
        let record: Record = serde_json::from_str(&self.json).ok()?;
        let decision = record.decision.told();
        let mut told = serde_json::to_value(Record { outcome: self.outcome.clone(), ..record }).ok()?;
        told["decision"] = decision;
        Some(told)
    }
}

impl Decisions {
    /// Keeps a decision; gives its number.
    pub(super) fn keep(&self, record: &Record) -> u64 {
        // Of these types nothing can fail to be written.
        let json = serde_json::to_string(record).unwrap_or_default();
        let mut ring = lock(&self.0);
        let number = ring.next;
        ring.next += 1;
        if json.len() > RECORD_BYTES {
            return number;
        }
        ring.bytes += json.len();
        ring.kept.push_back(Kept { number, json, outcome: None });
        while ring.kept.len() > RECORDS || ring.bytes > RECORD_BYTES {
            let Some(oldest) = ring.kept.pop_front() else { break };
            ring.bytes -= oldest.json.len();
        }
        number
    }

    /// A request ended; its decision may be gone.
    pub(super) fn ended(&self, number: u64, outcome: Ended) {
        let mut ring = lock(&self.0);
        if let Ok(place) = ring.kept.binary_search_by_key(&number, |kept| kept.number) {
            ring.kept[place].outcome = Some(outcome);
        }
    }

    /// One of those that are kept.
    pub(super) fn one(&self, number: u64) -> Option<Value> {
        let kept = {
            let ring = lock(&self.0);
            let place = ring.kept.binary_search_by_key(&number, |kept| kept.number).ok()?;
            ring.kept[place].clone()
        };
        kept.told()
    }

    /// All that are kept, each model's reasons also in words.
    pub(super) fn all(&self) -> Vec<Value> {
        // Read without the lock, which every request takes.
        let kept = lock(&self.0).kept.clone();
        kept.iter().filter_map(Kept::told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Task};
    use crate::router::{Ask, Rules, Snapshot, decide};

    fn record(text: &str) -> Record {
        let rules = Rules::new(&Config::default()).unwrap();
        let ask = Ask { text: Some(text.to_owned()), ..Ask::new(Task::Chat, None) };
        let snapshot = Snapshot::default();
        let decision = decide(&rules, &ask, &snapshot);
        Record {
            request: None,
            rules: rules.fingerprint().to_owned(),
            ask,
            snapshot,
            decision,
            outcome: None,
        }
    }

    #[test]
    fn only_the_latest_decisions_are_kept_and_their_ends_are_told() {
        let decisions = Decisions::default();
        let numbers: Vec<u64> = (0..RECORDS as u64 + 5).map(|_| decisions.keep(&record("a"))).collect();
        assert_eq!(decisions.all().len(), RECORDS);
        let done = || Ended { code: "ok".to_owned(), took: 7 };
        decisions.ended(numbers[0], done());
        decisions.ended(*numbers.last().unwrap(), done());
        let all = decisions.all();
        assert_eq!(all.last().unwrap()["outcome"]["took"], 7);
        assert!(all[0]["outcome"].is_null());
        let read: Record = serde_json::from_value(all.last().unwrap().clone()).unwrap();
        assert_eq!((read.ask, read.outcome), (record("a").ask, Some(done())));
    }

    #[test]
    fn decisions_are_bounded_in_bytes() {
        let decisions = Decisions::default();
        let long = record(&"x".repeat(RECORD_BYTES / 8));
        for _ in 0..20 {
            decisions.keep(&long);
        }
        assert_eq!(decisions.all().len(), 7);
        decisions.keep(&record(&"x".repeat(RECORD_BYTES)));
        assert_eq!(decisions.all().len(), 7, "one that is larger than all is not kept");
    }

    #[test]
    fn habits_are_remembered_for_a_while() {
        let habits = Habits::default();
        let place = |model: &str| (model.to_owned(), Some(1));
        habits.went(u64::MAX, place("a"));
        for common in 0..HABITS as u64 {
            habits.went(common, place("b"));
        }
        assert_eq!(habits.of(u64::MAX), Some(place("a")));
        for common in 0..2 * HABITS as u64 {
            habits.went(common, place("b"));
        }
        assert_eq!(habits.of(u64::MAX), None);
    }
}
