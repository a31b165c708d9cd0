//! Passing cancel flags on to ONNX Runtime, whose calls block until they are done or told to stop.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use pajamas_plugin_api::Cancel;

/// How long a cancel flag may go unnoticed.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at the cancel flags of all calls under way. One thread for the whole process, asleep while there are none.
pub(super) struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    arrival: Condvar,
}

#[derive(Default)]
struct Watched {
    next: u64,
    calls: HashMap<u64, (Cancel, Stop)>,
}

type Stop = Box<dyn Fn() + Send>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing under this lock leaves the table half-changed: a panic elsewhere does not spoil it.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// The process's watcher.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub(super) fn of_process() -> io::Result<&'static Self> {
        static WATCHER: OnceLock<Watcher> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = WATCHER.get() {
            return Ok(watcher);
        }
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // The thread lives as long as the process: plugins are never unloaded.
        thread::Builder::new().name("onnx-cancel".to_owned()).spawn(move || watch(&theirs))?;
        Ok(WATCHER.get_or_init(|| Self { shared }))
    }

    /// Calls `stop` soon after `cancel` is set, once, unless the returned guard is dropped before.
    pub(super) fn watch(&self, cancel: &Cancel, stop: impl Fn() + Send + 'static) -> Watching<'_> {
        let mut watched = self.shared.lock();
        let id = watched.next;
        watched.next += 1;
        watched.calls.insert(id, (cancel.clone(), Box::new(stop)));
        if watched.calls.len() == 1 {
            self.shared.arrival.notify_one();
        }
        Watching { watcher: self, id }
    }
}

fn watch(shared: &Shared) {
    let mut watched = shared.lock();
    loop {
        watched = match watched.calls.is_empty() {
            true => shared.arrival.wait(watched).unwrap_or_else(PoisonError::into_inner),
            false => shared.arrival.wait_timeout(watched, INTERVAL).unwrap_or_else(PoisonError::into_inner).0,
        };
        for (_, (_, stop)) in watched.calls.extract_if(|_, (cancel, _)| cancel.is_cancelled()) {
            stop();
        }
    }
}

/// A call under way; dropping it ends the watch.
pub(super) struct Watching<'a> {
    watcher: &'a Watcher,
    id: u64,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.watcher.shared.lock().calls.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_set_flag_stops_its_call_once_and_no_other() {
        let watcher = Watcher::of_process().unwrap();
        let (stopped, heard) = mpsc::channel();
        let (flag, other) = (Cancel::new(), Cancel::new());
        let theirs = stopped.clone();
        let _other = watcher.watch(&other, move || theirs.send("other").unwrap());
        let call = watcher.watch(&flag, move || stopped.send("mine").unwrap());
        flag.cancel();
        assert_eq!(heard.recv().unwrap(), "mine");
        drop(call);
        assert!(heard.try_recv().is_err());
    }
}
