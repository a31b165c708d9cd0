//! Long work that is asked for and then watched: which jobs there are says the [`book`], which decides all; around it are
//! the lock, the clock and one thread, which is there as long as there is work.

mod book;
mod course;
mod folder;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pajamas_plugin_api::Cancel;

pub use book::{Asked, Counts, Limits, Progress, State, Status};
pub use request::Quantize;

use crate::error::{Error, Result};
use crate::quantize::{self, Form, Made};
use book::{Book, Full, Stopped};

/// What a refused caller is told to wait, at least, at most, and when nothing is known.
const WAIT: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(600), Duration::from_secs(10));

/// What a job does when its turn comes: it tells how far it is, and stops when it is told to.
pub type Work = Box<dyn FnOnce(&mut quantize::Progress<'_>, &Cancel) -> Result<Vec<Made>> + Send>;

/// The jobs of one host. Every method may be called from any thread.
pub struct Jobs(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Something was told of a job, or the thread ended.
    changed: Condvar,
    begun: Instant,
    /// Milliseconds from 1970 to `begun`.
    epoch: u64,
}

struct Inner {
    book: Book,
    /// What the jobs that wait will do.
    waiting: BTreeMap<u64, Work>,
    /// Stops the one that runs.
    cancel: Cancel,
    /// Whether the thread is there.
    working: bool,
    closed: bool,
}

impl Jobs {
    /// No jobs yet.
    ///
    /// # Errors
    /// `internal` when the system has no random numbers.
    pub fn new(limits: Limits) -> Result<Self> {
        let drawn = getrandom::u32()
            .map_err(|e| Error::new("internal", format!("the system has no random numbers: {e}")))?;
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let inner = Inner {
            book: Book::new(format!("job-{drawn:08x}"), limits),
            waiting: BTreeMap::new(),
            cancel: Cancel::new(),
            working: false,
            closed: false,
        };
        Ok(Self(Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            begun: Instant::now(),
            epoch: u64::try_from(epoch).unwrap_or(u64::MAX),
        })))
    }

    /// Other limits from now on.
    pub fn limit(&self, limits: Limits) {
        self.0.lock().book.limit(limits);
    }

    /// Puts a job behind the others; it begins when they have ended.
    ///
    /// # Errors
    /// `jobs-full` with how long to wait; `shutting-down`; `internal` when there is no thread to be had.
    pub fn add(&self, asked: Asked, work: Work) -> Result<Status> {
        let mut inner = self.0.lock();
        if inner.closed {
            return Err(Error::new("shutting-down", "the server was told to stop, and begins nothing new"));
        }
        let now = self.0.now();
        let number = inner.book.add(asked, now).map_err(full)?;
        if !inner.working {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("jobs".into()).spawn(move || shared.work_off());
            if let Err(error) = started {
                let _ = inner.book.stop(number, now);
                return Err(Error::new("internal", format!("there is no thread for the job: {error}")));
            }
            inner.working = true;
        }
        inner.waiting.insert(number, work);
        let (status, _) = inner.book.status(number, now).ok_or_else(|| Error::new("internal", "no job"))?;
        self.0.changed.notify_all();
        Ok(status)
    }

    /// A job.
    ///
    /// # Errors
    /// `job-not-found`.
    pub fn status(&self, id: &str) -> Result<Status> {
        self.0.lock().known(id, self.0.now()).map(|(status, _)| status).ok_or_else(|| not_found(id))
    }

    /// All jobs that are known, the oldest first.
    pub fn all(&self) -> Vec<Status> {
        self.0.lock().book.all(self.0.now())
    }

    /// How many are where.
    pub fn counts(&self) -> Counts {
        self.0.lock().book.counts()
    }

    /// A job as soon as there is more to tell of it than at `seen` (0: at once), or when it was waited for `most`; and
    /// where that is.
    ///
    /// # Errors
    /// `job-not-found`, also for one that ended too long ago.
    pub fn wait(&self, id: &str, seen: u64, most: Duration) -> Result<(Status, u64)> {
        let begun = Instant::now();
        let mut inner = self.0.lock();
        loop {
            let (status, revision) = inner.known(id, self.0.now()).ok_or_else(|| not_found(id))?;
            let left = most.saturating_sub(begun.elapsed());
            if revision > seen || left.is_zero() {
                return Ok((status, revision));
            }
            inner = self.0.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops a job. One that runs is told to, and has ended a little later; one that ended stays as it is.
    ///
    /// # Errors
    /// `job-not-found`.
    pub fn cancel(&self, id: &str) -> Result<Status> {
        let now = self.0.now();
        let mut inner = self.0.lock();
        let number = inner.book.number(id).ok_or_else(|| not_found(id))?;
        match inner.book.stop(number, now) {
            Some(Stopped::Queued) => drop(inner.waiting.remove(&number)),
            Some(Stopped::Running) => inner.cancel.cancel(),
            Some(Stopped::Ended) | None => {}
        }
        self.0.changed.notify_all();
        // With a history of none it is gone by now.
        inner.known(id, now).map(|(status, _)| status).ok_or_else(|| not_found(id))
    }

    /// Stops all jobs, and takes no more.
    pub fn close(&self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        inner.waiting.clear();
        inner.cancel.cancel();
        inner.book.stop_all(self.0.now());
        self.0.changed.notify_all();
    }

    /// Waits until nothing is worked on; says whether that was within `most`.
    pub fn is_idle_within(&self, most: Duration) -> bool {
        let inner = self.0.lock();
        let waited = self.0.changed.wait_timeout_while(inner, most, |inner| inner.working);
        !waited.unwrap_or_else(PoisonError::into_inner).0.working
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn known(&self, id: &str, now: u64) -> Option<(Status, u64)> {
        self.book.status(self.book.number(id)?, now)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since 1970, which pass evenly whatever happens to the system's clock.
    fn now(&self) -> u64 {
        self.epoch.saturating_add(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The thread: one job after the other, until none is left.
    fn work_off(&self) {
        while let Some((number, work, cancel)) = self.begin() {
            let mut tell = |form: &Form, fraction: f32, what: &str| {
                self.told(number, form, fraction, what);
                match cancel.is_cancelled() {
                    true => std::ops::ControlFlow::Break(()),
                    false => std::ops::ControlFlow::Continue(()),
                }
            };
            // Whatever a job does, those behind it have their turn.
            let result = catch_unwind(AssertUnwindSafe(|| work(&mut tell, &cancel)));
            self.end(number, result.unwrap_or_else(|_| Err(Error::new("internal", "the job panicked"))));
        }
    }

    fn begin(&self) -> Option<(u64, Work, Cancel)> {
        let mut inner = self.lock();
        let next = inner.book.begin(self.now());
        self.changed.notify_all();
        // Each that waits in the book waits here.
        let next = next.and_then(|number| Some((number, inner.waiting.remove(&number)?)));
        match next {
            Some((number, work)) => {
                inner.cancel = Cancel::new();
                Some((number, work, inner.cancel.clone()))
            }
            None => {
                inner.working = false;
                None
            }
        }
    }

    fn told(&self, number: u64, form: &Form, fraction: f32, what: &str) {
        let now = self.now();
        if self.lock().book.progress(number, form, fraction, what, now) {
            self.changed.notify_all();
        }
    }

    fn end(&self, number: u64, result: Result<Vec<Made>>) {
        match &result {
            Ok(made) => tracing::info!(number, forms = made.len(), "a job is done"),
            Err(error) => tracing::warn!(number, code = error.code(), "a job ended: {}", error.message()),
        }
        self.lock().book.end(number, result, self.now());
        self.changed.notify_all();
    }
}

fn full(Full { left }: Full) -> Error {
    let wait = left.map_or(WAIT.2, Duration::from_millis).clamp(WAIT.0, WAIT.1);
    Error::new("jobs-full", "as many jobs run and wait as `jobs.max_queue` allows")
        .help("try again when one has ended, cancel one, or raise `jobs.max_queue`")
        .retry_after(wait)
}

fn not_found(id: &str) -> Error {
    let message = format!("there is no job `{}`", id.escape_debug());
    Error::new("job-not-found", message).help(
        "`GET /admin/jobs` lists them; those before a restart are forgotten, and so are old ones that ended",
    )
}
