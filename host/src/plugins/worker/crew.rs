//! Threads that carry calls out: made when there is none to spare, kept for the next call.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Calls that run at the same time: more than a host lets in for one model.
const MOST: usize = 512;

type Job = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Default)]
pub struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

impl Crew {
    /// Has a job done, at once unless [`MOST`] run already. Says whether a thread could be had.
    pub fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.state();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads >= MOST {
            self.changed.notify_one();
            return true;
        }
        let crew = Arc::clone(self);
        let begun = std::thread::Builder::new().name("call".to_owned()).spawn(move || crew.work());
        state.threads += usize::from(begun.is_ok());
        if begun.is_err() && state.threads == 0 {
            state.jobs.pop_back();
            return false;
        }
        true
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            match state.jobs.pop_front() {
                Some(job) => {
                    drop(state);
                    job();
                    state = self.state();
                }
                None => {
                    state.idle += 1;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }

    /// No job runs while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
