//! The clock of an engine: one thread that moves the epoch while stages run, and rests while none does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

use crate::{Error, Result};

/// How often running stages look at their deadline and their cancel flag.
const TICK: Duration = Duration::from_millis(5);

/// Moves an engine's epoch. The thread starts with the first run and ends with the ticker.
#[derive(Debug)]
pub struct Ticker {
    shared: Arc<Shared>,
    engine: Engine,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    running: usize,
    /// Whether the thread waits for a run; otherwise it looks again within a tick.
    resting: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic, and a counter cannot be half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the epoch moving while it lives.
#[derive(Debug)]
pub struct Watch(Arc<Shared>);

impl Ticker {
    /// A ticker without a thread yet.
    pub fn new(engine: &Engine) -> Self {
        Self { shared: Arc::default(), engine: engine.clone() }
    }

    /// Keeps the epoch moving for one run.
    pub fn watch(&self) -> Result<Watch> {
        let mut state = self.shared.lock();
        if !state.started {
            let (shared, engine) = (self.shared.clone(), self.engine.clone());
            thread::Builder::new()
                .name("stage-ticker".into())
                .spawn(move || tick(&shared, &engine))
                .map_err(|e| {
                    Error::new("internal", format!("the clock of the stages cannot be started: {e}"))
                })?;
            state.started = true;
        }
        state.running += 1;
        let resting = state.resting;
        drop(state);
        // A wake for each of a request's stages would cost more than some of them take.
        if resting {
            self.shared.changed.notify_one();
        }
        Ok(Watch(self.shared.clone()))
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    loop {
        let state = shared.lock();
        let idle = |state: &mut State| {
            state.resting = state.running == 0 && !state.closed;
            state.resting
        };
        let state = shared.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let open = |state: &mut State| !state.closed;
        let (state, _) =
            shared.changed.wait_timeout_while(state, TICK, open).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return;
        }
        drop(state);
        engine.increment_epoch();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}
