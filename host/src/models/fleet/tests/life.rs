//! Models over time: how long they stay, how they change, how they break.

use super::*;

#[test]
fn models_go_after_their_time_and_requests_may_say_another() {
    let mut stage = Stage::new();
    let ttls = BTreeMap::from([("a".to_owned(), seconds(60))]);
    stage.tell(Event::Ttl { ttls });
    let (a, _b) = (stage.leave("a", 30), stage.leave("b", 30));
    assert_eq!(stage.fleet.next(), Some(stage.now + seconds(60)));
    stage.wait(seconds(59));
    assert_eq!((stage.effects(), stage.fleet.expires("a")), (Vec::new(), Some(seconds(1))));
    // Use begins the time anew, and a request in flight is not cut.
    stage.ask("a");
    stage.effects();
    stage.wait(seconds(600));
    assert_eq!(stage.effects(), []);
    stage.tell(Event::Left { session: a });
    stage.wait(seconds(60));
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.unloaded(a);
    // What a request wishes counts for later ones that wish nothing.
    let keep = |stage: &mut Stage, keep| {
        stage.ask_for("b", 0, keep);
        let Some(Effect::Grant { session, .. }) = stage.effects().pop() else { panic!("it is there") };
        stage.tell(Event::Left { session });
        session
    };
    keep(&mut stage, Some(Keep::For(seconds(5))));
    keep(&mut stage, None);
    assert_eq!(stage.fleet.expires("b"), Some(seconds(5)));
    keep(&mut stage, Some(Keep::Always));
    assert_eq!((stage.fleet.expires("b"), stage.fleet.next()), (None, None));
    let b = keep(&mut stage, Some(Keep::For(Duration::ZERO)));
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
}

#[test]
fn a_pinned_model_goes_for_nobody_and_never() {
    let mut stage = Stage::new();
    stage.tell(Event::Ttl { ttls: BTreeMap::from([("a".to_owned(), seconds(60))]) });
    stage.tell(Event::Pin { model: "a".into(), pinned: true });
    let a = stage.leave("a", 60);
    stage.wait(seconds(9999));
    stage.tell(Event::Limit { memory: limits(Some(10)) });
    assert_eq!(stage.effects(), []);
    // Only by hand.
    stage.tell(Event::Unload { model: "a".into() });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
}

#[test]
fn lower_limits_let_no_more_go_than_they_must() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 30);
    stage.now += seconds(10);
    stage.leave("b", 30);
    stage.leave("c", 30);
    stage.tell(Event::Limit { memory: limits(Some(70)) });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    // What is on its way out is not made up for by another.
    stage.tell(Event::Limit { memory: limits(Some(60)) });
    assert_eq!(stage.effects(), []);
}

#[test]
fn who_waits_for_what_became_another_asks_again_and_who_has_it_keeps_it() {
    let mut stage = Stage::new();
    let old = stage.bring("a", 30);
    let waiting = stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 30);
    stage.effects();
    stage.tell(Event::Outdate { models: vec!["a".into(), "b".into()], generation: 1 });
    let effects = stage.effects();
    assert_eq!(effects, [Effect::Again { ticket: waiting }, Effect::Stop { session: b }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Unloading, 60));
    let late = stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Again { ticket: late }]);
    stage.ask_for("a", 1, None);
    let new = stage.begun();
    stage.estimated(new, 30);
    stage.loaded(new, 30);
    stage.effects();
    assert_eq!((stage.fleet.in_flight("a"), stage.used()), (1, 90), "what the old one holds stays counted");
    stage.tell(Event::Left { session: old });
    assert_eq!((stage.effects(), stage.fleet.in_flight("a")), (vec![Effect::Unload { session: old }], 1));
    // The stopped load was not quick enough to be stopped.
    stage.loaded(b, 30);
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
}

#[test]
fn a_session_that_broke_is_given_to_nobody_and_the_same_break_counts_once() {
    let mut stage = Stage::new();
    let crash = || Error::new("worker-crashed", "killed");
    for round in 0..3 {
        let session = stage.bring("a", 30);
        let ticket = stage.ask("a");
        assert_eq!(stage.effects(), [Effect::Grant { ticket, session }]);
        stage.tell(Event::Broke { session, error: crash() });
        stage.tell(Event::Broke { session, error: crash() });
        stage.tell(Event::Left { session });
        stage.tell(Event::Left { session });
        assert_eq!(stage.effects(), [Effect::Unload { session }]);
        stage.unloaded(session);
        assert_eq!(stage.fleet.state("a"), if round < 2 { State::Failed } else { State::Quarantined });
        stage.now += seconds(2);
    }
    stage.ask("a");
    assert_eq!(stage.refusal().code(), "model-quarantined");
    stage.tell(Event::Forgive { model: "a".into() });
    stage.bring("a", 30);
}

#[test]
fn who_waits_while_a_model_rests_is_served_after() {
    let mut stage = Stage::new();
    for _ in 0..2 {
        let session = stage.bring("a", 30);
        stage.tell(Event::Broke { session, error: Error::new("panicked", "it did") });
        stage.tell(Event::Left { session });
        stage.unloaded(session);
        stage.effects();
    }
    let ticket = stage.ask("a");
    assert_eq!((stage.effects(), stage.fleet.next()), (Vec::new(), Some(stage.now + seconds(1))));
    stage.wait(seconds(1));
    assert!(matches!(stage.effects()[..], [Effect::Begin { ticket: begun, .. }] if begun == ticket));
}

#[test]
fn how_long_a_load_still_takes_is_what_the_latest_took_less_what_has_passed() {
    let milliseconds = Duration::from_millis;
    let mut stage = Stage::new();
    let left = |stage: &Stage| stage.fleet.left_to_load("a", stage.now);
    assert_eq!(left(&stage), None, "it was never loaded");
    let session = stage.leave("a", 60);
    stage.tell(Event::Unload { model: "a".into() });
    stage.unloaded(session);
    stage.effects();
    assert_eq!(left(&stage), Some(milliseconds(100)));
    stage.ask("a");
    let session = stage.begun();
    stage.wait(milliseconds(500));
    assert_eq!(left(&stage), Some(milliseconds(100)), "what it needs is found out, and it is not loaded yet");
    stage.estimated(session, 60);
    stage.now += milliseconds(40);
    assert_eq!(left(&stage), Some(milliseconds(60)));
    stage.now += milliseconds(500);
    assert_eq!(left(&stage), Some(Duration::ZERO), "it takes longer this time");
}

#[test]
fn a_model_that_rests_after_failures_says_until_when() {
    let mut stage = Stage::new();
    let fails = |stage: &mut Stage| {
        stage.ask("a");
        let session = stage.begun();
        stage.tell(Event::Failed { session, error: Error::new("model-invalid", "it is damaged") });
        stage.effects();
        stage.fleet.back_off("a", stage.now)
    };
    assert_eq!(fails(&mut stage), None, "the next request may find it mended");
    let wait = |error: Option<Error>| error.and_then(|error| error.wait());
    assert_eq!(wait(fails(&mut stage)), Some(seconds(1)));
    stage.now += seconds(1);
    let refused = fails(&mut stage).unwrap();
    assert_eq!((refused.code(), refused.wait()), ("model-invalid", Some(seconds(2))));
    stage.now += seconds(1);
    assert_eq!(wait(stage.fleet.back_off("a", stage.now)), Some(seconds(1)));
    stage.now += seconds(1);
    assert_eq!(stage.fleet.back_off("a", stage.now), None);
}

#[test]
fn all_who_wait_for_a_load_that_fails_are_told_why_once() {
    let mut stage = Stage::new();
    let asked = [stage.ask("a"), stage.ask("a")];
    let [Effect::Begin { session, .. }] = stage.effects()[..] else { panic!("one load") };
    let error = Error::new("model-invalid", "it is damaged");
    stage.tell(Event::Failed { session, error: error.clone() });
    let told = asked.map(|ticket| Effect::Refuse { ticket, error: error.clone() });
    assert_eq!(stage.effects(), [&[Effect::Stop { session }][..], &told[..]].concat());
    assert_eq!(stage.fleet.failure("a").map(|failure| failure.code.as_str()), Some("model-invalid"));
}

#[test]
fn memory_that_does_not_come_back_is_told() {
    let mut stage = Stage::new();
    stage.tell(Event::Device { device: "cpu".into(), total: 1 << 30 });
    for round in 0..3 {
        let session = stage.leave("a", 64 << 20);
        stage.tell(Event::Unload { model: "a".into() });
        stage.effects();
        stage.tell(Event::Unloaded { session, back: cpu(1 << 20), free: Bytes::new() });
        let told = matches!(stage.effects()[..], [Effect::Leaked { took, back, .. }] if took == 64 << 20 && back == 1 << 20);
        assert_eq!(told, round > 0);
    }
    assert_eq!(stage.fleet.leaks("a"), 2);
    // Where another model came meanwhile, nothing can be said.
    let session = stage.leave("a", 64 << 20);
    stage.tell(Event::Unload { model: "a".into() });
    stage.ask("b");
    let Some(Effect::Begin { session: b, .. }) = stage.effects().pop() else { panic!("b is begun") };
    stage.estimated(b, 64 << 20);
    stage.tell(Event::Unloaded { session, back: cpu(0), free: Bytes::new() });
    assert_eq!(stage.fleet.leaks("a"), 2);
}

#[test]
fn a_clock_that_jumps_back_is_not_followed_and_one_that_jumps_ahead_ends_what_is_over() {
    let mut stage = Stage::new();
    stage.tell(Event::Ttl { ttls: BTreeMap::from([("a".to_owned(), seconds(60))]) });
    let a = stage.leave("a", 30);
    let before = stage.now;
    stage.now = Duration::ZERO;
    stage.tell(Event::Tick);
    assert_eq!((stage.effects(), stage.fleet.expires("a")), (Vec::new(), Some(seconds(60))));
    stage.now = before + seconds(1 << 40);
    stage.tell(Event::Tick);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.now = Duration::MAX;
    stage.unloaded(a);
    stage.bring("a", 30);
}

#[test]
fn a_thousand_loads_leave_nothing_behind() {
    let mut stage = Stage::new();
    for round in 0..1000 {
        let session = stage.leave(if round % 2 == 0 { "a" } else { "b" }, 60);
        stage.tell(Event::Unload { model: if round % 2 == 0 { "a" } else { "b" }.into() });
        assert_eq!(stage.effects(), [Effect::Unload { session }]);
        stage.unloaded(session);
        assert_eq!((stage.used(), stage.fleet.present().count()), (0, 0));
    }
    assert_eq!(stage.fleet.loads("a").map(|(loads, _)| loads), Some(500));
}

#[test]
fn what_is_told_of_sessions_that_are_not_changes_nothing() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 30);
    let error = Error::new("panicked", "it did");
    for session in [a, 77] {
        stage.estimated(session, 10);
        stage.tell(Event::Failed { session, error: error.clone() });
        stage.tell(Event::Left { session });
        stage.unloaded(session);
        stage.loaded(77, 10);
    }
    stage.tell(Event::Cancelled { ticket: 99 });
    stage.tell(Event::Broke { session: 77, error });
    assert_eq!((stage.effects(), stage.used(), stage.fleet.state("a")), (Vec::new(), 30, State::Ready));
}
