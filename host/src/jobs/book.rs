//! The jobs that there are, and what becomes of each. Pure: the time is given, in milliseconds since 1970, and whoever
//! carries jobs out says what happened.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::course::Course;
use crate::error::Result;
use crate::quantize::batch::Refused;
use crate::quantize::{Form, Made};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Others are before it.
    Queued,
    /// It is worked on.
    Running,
    /// All was made, or was there already.
    Done,
    /// It was refused, and says why.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl State {
    /// Whether nothing more happens to it.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What was asked for, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The source, below the jobs' folder.
    pub model: String,
    /// The artifact's folder, below the jobs' folder.
    pub output: String,
    /// The forms to make.
    pub forms: Vec<Form>,
}

/// How many jobs there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Those that run and wait.
    pub queue: usize,
    /// Those that ended, the latest.
    pub history: usize,
}

/// As many run and wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// In how many milliseconds the one that runs may be done, when that can be told.
    pub left: Option<u64>,
}

/// How far a job is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// From 0 to 1, over all its forms; never less than before.
    pub fraction: f64,
    /// The form at work.
    pub form: Option<Form>,
    /// What is done, in a few words.
    pub what: String,
    /// Seconds until its end, if it goes on as it did; `None` as long as nothing is known.
    pub eta_s: Option<u64>,
}

/// A job, as it is told.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its name in paths.
    pub id: String,
    /// What kind of work it is: `quantize`.
    pub kind: &'static str,
    /// Where it is.
    pub state: State,
    /// What was asked for.
    #[serde(flatten)]
    pub asked: Asked,
    /// It still runs, and was told to stop.
    pub stopping: bool,
    /// When it was asked for, in milliseconds since 1970.
    pub created: u64,
    /// When work on it began.
    pub started: Option<u64>,
    /// When it ended.
    pub ended: Option<u64>,
    /// How far it is.
    pub progress: Progress,
    /// What was made, of a job that is done.
    pub made: Vec<Made>,
    /// Why it failed.
    pub error: Option<Refused>,
}

/// How many jobs are where: of those that ended, all there ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the states, which say what they are")]
pub struct Counts {
    pub queued: u64,
    pub running: u64,
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
}

/// What asking a job to stop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It had not begun, and never will.
    Queued,
    /// Whoever works on it is to be told.
    Running,
    /// It had ended.
    Ended,
}

struct Entry {
    asked: Asked,
    state: State,
    stopping: bool,
    created: u64,
    started: Option<u64>,
    ended: Option<u64>,
    course: Course,
    made: Vec<Made>,
    error: Option<Refused>,
    /// Rises with all that is worth telling.
    revision: u64,
}

/// The jobs, by their numbers, which rise in the order in which they were asked for.
pub struct Book {
    /// What ids begin with: those of another run of the program are not taken for this one's.
    prefix: String,
    limits: Limits,
    last: u64,
    revision: u64,
    entries: BTreeMap<u64, Entry>,
    running: Option<u64>,
    /// Those that ended, in the order in which they did.
    ended: VecDeque<u64>,
    /// Of those that ended.
    counts: Counts,
}

impl Book {
    /// No jobs yet, whose ids will be `PREFIX-NUMBER`.
    pub fn new(prefix: String, limits: Limits) -> Self {
        Self {
            prefix,
            limits,
            last: 0,
            revision: 0,
            entries: BTreeMap::new(),
            running: None,
            ended: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Other limits from now on. Jobs that wait already stay.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        self.forget();
    }

    /// One more job, behind the others.
    ///
    /// # Errors
    /// [`Full`].
    pub fn add(&mut self, asked: Asked, now: u64) -> Result<u64, Full> {
        if self.live().count() >= self.limits.queue {
            let running = self.running.and_then(|number| self.entries.get(&number));
            return Err(Full { left: running.and_then(|entry| entry.course.left(now)) });
        }
        self.last += 1;
        let course = Course::new(asked.forms.clone());
        let entry = Entry {
            asked,
            state: State::Queued,
            stopping: false,
            created: now,
            started: None,
            ended: None,
            course,
            made: Vec::new(),
            error: None,
            revision: 0,
        };
        self.entries.insert(self.last, entry);
        self.touch(self.last);
        Ok(self.last)
    }

    /// The job that is next, which runs from now on; none while another does.
    pub fn begin(&mut self, now: u64) -> Option<u64> {
        if self.running.is_some() {
            return None;
        }
        let (&number, entry) = self.entries.iter_mut().find(|(_, entry)| entry.state == State::Queued)?;
        entry.state = State::Running;
        entry.started = Some(now);
        self.running = Some(number);
        self.touch(number);
        Some(number)
    }

    /// How far the form at work of the running job is. Says whether that is worth telling: a whole hundredth more, or
    /// another form.
    pub fn progress(&mut self, number: u64, form: &Form, fraction: f32, what: &str, now: u64) -> bool {
        if self.running != Some(number) {
            return false;
        }
        let news =
            self.entries.get_mut(&number).is_some_and(|entry| entry.course.tell(form, fraction, what, now));
        if news {
            self.touch(number);
        }
        news
    }

    /// The running job ended.
    pub fn end(&mut self, number: u64, result: Result<Vec<Made>>, now: u64) {
        if self.running != Some(number) {
            return;
        }
        self.running = None;
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let state = match result {
            Ok(made) => {
                entry.course.finish();
                entry.made = made;
                State::Done
            }
            Err(error) if error.code() == "cancelled" && entry.stopping => State::Cancelled,
            Err(error) => {
                entry.error = Some(Refused::from(&error));
                State::Failed
            }
        };
        self.close_entry(number, state, now);
    }

    /// Somebody does not want a job any more. `None` when there is no such job.
    pub fn stop(&mut self, number: u64, now: u64) -> Option<Stopped> {
        let entry = self.entries.get_mut(&number)?;
        match entry.state {
            State::Queued => {
                self.close_entry(number, State::Cancelled, now);
                Some(Stopped::Queued)
            }
            State::Running => {
                if !std::mem::replace(&mut entry.stopping, true) {
                    self.touch(number);
                }
                Some(Stopped::Running)
            }
            State::Done | State::Failed | State::Cancelled => Some(Stopped::Ended),
        }
    }

    /// Nobody wants any more: as [`stop`](Self::stop) for all.
    pub fn stop_all(&mut self, now: u64) {
        for number in self.live().collect::<Vec<_>>() {
            let _ = self.stop(number, now);
        }
    }

    /// The number of the job with this id.
    pub fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(&self.prefix)?.strip_prefix('-')?.parse().ok()?;
        // Of the ways to write a number one is an id.
        (self.entries.contains_key(&number) && self.id(number) == id).then_some(number)
    }

    /// A job, and a number that is higher whenever there is something new to tell of it.
    pub fn status(&self, number: u64, now: u64) -> Option<(Status, u64)> {
        let entry = self.entries.get(&number)?;
        let mut progress = entry.course.progress();
        if entry.state == State::Running {
            progress.eta_s = entry.course.left(now).map(|left| left.div_ceil(1000));
        }
        let status = Status {
            id: self.id(number),
            kind: "quantize",
            state: entry.state,
            asked: entry.asked.clone(),
            stopping: entry.stopping && !entry.state.is_end(),
            created: entry.created,
            started: entry.started,
            ended: entry.ended,
            progress,
            made: entry.made.clone(),
            error: entry.error.clone(),
        };
        Some((status, entry.revision))
    }

    /// All jobs that are known, the oldest first.
    pub fn all(&self, now: u64) -> Vec<Status> {
        self.entries.keys().filter_map(|number| Some(self.status(*number, now)?.0)).collect()
    }

    /// How many are where.
    pub fn counts(&self) -> Counts {
        let queued = self.entries.values().filter(|entry| entry.state == State::Queued).count();
        Counts { queued: queued as u64, running: self.running.is_some().into(), ..self.counts }
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn live(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().filter(|(_, entry)| !entry.state.is_end()).map(|(number, _)| *number)
    }

    fn close_entry(&mut self, number: u64, state: State, now: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.state = state;
            entry.ended = Some(now);
        }
        match state {
            State::Done => self.counts.done += 1,
            State::Failed => self.counts.failed += 1,
            State::Cancelled => self.counts.cancelled += 1,
            State::Queued | State::Running => {}
        }
        self.ended.push_back(number);
        self.touch(number);
        self.forget();
    }

    fn forget(&mut self) {
        while self.ended.len() > self.limits.history {
            if let Some(number) = self.ended.pop_front() {
                self.entries.remove(&number);
            }
        }
    }

    fn touch(&mut self, number: u64) {
        self.revision += 1;
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.revision = self.revision;
        }
    }
}
