//! Checks of sessions that can sleep: what they give back, and that they wake as they were.

use super::model::{Subject, is_off, total};
use super::runner::{Finding, Runner, fault, passed};
use super::text::say;
use crate::Sleep;

pub(super) fn check(runner: &mut Runner, subject: &Subject) {
    if Sleep::of(&*subject.session).is_none() {
        return runner.skip("sleeps and wakes", "the session does not offer it");
    }
    let a = subject.clone();
    runner.run("sleeps and wakes", move || sleeps(&a));
    let a = subject.clone();
    runner.run("wakes for a request", move || wakes_for_a_request(&a));
}

fn sleeps(subject: &Subject) -> Finding {
    let session = &*subject.session;
    let sleep = Sleep::of(session).ok_or("it is not offered any more")?;
    let promised = total(&sleep.estimate().map_err(fault("estimate"))?);
    let awake = session.usage();
    let before = say(subject)?;
    for round in ["sleep", "sleep while asleep"] {
        if !sleep.sleep().map_err(fault(round))? {
            return Err(format!("{round}: it would not, and nothing is in work"));
        }
    }
    let asleep = total(&session.usage());
    if asleep > total(&awake) || is_off(asleep, promised) {
        return Err(format!(
            "asleep it holds {asleep} bytes; awake it held {}, and it promised {promised}",
            total(&awake)
        ));
    }
    for round in ["wake", "wake while awake"] {
        sleep.wake().map_err(fault(round))?;
    }
    if session.usage() != awake {
        return Err("it holds something else than before it slept".into());
    }
    let after = say(subject)?;
    if after != before {
        return Err(format!("{before:?} before it slept, {after:?} after"));
    }
    passed(format!("{} bytes awake, {asleep} asleep", total(&awake)))
}

fn wakes_for_a_request(subject: &Subject) -> Finding {
    let sleep = Sleep::of(&*subject.session).ok_or("it is not offered any more")?;
    let before = say(subject)?;
    sleep.sleep().map_err(fault("sleep"))?;
    match say(subject)? {
        after if after == before => passed(""),
        after => Err(format!("{before:?} awake, {after:?} from its sleep")),
    }
}
