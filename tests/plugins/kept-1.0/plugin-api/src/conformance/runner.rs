//! Runs checks one by one, each on a thread of its own that it may outlive.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Check, CheckOptions};
use crate::host::Outcome;
use crate::{PluginError, Result, codes};

/// How a check that did not fail ended.
pub(super) enum Verdict {
    /// With what was found.
    Passed(String),
    /// With the reason.
    Skipped(String),
}

/// A check's end; `Err` says what is wrong.
pub(super) type Finding = std::result::Result<Verdict, String>;

pub(super) fn passed(detail: impl Into<String>) -> Finding {
    Ok(Verdict::Passed(detail.into()))
}

pub(super) fn skipped(reason: impl Into<String>) -> Finding {
    Ok(Verdict::Skipped(reason.into()))
}

/// The checks so far.
pub(super) struct Runner {
    pub(super) options: CheckOptions,
    pub(super) checks: Vec<Check>,
    subject: String,
}

impl Runner {
    pub(super) fn new(options: CheckOptions) -> Self {
        Self { options, checks: Vec::new(), subject: String::new() }
    }

    /// What the checks from here on are about.
    pub(super) fn subject(&mut self, subject: impl Into<String>) {
        self.subject = subject.into();
    }

    /// Runs one check. Tells whether it passed, for checks that build on it.
    pub(super) fn run(&mut self, name: &str, body: impl FnOnce() -> Finding + Send + 'static) -> bool {
        let start = Instant::now();
        let limit = self.options.deadline;
        let finding = within(limit, body)
            .unwrap_or_else(|| Err(format!("the call has not returned after {} s", limit.as_secs_f32())));
        let (outcome, detail) = match finding {
            Ok(Verdict::Passed(detail)) => (Outcome::Passed, detail),
            Ok(Verdict::Skipped(reason)) => (Outcome::Skipped, reason),
            Err(fault) => (Outcome::Failed, fault),
        };
        self.push(name, outcome, detail, start.elapsed());
        outcome == Outcome::Passed
    }

    pub(super) fn skip(&mut self, name: &str, reason: &str) {
        self.push(name, Outcome::Skipped, reason.into(), Duration::ZERO);
    }

    fn push(&mut self, name: &str, outcome: Outcome, detail: String, time: Duration) {
        self.checks.push(Check {
            subject: self.subject.clone(),
            name: name.into(),
            outcome,
            detail,
            duration_ms: time.as_secs_f64() * 1e3,
        });
    }
}

/// Runs `body` on a thread of its own; `None` when it has not returned in time, and is left behind.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    body: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more when the limit has passed.
        let _ = sender.send(body());
    });
    receiver.recv_timeout(limit).ok()
}

/// Requires an error with one of these codes.
pub(super) fn refused<T>(result: Result<T>, expected: &[&str]) -> Finding {
    match result {
        Ok(_) => Err(format!("succeeded; `{}` was expected", expected.join("` or `"))),
        Err(error) if expected.contains(&error.code.as_str()) => passed(error.to_string()),
        Err(error) => Err(format!("`{}` was expected, not: {error}", expected.join("` or `"))),
    }
}

/// Requires an error of the plugin's own choice: neither success, nor a panic, nor a breach of the protocol.
pub(super) fn refused_somehow<T>(result: Result<T>) -> Finding {
    match result {
        Ok(_) => Err("succeeded; an error was expected".into()),
        Err(error) if is_fault(&error) => Err(error.to_string()),
        Err(error) => passed(error.to_string()),
    }
}

/// Whether an error is the plugin's fault whatever the input was.
pub(super) fn is_fault(error: &PluginError) -> bool {
    [codes::PANICKED, codes::SESSION_POISONED, codes::PROTOCOL].contains(&error.code.as_str())
}

/// An unexpected error, as a finding's fault.
pub(super) fn fault(what: &str) -> impl Fn(PluginError) -> String {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(body: impl FnOnce() -> Finding + Send + 'static) -> (Outcome, String) {
        let deadline = Duration::from_millis(50);
        let mut runner = Runner::new(CheckOptions { deadline, ..CheckOptions::default() });
        runner.subject("a test");
        runner.run("does something", body);
        let check = runner.checks.remove(0);
        (check.outcome, check.detail)
    }

    #[test]
    fn what_a_check_finds_is_recorded() {
        assert_eq!(outcome(|| passed("fine")), (Outcome::Passed, "fine".into()));
        assert_eq!(outcome(|| skipped("no model")), (Outcome::Skipped, "no model".into()));
        assert_eq!(outcome(|| Err("wrong".into())), (Outcome::Failed, "wrong".into()));
    }

    #[test]
    fn a_call_that_never_returns_fails_its_check() {
        let (release, hung) = mpsc::channel::<()>();
        let (outcome, detail) = outcome(move || {
            let _ = hung.recv();
            passed("too late")
        });
        assert_eq!(outcome, Outcome::Failed);
        assert!(detail.contains("has not returned"), "{detail}");
        drop(release);
    }

    #[test]
    fn only_the_expected_codes_count_as_refusals() {
        let error = |code: &str| Err::<(), _>(PluginError::new(code, "no"));
        assert!(refused(error("a"), &["a", "b"]).is_ok());
        assert!(refused(error("c"), &["a", "b"]).is_err());
        assert!(refused(Ok(()), &["a"]).is_err());
        assert!(refused_somehow(error("c")).is_ok());
        assert!(refused_somehow(error("panicked")).is_err());
        assert!(refused_somehow(Ok(())).is_err());
    }
}
