//! How many requests one model takes at the same time, who of those that wait is next, and how much each key may use: the
//! rest is refused at once rather than kept waiting for ever.

mod bucket;
mod keys;
mod line;
mod queue;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::Cancel;

pub use keys::{Allowance, Keys, Left, Limits, Pass};
pub use queue::{Full, Queue};

use crate::error::{Error, Result};

/// What a refused caller is told to wait, at least and at most.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often a request that waits looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// Counts the requests of every model.
#[derive(Debug)]
pub struct Admission {
    queues: Mutex<BTreeMap<String, Queue>>,
    /// Somebody's turn came.
    turned: Condvar,
    /// Times are counted from here.
    begun: Instant,
}

/// Who wants in.
#[derive(Debug, Clone, Copy)]
pub struct Comer<'c> {
    /// For which model.
    pub model: &'c str,
    /// How many the model works on at the same time; 0 when that is not known: then it gets all at once.
    pub slots: u32,
    /// Among those that wait, the highest goes first.
    pub priority: i32,
    /// The key that it was sent with.
    pub key: Option<&'c str>,
}

/// Those of one model, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Waiting {
    /// The model's id.
    pub model: String,
    /// Requests that run and wait.
    pub inside: u32,
    /// Those that wait here; others may wait in the model's engine.
    pub waiting: usize,
    /// Those that wait here, by key; without one by the empty name.
    pub by_key: BTreeMap<String, usize>,
}

impl Default for Admission {
    fn default() -> Self {
        Self { queues: Mutex::default(), turned: Condvar::new(), begun: Instant::now() }
    }
}

impl Admission {
    /// Lets one request in, until its ticket is dropped; blocks until its turn comes.
    ///
    /// # Errors
    /// `queue-full` when `most` requests are inside, with how long to wait; `cancelled`.
    pub fn enter(self: &Arc<Self>, comer: Comer<'_>, most: u32, cancel: &Cancel) -> Result<Ticket> {
        let Comer { model, slots, priority, key } = comer;
        let mut queues = self.queues();
        let queue = queues.entry(model.to_owned()).or_default();
        let begun = Instant::now();
        let number = queue.enter(slots, priority, key.unwrap_or_default(), most, self.now());
        let number = number.map_err(|Full { seconds }| {
            let wait = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(WAIT.1).clamp(WAIT.0, WAIT.1);
            let message = format!(
                "{most} requests run and wait for `{model}` already: try again in {} s",
                wait.as_secs()
            );
            Error::new("queue-full", message)
                .help("send fewer at a time, or raise `server.max_queue`")
                .retry_after(wait)
        })?;
        // From here on it leaves whatever happens.
        let mut ticket = Ticket {
            admission: Arc::clone(self),
            model: model.to_owned(),
            number,
            since: begun,
            waited: Duration::ZERO,
            given: false,
        };
        loop {
            if queues.get_mut(model).is_some_and(|queue| queue.has_called(number)) {
                drop(queues);
                ticket.given = true;
                ticket.waited = begun.elapsed();
                return Ok(ticket);
            }
            if let Err(cancelled) = cancel.check() {
                drop(queues);
                return Err(cancelled.into());
            }
            queues = self.turned.wait_timeout(queues, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The models that were asked for, with how many requests each has.
    pub fn inside(&self) -> Vec<(String, u32)> {
        self.queues().iter().map(|(model, queue)| (model.clone(), queue.inside())).collect()
    }

    /// The models that were asked for, with who waits for them.
    pub fn waiting(&self) -> Vec<Waiting> {
        let one = |(model, queue): (&String, &Queue)| Waiting {
            model: model.clone(),
            inside: queue.inside(),
            waiting: queue.waiting(),
            by_key: queue.by_key(),
        };
        self.queues().iter().map(one).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing panics while the lock is held; should it, the counts are still whole.
    fn queues(&self) -> MutexGuard<'_, BTreeMap<String, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request inside.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    model: String,
    number: u64,
    since: Instant,
    waited: Duration,
    /// Whether its turn came.
    given: bool,
}

impl Ticket {
    /// How long it waited for its turn.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        let now = self.admission.now();
        let mut queues = self.admission.queues();
        let Some(queue) = queues.get_mut(&self.model) else { return };
        let any = queue.leave(self.number, self.given, took, now);
        drop(queues);
        if any {
            self.admission.turned.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comer(model: &str) -> Comer<'_> {
        Comer { model, slots: 0, priority: 0, key: None }
    }

    fn enter(admission: &Arc<Admission>, comer: Comer<'_>) -> Result<Ticket> {
        admission.enter(comer, 2, &Cancel::new())
    }

    #[test]
    fn the_limit_is_per_model_and_a_place_is_free_again_after() {
        let admission = Arc::new(Admission::default());
        let first = enter(&admission, comer("a")).unwrap();
        let _second = enter(&admission, comer("a")).unwrap();
        let refused = enter(&admission, comer("a")).unwrap_err();
        assert_eq!((refused.code(), refused.wait()), ("queue-full", Some(Duration::from_secs(1))));
        assert!(enter(&admission, comer("b")).is_ok());
        drop(first);
        assert!(enter(&admission, comer("a")).is_ok());
        assert_eq!(admission.inside(), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
    }

    /// Waits until so many wait.
    fn until_waiting(admission: &Admission, count: usize) {
        while admission.waiting().first().map_or(0, |one| one.waiting) != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn those_that_wait_come_in_turn_and_who_is_cancelled_leaves() {
        let admission = Arc::new(Admission::default());
        let come = |priority, key| Comer { slots: 1, priority, key, ..comer("m") };
        let enter = |comer| admission.enter(comer, 64, &Cancel::new()).unwrap();
        // The first comes before it is known how many the model works on.
        let (first, ahead) = (enter(comer("m")), enter(come(0, None)));
        let (sender, order) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let people = [(0, "many"), (0, "many"), (0, "few"), (-10, "low"), (10, "high")];
            for (place, (priority, key)) in people.into_iter().enumerate() {
                let sender = sender.clone();
                scope.spawn(move || {
                    let ticket = enter(come(priority, Some(key)));
                    sender.send(key).unwrap();
                    drop(ticket);
                });
                until_waiting(&admission, place + 1);
            }
            let gone = Cancel::new();
            gone.cancel();
            let left = admission.enter(come(100, Some("gone")), 64, &gone).unwrap_err();
            assert_eq!(left.code(), "cancelled");
            assert_eq!(admission.waiting()[0].by_key["many"], 2);
            drop(first);
            let served: Vec<&str> = order.iter().take(5).collect();
            assert_eq!(served, ["high", "many", "few", "many", "low"]);
        });
        drop(ahead);
        assert_eq!(
            admission.waiting()[0],
            Waiting { model: "m".into(), inside: 0, waiting: 0, by_key: BTreeMap::new() }
        );
    }
}
