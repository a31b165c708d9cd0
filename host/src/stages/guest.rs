//! What belongs to one instance: its limits, its log, and why it was stopped.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::Cancel;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

use super::Limits;
use super::bindings::pajamas::stage::logging;

/// Lines that one instance may write.
const MAX_LINES: usize = 64;
/// Bytes of one line.
const MAX_LINE: usize = 1024;

/// Entries of a table: functions that are called through pointers.
pub const TABLE_ELEMENTS: usize = 100_000;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// A line that a stage wrote, cut to a kilobyte.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// The stage that wrote it.
    pub stage: &'a str,
    /// How important the stage says it is.
    pub level: Level,
    /// What it says: untrusted text.
    pub message: &'a str,
}

/// Where log lines go. Called on the thread of the run.
#[derive(Clone)]
pub struct LogSink(Arc<dyn Fn(LogLine<'_>) + Send + Sync>);

impl LogSink {
    /// A sink.
    pub fn new(sink: impl Fn(LogLine<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    pub(super) fn write(&self, stage: &str, level: Level, message: &str) {
        (self.0)(LogLine { stage, level, message });
    }
}

impl Default for LogSink {
    /// Drops every line.
    fn default() -> Self {
        Self::new(|_| ())
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogSink")
    }
}

/// Why an instance was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Cancelled,
    Deadline,
}

/// The state beside an instance.
#[derive(Debug)]
pub struct Guest {
    stage: Arc<str>,
    log: LogSink,
    limits: Limits,
    lines: usize,
    until: Instant,
    cancel: Cancel,
    stopped: Option<Stop>,
    refused_memory: Option<usize>,
    last_error: Option<String>,
}

impl Guest {
    /// A store for one instance, with everything that contains it in place.
    pub fn store(engine: &Engine, stage: Arc<str>, log: LogSink, limits: &Limits) -> Store<Self> {
        let guest = Self {
            stage,
            log,
            limits: *limits,
            lines: 0,
            until: Instant::now(),
            cancel: Cancel::new(),
            stopped: None,
            refused_memory: None,
            last_error: None,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| guest);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().at_tick()));
        store
    }

    /// Prepares a store for a call.
    pub fn begin(store: &mut Store<Self>, limits: &Limits, cancel: &Cancel) {
        let guest = store.data_mut();
        guest.limits = *limits;
        guest.cancel = cancel.clone();
        // A deadline too far to be told is none.
        let now = Instant::now();
        guest.until =
            now.checked_add(limits.deadline).unwrap_or(now + std::time::Duration::from_secs(1 << 30));
        store.set_epoch_deadline(1);
        // Counts what the host copies out of the stage, so that lists that overlap in its memory cannot swell.
        store.set_hostcall_fuel(limits.output.saturating_add(64 << 10));
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// The size of the memory that was asked for and refused.
    pub fn refused_memory(&self) -> Option<usize> {
        self.refused_memory
    }

    /// The last line of level error: a panic's message.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn at_tick(&mut self) -> UpdateDeadline {
        if self.cancel.is_cancelled() {
            self.stopped = Some(Stop::Cancelled);
        } else if Instant::now() >= self.until {
            self.stopped = Some(Stop::Deadline);
        } else {
            return UpdateDeadline::Continue(1);
        }
        UpdateDeadline::Interrupt
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.limits.memory;
        if !allowed {
            self.refused_memory = Some(desired);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        1
    }
}

impl super::bindings::pajamas::stage::values::Host for Guest {}

impl logging::Host for Guest {
    fn log(&mut self, level: logging::Level, message: String) {
        let level = match level {
            logging::Level::Error => Level::Error,
            logging::Level::Warn => Level::Warn,
            logging::Level::Info => Level::Info,
            logging::Level::Debug => Level::Debug,
        };
        let line = &message[..message.floor_char_boundary(MAX_LINE)];
        if level == Level::Error {
            self.last_error = Some(line.to_owned());
        }
        self.lines += 1;
        match self.lines {
            ..=MAX_LINES => self.log.write(&self.stage, level, line),
            n if n == MAX_LINES + 1 => {
                let dropped = format!("more than {MAX_LINES} lines in one run: the rest is dropped");
                self.log.write(&self.stage, Level::Warn, &dropped);
            }
            _ => {}
        }
    }
}
