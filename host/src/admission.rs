//! How many requests one model takes at the same time: the rest is refused at once rather than kept waiting for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How much the latest request counts in the average: the last ten or so matter.
const WEIGHT: f64 = 0.2;
/// What a refused caller is told to wait, at least and at most.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Counts the requests of every model.
#[derive(Debug, Default)]
pub struct Admission(Mutex<BTreeMap<String, Line>>);

/// Those of one model.
#[derive(Debug, Default)]
struct Line {
    inside: u32,
    /// Seconds that a request takes, waiting included, averaged over the latest.
    seconds: f64,
}

impl Admission {
    /// Lets one request in, until its ticket is dropped.
    ///
    /// # Errors
    /// `queue-full` when `most` requests are inside, with how long to wait.
    pub fn enter(self: &Arc<Self>, model: &str, most: u32) -> Result<Ticket> {
        let mut lines = self.lines();
        let line = lines.entry(model.to_owned()).or_default();
        if line.inside >= most {
            let wait =
                Duration::try_from_secs_f64(line.seconds.ceil()).unwrap_or(WAIT.1).clamp(WAIT.0, WAIT.1);
            return Err(Error::new(
                "queue-full",
                format!(
                    "{most} requests run and wait for `{model}` already: try again in {} s",
                    wait.as_secs()
                ),
            )
            .help("send fewer at a time, or raise `server.max_queue`")
            .retry_after(wait));
        }
        line.inside += 1;
        Ok(Ticket { admission: Arc::clone(self), model: model.to_owned(), since: Instant::now() })
    }

    /// The models that were asked for, with how many requests each has.
    pub fn inside(&self) -> Vec<(String, u32)> {
        self.lines().iter().map(|(model, line)| (model.clone(), line.inside)).collect()
    }

    /// Nothing panics while the lock is held; should it, the counts are still whole.
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request inside.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    model: String,
    since: Instant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        let mut lines = self.admission.lines();
        if let Some(line) = lines.get_mut(&self.model) {
            line.inside -= 1;
            line.seconds += WEIGHT * (took - line.seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_per_model_and_a_place_is_free_again_after() {
        let admission = Arc::new(Admission::default());
        let first = admission.enter("a", 2).unwrap();
        let _second = admission.enter("a", 2).unwrap();
        let refused = admission.enter("a", 2).unwrap_err();
        assert_eq!((refused.code(), refused.wait()), ("queue-full", Some(Duration::from_secs(1))));
        assert!(admission.enter("b", 2).is_ok());
        drop(first);
        assert!(admission.enter("a", 2).is_ok());
        assert_eq!(admission.inside(), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
    }
}
