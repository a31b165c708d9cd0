//! The book under random traces, and the thread around it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use proptest::prelude::*;

use super::*;

const FOREVER: Duration = Duration::from_secs(3600);
const LIMITS: Limits = Limits { queue: 3, history: 2 };

fn form() -> Form {
    Form { format: "gguf".into(), precision: "Q8_0".into() }
}

fn asked() -> Asked {
    Asked { model: "model".into(), output: "out".into(), forms: vec![form()] }
}

fn book() -> Book {
    Book::new("job-0".into(), LIMITS)
}

fn state(book: &Book, number: u64) -> Option<State> {
    book.status(number, 0).map(|(status, _)| status.state)
}

#[test]
fn a_job_waits_runs_and_is_done() {
    let mut book = book();
    let number = book.add(asked(), 5).unwrap();
    assert_eq!(state(&book, number), Some(State::Queued));
    assert_eq!(book.begin(7), Some(number));
    assert!(book.progress(number, &form(), 0.5, "blk.0", 8));
    let (status, _) = book.status(number, 8).unwrap();
    assert_eq!((status.state, status.progress.fraction), (State::Running, 0.475));
    assert_eq!(status.progress.what, "blk.0");
    book.end(number, Ok(Vec::new()), 9);
    let (status, _) = book.status(number, 10).unwrap();
    assert_eq!((status.state, status.progress.fraction, status.progress.eta_s), (State::Done, 1.0, None));
    assert_eq!((status.created, status.started, status.ended), (5, Some(7), Some(9)));
    assert_eq!(book.counts(), Counts { done: 1, ..Counts::default() });
}

#[test]
fn a_refusal_is_told_and_a_stop_is_none() {
    let mut book = book();
    let cancelled = || Err(Error::new("cancelled", "stopped"));
    let [failed, stopped, alone, late] = [(); 4].map(|()| {
        let number = book.add(asked(), 0).unwrap();
        assert_eq!(book.begin(0), Some(number));
        let result = match number {
            1 => Err(Error::new("tensor-missing", "no output").help("look")),
            2 => {
                assert_eq!(book.stop(number, 1), Some(Stopped::Running));
                assert_eq!(state(&book, number), Some(State::Running), "it has to see that first");
                assert!(book.status(number, 1).unwrap().0.stopping);
                cancelled()
            }
            3 => cancelled(),
            _ => {
                assert_eq!(book.stop(number, 1), Some(Stopped::Running));
                Ok(Vec::new())
            }
        };
        book.end(number, result, 2);
        assert_eq!(book.stop(number, 3), Some(Stopped::Ended));
        let (status, _) = book.status(number, 3).unwrap();
        assert!(!status.stopping);
        (status.state, status.error.map(|error| (error.code, error.message, error.help)))
    });
    let words = |code: &str, message: &str, help: &str| Some((code.into(), message.into(), help.into()));
    assert_eq!(failed, (State::Failed, words("tensor-missing", "no output", "look")));
    assert_eq!(stopped, (State::Cancelled, None));
    assert_eq!(alone, (State::Failed, words("cancelled", "stopped", "")), "nobody asked it to stop");
    assert_eq!(late, (State::Done, None), "it was done before it saw that it should stop");
}

#[test]
fn as_many_wait_as_may_and_the_refusal_knows_how_long() {
    let mut book = book();
    let first = book.add(asked(), 0).unwrap();
    book.begin(0);
    book.add(asked(), 0).unwrap();
    book.add(asked(), 0).unwrap();
    assert_eq!(book.add(asked(), 0), Err(Full { left: None }));
    book.progress(first, &form(), 0.0, "", 0);
    book.progress(first, &form(), 0.5, "", 9_500);
    assert_eq!(book.add(asked(), 9_500), Err(Full { left: Some(10_500) }));
    book.end(first, Ok(Vec::new()), 10_000);
    assert!(book.add(asked(), 10_000).is_ok());
    let error = |left| full(Full { left });
    assert_eq!((error(None).code(), error(None).wait()), ("jobs-full", Some(WAIT.2)));
    assert_eq!(error(Some(10_500)).wait(), Some(Duration::from_millis(10_500)));
    assert_eq!((error(Some(0)).wait(), error(Some(u64::MAX)).wait()), (Some(WAIT.0), Some(WAIT.1)));
}

#[test]
fn an_id_is_written_in_one_way() {
    let mut book = book();
    let number = book.add(asked(), 0).unwrap();
    assert_eq!(book.status(number, 0).unwrap().0.id, "job-0-1");
    assert_eq!(book.number("job-0-1"), Some(number));
    for id in ["", "1", "job-0-", "job-0-01", "job-0-+1", "job-0-2", "job-1-1", "job-0-1 "] {
        assert_eq!(book.number(id), None, "{id}");
    }
}

/// What a step of a trace does; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Act {
    Add,
    Begin,
    Progress(f32),
    Stop(usize),
    End(u8),
    Limit(usize, usize),
    StopAll,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Add),
        6 => Just(Act::Begin),
        4 => (0.0_f32..1.0).prop_map(Act::Progress),
        3 => any::<usize>().prop_map(Act::Stop),
        5 => (0_u8..3).prop_map(Act::End),
        1 => (1_usize..5, 0_usize..5).prop_map(|(queue, history)| Act::Limit(queue, history)),
        1 => Just(Act::StopAll),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_one_runs_in_turn_none_is_lost_and_few_are_kept(acts in prop::collection::vec(act(), 1..200)) {
        let mut book = book();
        let mut limits = LIMITS;
        // What became of every job that there ever was.
        let mut told: BTreeMap<u64, State> = BTreeMap::new();
        let mut begun = 0;
        for (now, act) in acts.iter().enumerate() {
            let now = now as u64;
            let running = told.iter().find(|(_, state)| **state == State::Running).map(|(number, _)| *number);
            let live = told.values().filter(|state| !state.is_end()).count();
            match act {
                Act::Add => match book.add(asked(), now) {
                    Ok(number) => {
                        prop_assert!(live < limits.queue);
                        prop_assert_eq!(told.insert(number, State::Queued), None);
                    }
                    Err(Full { .. }) => prop_assert!(live >= limits.queue),
                },
                Act::Begin => match book.begin(now) {
                    Some(number) => {
                        prop_assert_eq!(running, None, "two at the same time");
                        prop_assert!(number > begun, "out of turn");
                        begun = number;
                        prop_assert_eq!(told.insert(number, State::Running), Some(State::Queued));
                    }
                    None => prop_assert!(running.is_some() || live == 0),
                },
                Act::Progress(fraction) => {
                    let number = running.unwrap_or(begun);
                    let before = book.status(number, now).map(|(status, _)| status.progress.fraction);
                    let news = book.progress(number, &form(), *fraction, "", now);
                    prop_assert!(running.is_some() || !news);
                    let after = book.status(number, now).map(|(status, _)| status.progress.fraction);
                    prop_assert!(before <= after);
                }
                Act::Stop(which) => {
                    let number = (which % (told.len() + 1)) as u64;
                    match book.stop(number, now) {
                        Some(Stopped::Queued) => {
                            prop_assert_eq!(told.insert(number, State::Cancelled), Some(State::Queued));
                        }
                        Some(Stopped::Running) => prop_assert_eq!(running, Some(number)),
                        Some(Stopped::Ended) | None => {
                            prop_assert!(told.get(&number).is_none_or(|state| state.is_end()));
                        }
                    }
                }
                Act::End(how) => {
                    let number = running.unwrap_or(begun);
                    let stopping = book.status(number, now).is_some_and(|(status, _)| status.stopping);
                    let (result, state) = match how {
                        0 => (Ok(Vec::new()), State::Done),
                        1 if stopping => (Err(Error::new("cancelled", "")), State::Cancelled),
                        1 => (Err(Error::new("cancelled", "")), State::Failed),
                        _ => (Err(Error::new("io", "")), State::Failed),
                    };
                    book.end(number, result, now);
                    if running.is_some() {
                        told.insert(number, state);
                    }
                }
                Act::Limit(queue, history) => {
                    limits = Limits { queue: *queue, history: *history };
                    book.limit(limits);
                }
                Act::StopAll => {
                    book.stop_all(now);
                    told.values_mut().filter(|state| **state == State::Queued).for_each(|state| *state = State::Cancelled);
                }
            }
            let all = book.all(now);
            let ended = all.iter().filter(|status| status.state.is_end()).count();
            prop_assert!(ended <= limits.history);
            for (number, state) in &told {
                let known = book.status(*number, now).map(|(status, _)| status.state);
                prop_assert!(known == Some(*state) || known.is_none() && state.is_end(), "{number}: {known:?}, {state:?}");
            }
            let count = |wanted| told.values().filter(|state| **state == wanted).count() as u64;
            let counts = Counts {
                queued: count(State::Queued),
                running: count(State::Running),
                done: count(State::Done),
                failed: count(State::Failed),
                cancelled: count(State::Cancelled),
            };
            prop_assert_eq!(book.counts(), counts);
        }
    }
}

fn jobs() -> Jobs {
    Jobs::new(LIMITS).unwrap()
}

/// Waits for a job's end.
fn ended(jobs: &Jobs, id: &str) -> Status {
    let mut seen = 0;
    loop {
        let (status, revision) = jobs.wait(id, seen, FOREVER).unwrap();
        if status.state.is_end() {
            return status;
        }
        seen = revision;
    }
}

/// Work that goes on when it is told to, and says that it began.
fn held() -> (Work, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begins, begun) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let work: Work = Box::new(move |progress, cancel| {
        begins.send(()).unwrap();
        // Without a word it goes on until it is cancelled.
        while goes.try_recv().is_err() {
            if progress(&form(), 0.5, "holding").is_break() {
                cancel.check()?;
            }
            thread::yield_now();
        }
        Ok(Vec::new())
    });
    (work, begun, go)
}

#[test]
fn jobs_are_carried_out_in_turn_and_those_that_wait_can_be_stopped() {
    let jobs = jobs();
    let (work, begun, go) = held();
    let first = jobs.add(asked(), work).unwrap().id;
    begun.recv().unwrap();
    let never: Work = Box::new(|_, _| panic!("it was cancelled before it began"));
    let second = jobs.add(asked(), never).unwrap();
    assert_eq!((second.state, jobs.counts().queued), (State::Queued, 1));
    let third = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap().id;
    let refused = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap_err();
    assert!(refused.code() == "jobs-full" && refused.wait().is_some());
    assert_eq!(jobs.cancel(&second.id).unwrap().state, State::Cancelled);
    go.send(()).unwrap();
    assert_eq!(ended(&jobs, &first).state, State::Done);
    assert_eq!(ended(&jobs, &third).state, State::Done);
    assert!(jobs.is_idle_within(FOREVER));
    // The thread is gone; for another job there is another.
    let fourth = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap().id;
    assert_eq!(ended(&jobs, &fourth).state, State::Done);
    assert_eq!(jobs.status(&first).unwrap_err().code(), "job-not-found", "the history has two");
}

#[test]
fn a_job_that_runs_is_told_to_stop() {
    let jobs = jobs();
    let (work, begun, _go) = held();
    let id = jobs.add(asked(), work).unwrap().id;
    begun.recv().unwrap();
    let asked = jobs.cancel(&id).unwrap();
    assert!(asked.stopping || asked.state == State::Cancelled);
    assert_eq!(ended(&jobs, &id).state, State::Cancelled);
    assert_eq!(jobs.cancel("job-x").unwrap_err().code(), "job-not-found");
}

#[test]
fn a_job_that_panics_is_the_only_one_that_is_lost() {
    let jobs = jobs();
    let id = jobs.add(asked(), Box::new(|_, _| panic!("a fault"))).unwrap().id;
    let status = ended(&jobs, &id);
    assert_eq!((status.state, &*status.error.unwrap().code), (State::Failed, "internal"));
    let next = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap().id;
    assert_eq!(ended(&jobs, &next).state, State::Done);
}

#[test]
fn who_closes_stops_all_and_waits_for_the_one_that_runs() {
    let jobs = jobs();
    let (work, begun, _go) = held();
    let running = jobs.add(asked(), work).unwrap().id;
    begun.recv().unwrap();
    let waiting = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap().id;
    assert!(!jobs.is_idle_within(Duration::ZERO));
    jobs.close();
    assert!(jobs.is_idle_within(FOREVER));
    for id in [running, waiting] {
        assert_eq!(jobs.status(&id).unwrap().state, State::Cancelled);
    }
    let refused = jobs.add(asked(), Box::new(|_, _| Ok(Vec::new()))).unwrap_err();
    assert_eq!(refused.code(), "shutting-down");
}

#[test]
fn who_watches_is_told_what_is_new_and_not_kept_waiting() {
    let jobs = jobs();
    let (step, steps) = mpsc::channel::<f32>();
    let work: Work = Box::new(move |progress, _| {
        while let Ok(fraction) = steps.recv() {
            assert_eq!(progress(&form(), fraction, "word"), ControlFlow::Continue(()));
        }
        Ok(Vec::new())
    });
    let id = jobs.add(asked(), work).unwrap().id;
    let mut seen = 0;
    for (fraction, told) in [(0.0, 0.0), (0.5, 0.475), (1.0, 0.95)] {
        step.send(fraction).unwrap();
        // States are told as well: who looks again sees the progress.
        loop {
            let (status, revision) = jobs.wait(&id, seen, FOREVER).unwrap();
            assert!(revision > seen);
            seen = revision;
            if status.progress.form.is_some() && status.progress.fraction == told {
                break;
            }
        }
    }
    let (_, same) = jobs.wait(&id, seen, Duration::ZERO).unwrap();
    assert_eq!(same, seen, "nothing new, and it was not waited for");
    drop(step);
    assert_eq!(ended(&jobs, &id).progress.fraction, 1.0);
}
