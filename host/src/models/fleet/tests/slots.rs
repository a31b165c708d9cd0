//! Sessions in use that give back slots, and take them again.

use super::*;

impl Stage {
    /// Loads a model of four slots of 15 bytes each and 20 beside them, for so many requests. Gives its session.
    fn wide(&mut self, requests: usize) -> u64 {
        self.ask("a");
        let session = self.begun();
        self.estimated(session, 80);
        self.tell(Event::CanResize { session, slots: 4, each: cpu(15) });
        self.loaded(session, 80);
        for _ in 1..requests {
            self.ask("a");
        }
        self.effects();
        session
    }

    fn resized(&mut self, session: u64, slots: u32) {
        self.tell(Event::Resized { session, slots, bytes: cpu(20 + 15 * u64::from(slots)) });
    }
}

#[test]
fn who_is_in_use_gives_back_the_slots_that_it_does_not_use() {
    let mut stage = Stage::new();
    let a = stage.wide(2);
    let b = stage.want("b", 40);
    assert_eq!(stage.effects(), [Effect::Resize { session: a, slots: 2 }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Busy, 80), "it holds all until it is done");
    stage.resized(a, 2);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    assert_eq!(stage.used(), 90);
}

#[test]
fn nothing_is_asked_of_it_that_would_not_be_enough_or_is_not_needed() {
    let mut stage = Stage::new();
    stage.wide(2);
    let b = stage.want("b", 20);
    assert_eq!(stage.effects(), [Effect::Load { session: b }], "there is room");
    let mut stage = Stage::new();
    let a = stage.wide(3);
    stage.want("b", 40);
    assert_eq!(stage.effects(), [], "one slot is not enough");
    stage.tell(Event::Left { session: a });
    assert_eq!(stage.effects(), [Effect::Resize { session: a, slots: 2 }]);
}

#[test]
fn it_has_them_again_when_more_ask_than_it_has_slots_and_nobody_needs_the_room() {
    let mut stage = Stage::new();
    let a = stage.wide(2);
    let b = stage.want("b", 40);
    stage.resized(a, 2);
    stage.loaded(b, 40);
    stage.effects();
    let ticket = stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Grant { ticket, session: a }], "there is no room for a third slot");
    stage.tell(Event::Left { session: b });
    stage.tell(Event::Unload { model: "b".to_owned() });
    stage.unloaded(b);
    let widened = Effect::Resize { session: a, slots: 4 };
    assert_eq!(stage.effects(), [Effect::Unload { session: b }, widened]);
    assert_eq!(stage.used(), 80, "reserved before it is taken");
    stage.resized(a, 4);
    assert_eq!((stage.effects(), stage.used()), (vec![], 80));
}

#[test]
fn who_works_at_more_than_is_known_is_not_asked_again_and_again() {
    let mut stage = Stage::new();
    let a = stage.wide(1);
    let b = stage.want("b", 40);
    assert_eq!(stage.effects(), [Effect::Resize { session: a, slots: 1 }]);
    // One request that writes three answers.
    stage.resized(a, 3);
    assert_eq!((stage.effects(), stage.used()), (vec![], 65));
    stage.tell(Event::Tick);
    assert_eq!(stage.effects(), []);
    stage.ask("a");
    stage.tell(Event::Left { session: a });
    let [.., last] = &stage.effects()[..] else { panic!("nothing") };
    assert_eq!(*last, Effect::Resize { session: a, slots: 2 }, "its requests are others");
    stage.resized(a, 2);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
}

#[test]
fn one_that_is_let_go_meanwhile_is_freed_when_its_backend_and_its_requests_are_done() {
    let mut stage = Stage::new();
    let a = stage.wide(1);
    let b = stage.want("b", 40);
    assert_eq!(stage.effects(), [Effect::Resize { session: a, slots: 1 }]);
    stage.tell(Event::Unload { model: "a".to_owned() });
    stage.tell(Event::Left { session: a });
    assert_eq!(stage.effects(), [], "its backend has it");
    stage.resized(a, 1);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }, Effect::Load { session: b }]);

    let mut stage = Stage::new();
    let a = stage.wide(1);
    stage.want("b", 40);
    stage.tell(Event::Unload { model: "a".to_owned() });
    stage.effects();
    stage.resized(a, 1);
    assert!(!stage.effects().contains(&Effect::Unload { session: a }), "a request has it");
    stage.tell(Event::Left { session: a });
    assert!(stage.effects().contains(&Effect::Unload { session: a }));
}

#[test]
fn one_that_falls_asleep_with_fewer_wakes_with_all_of_them() {
    let mut stage = Stage::new();
    stage.ask("a");
    let a = stage.begun();
    stage.estimated(a, 80);
    stage.tell(Event::CanSleep { session: a, bytes: cpu(10) });
    stage.tell(Event::CanResize { session: a, slots: 4, each: cpu(15) });
    stage.loaded(a, 80);
    stage.effects();
    let b = stage.want("b", 60);
    assert_eq!(stage.effects(), [Effect::Resize { session: a, slots: 1 }]);
    stage.resized(a, 1);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    stage.loaded(b, 60);
    stage.effects();
    stage.tell(Event::Left { session: a });
    assert_eq!(stage.effects(), [], "there is no room for its slots");
    let c = stage.want("c", 20);
    assert_eq!(stage.effects(), [Effect::Sleep { session: a }]);
    stage.tell(Event::Slept { session: a, bytes: cpu(10) });
    stage.loaded(c, 20);
    stage.tell(Event::Left { session: b });
    stage.effects();
    stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Unload { session: b }]);
    stage.unloaded(b);
    assert_eq!((stage.effects(), stage.used()), (vec![Effect::Wake { session: a }], 100));
}

#[test]
fn one_that_its_backend_cannot_resize_is_loaded_anew() {
    let mut stage = Stage::new();
    let a = stage.wide(1);
    stage.want("b", 40);
    stage.effects();
    stage.tell(Event::Failed { session: a, error: Error::new("out-of-memory", "told to") });
    assert_eq!(stage.effects(), [], "a request has it");
    stage.tell(Event::Left { session: a });
    assert!(stage.effects().contains(&Effect::Unload { session: a }));
}
