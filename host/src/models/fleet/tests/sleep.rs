//! Sessions that sleep, and wake when they are asked for.

use super::*;

impl Stage {
    /// Loads a model that can sleep, for one request that has ended. Gives its session.
    fn sleeper(&mut self, model: &str, bytes: u64, asleep: u64) -> u64 {
        let ticket = self.ask(model);
        let session = self.begun();
        self.estimated(session, bytes);
        assert_eq!(self.effects(), [Effect::Load { session }]);
        self.tell(Event::CanSleep { session, bytes: cpu(asleep) });
        self.loaded(session, bytes);
        assert_eq!(self.effects(), [Effect::Grant { ticket, session }]);
        self.tell(Event::Left { session });
        session
    }

    fn slept(&mut self, session: u64, bytes: u64) {
        self.tell(Event::Slept { session, bytes: cpu(bytes) });
    }

    fn woken(&mut self, session: u64, bytes: u64) {
        self.tell(Event::Woken { session, bytes: cpu(bytes), took: Duration::from_millis(5) });
    }
}

/// Two models that fit together only if one sleeps: `a` of 60 sleeps with 20, `b` of 60 is loaded and used.
fn asleep_beside_another() -> (Stage, u64, u64) {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    let b = stage.want("b", 60);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    stage.slept(a, 20);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    stage.loaded(b, 60);
    stage.effects();
    (stage, a, b)
}

#[test]
fn who_can_sleep_does_not_go_where_that_is_enough() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    let b = stage.want("b", 60);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Sleeping, 60), "it holds all until it sleeps");
    stage.slept(a, 20);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Sleeping, 80));
    assert_eq!(stage.fleet.gave_back("a"), Some(cpu(40)));
    assert_eq!((stage.fleet.loads("a").unwrap().0, stage.fleet.idle("cpu")), (1, 20));
}

#[test]
fn who_sleeps_goes_when_that_was_not_enough() {
    let (mut stage, a, b) = asleep_beside_another();
    let c = stage.want("c", 40);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: c }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Unloaded, 100));
    stage.tell(Event::Left { session: b });
}

#[test]
fn it_wakes_once_for_all_who_ask_when_its_memory_is_there() {
    let (mut stage, a, b) = asleep_beside_another();
    let tickets = [stage.ask("a"), stage.ask("a")];
    assert_eq!((stage.effects(), stage.fleet.waiting("a")), (Vec::new(), 2), "`b` is in use");
    stage.tell(Event::Left { session: b });
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
    stage.unloaded(b);
    assert_eq!((stage.effects(), stage.used()), (vec![Effect::Wake { session: a }], 60));
    assert_eq!(stage.fleet.state("a"), State::Sleeping);
    stage.woken(a, 60);
    assert_eq!(stage.effects(), tickets.map(|ticket| Effect::Grant { ticket, session: a }));
    assert_eq!((stage.fleet.state("a"), stage.fleet.loads("a").unwrap().0), (State::Busy, 1));
    assert_eq!(stage.fleet.wakes("a"), Some((1, Duration::from_millis(5))));
}

#[test]
fn who_asks_while_it_falls_asleep_wakes_it_after_in_the_order_of_the_line() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    let b = stage.want("b", 60);
    stage.effects();
    let ticket = stage.ask("a");
    assert_eq!(stage.effects(), [], "it is neither given nor begun anew");
    stage.slept(a, 20);
    assert_eq!(stage.effects(), [Effect::Load { session: b }], "who came first");
    stage.loaded(b, 60);
    stage.effects();
    stage.tell(Event::Left { session: b });
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
    stage.unloaded(b);
    assert_eq!(stage.effects(), [Effect::Wake { session: a }]);
    stage.woken(a, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket, session: a }]);
}

#[test]
fn who_would_not_sleep_is_used_or_goes_and_is_not_asked_twice() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    let b = stage.want("b", 60);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    stage.tell(Event::Restless { session: a });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
}

#[test]
fn what_cannot_wake_is_loaded_anew() {
    let (mut stage, a, b) = asleep_beside_another();
    let ticket = stage.ask("a");
    stage.tell(Event::Left { session: b });
    stage.unloaded(b);
    stage.effects();
    stage.tell(Event::Failed { session: a, error: Error::new("worker-crashed", "it was killed") });
    let effects = stage.effects();
    let [Effect::Unload { session: gone }, Effect::Begin { session: new, ticket: begun }] = effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((gone, begun), (a, ticket));
    assert_eq!(stage.fleet.failure("a").map(|failure| failure.breaks), Some(1));
    stage.estimated(new, 60);
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: new }]);
    stage.loaded(new, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket, session: new }]);
}

#[test]
fn two_that_sleep_do_not_wait_for_each_others_weights() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 45);
    let b = stage.want("b", 50);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    stage.slept(a, 45);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    stage.tell(Event::CanSleep { session: b, bytes: cpu(45) });
    stage.loaded(b, 50);
    stage.effects();
    stage.tell(Event::Left { session: b });
    // `c` makes the other one sleep, too; meanwhile both are asked for.
    let c = stage.want("c", 10);
    assert_eq!(stage.effects(), [Effect::Sleep { session: b }]);
    let (first, second) = (stage.ask("a"), stage.ask("b"));
    stage.slept(b, 45);
    // 45, 45 and 10 are held: `a` needs 15 more, `b` 5. First come, first served.
    let effects = stage.effects();
    let [Effect::Load { session: loading }, Effect::Unload { session: gone }, Effect::Begin { ticket, .. }] =
        effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((loading, gone, ticket), (c, b, second));
    stage.unloaded(b);
    assert_eq!(stage.effects(), [Effect::Wake { session: a }]);
    stage.woken(a, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket: first, session: a }]);
}

#[test]
fn what_sleeps_is_unloaded_outdated_and_expires_like_what_is_awake() {
    let (mut stage, a, _) = asleep_beside_another();
    stage.tell(Event::Unload { model: "a".into() });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);

    let (mut stage, a, _) = asleep_beside_another();
    let ticket = stage.ask("a");
    stage.tell(Event::Outdate { models: vec!["a".into()], generation: 1 });
    assert_eq!(stage.effects(), [Effect::Again { ticket }, Effect::Unload { session: a }]);

    let (mut stage, a, _) = asleep_beside_another();
    stage.tell(Event::Ttl { ttls: BTreeMap::from([("a".to_owned(), seconds(60))]) });
    assert_eq!(stage.fleet.next(), Some(stage.now + seconds(60)));
    stage.wait(seconds(60));
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
}

#[test]
fn what_is_let_go_while_it_falls_asleep_is_freed_after() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    stage.want("b", 60);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    stage.tell(Event::Unload { model: "a".into() });
    assert_eq!(stage.effects(), [], "its backend is at work on it");
    assert!(stage.fleet.is_unloading(a));
    stage.slept(a, 20);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
}

#[test]
fn who_waits_no_more_lets_it_sleep_on() {
    let (mut stage, a, b) = asleep_beside_another();
    let ticket = stage.ask("a");
    stage.tell(Event::Cancelled { ticket });
    let refused = stage.refusal();
    assert_eq!((refused.code(), stage.fleet.state("a")), ("cancelled", State::Sleeping));
    stage.tell(Event::Left { session: b });
    assert_eq!(stage.effects(), [], "nobody wants the room");
    let again = stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
    stage.unloaded(b);
    stage.effects();
    stage.woken(a, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket: again, session: a }]);
}

#[test]
fn a_pinned_model_stays_awake_and_what_cannot_wake_beside_it_is_refused() {
    let mut stage = Stage::new();
    let a = stage.sleeper("a", 60, 20);
    stage.tell(Event::Pin { model: "a".into(), pinned: true });
    stage.want("b", 60);
    assert_eq!(stage.refusal().code(), "out-of-memory");
    assert_eq!(stage.fleet.state("a"), State::Ready);
    stage.tell(Event::Pin { model: "a".into(), pinned: false });
    let b = stage.want("b", 60);
    stage.slept(a, 20);
    stage.loaded(b, 60);
    stage.tell(Event::Pin { model: "b".into(), pinned: true });
    stage.effects();
    stage.ask("a");
    let refused = stage.refusal();
    assert!(refused.message().contains("pinned"), "{refused}");
    assert_eq!(stage.fleet.state("a"), State::Sleeping, "it is still there");
    stage.tell(Event::Pin { model: "b".into(), pinned: false });
    stage.tell(Event::Left { session: b });
    let ticket = stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
    stage.unloaded(b);
    stage.woken(a, 60);
    assert!(stage.effects().contains(&Effect::Grant { ticket, session: a }));
    assert_eq!(stage.fleet.failure("a"), None);
}

#[test]
fn what_was_asleep_is_not_said_to_leak() {
    let mut stage = Stage::new();
    stage.tell(Event::Device { device: "cpu".into(), total: 1 << 30 });
    for _ in 0..3 {
        let a = stage.sleeper("a", 800 << 20, 100 << 20);
        let b = stage.want("b", 900 << 20);
        stage.slept(a, 100 << 20);
        stage.loaded(b, 900 << 20);
        stage.tell(Event::Left { session: b });
        for (model, session) in [("a", a), ("b", b)] {
            stage.tell(Event::Unload { model: model.into() });
            let back = if model == "a" { 100 } else { 900 };
            stage.tell(Event::Unloaded { session, back: cpu(back << 20), free: Bytes::new() });
        }
        stage.effects();
    }
    assert_eq!((stage.fleet.leaks("a"), stage.fleet.leaks("b")), (0, 0));
}
