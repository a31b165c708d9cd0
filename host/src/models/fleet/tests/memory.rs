//! Memory that is short, in other hands, or not what was said.

use super::*;

#[test]
fn what_can_never_fit_is_refused_at_once_with_the_numbers() {
    let mut stage = Stage::new();
    let pinned = stage.leave("pinned", 30);
    stage.tell(Event::Pin { model: "pinned".into(), pinned: true });
    stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 71);
    let refused = stage.refusal();
    assert_eq!(refused.code(), "out-of-memory");
    assert!(
        refused.message().contains("needs 1 MiB on cpu") && refused.message().contains("pinned"),
        "{refused}"
    );
    assert_eq!((stage.fleet.state("b"), stage.fleet.state("pinned")), (State::Failed, State::Ready));
    // Memory comes and goes: the next one is looked at again.
    stage.tell(Event::Pin { model: "pinned".into(), pinned: false });
    stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 71);
    assert_eq!(stage.effects(), [Effect::Unload { session: pinned }]);
}

#[test]
fn memory_that_others_hold_is_respected() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 30);
    // 30 are ours, 50 are others'.
    stage.tell(Event::Report { free: cpu(20) });
    assert_eq!(stage.fleet.devices().next().unwrap().others, 50);
    stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 40);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.ask("c");
    let c = stage.begun();
    stage.estimated(c, 60);
    let refused = stage.refusal();
    assert!(refused.message().contains("others hold"), "{refused}");
    // When they have gone there is room again.
    stage.unloaded(a);
    stage.tell(Event::Report { free: cpu(60) });
    stage.effects();
    stage.ask("c");
    let c = stage.begun();
    stage.estimated(c, 60);
    assert_eq!(stage.effects(), [Effect::Load { session: c }]);
}

#[test]
fn what_a_model_held_is_no_room_when_others_took_it() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 60);
    stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 50);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    // 60 came back, and somebody else took 70 meanwhile.
    stage.tell(Event::Unloaded { session: a, back: cpu(60), free: cpu(30) });
    assert_eq!(stage.fleet.devices().next().unwrap().others, 70);
    assert!(!stage.effects().contains(&Effect::Load { session: b }));
}

#[test]
fn a_model_that_holds_ten_times_what_it_said_makes_idle_ones_go() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 40);
    stage.ask("liar");
    let liar = stage.begun();
    stage.estimated(liar, 8);
    stage.effects();
    stage.loaded(liar, 80);
    let effects = stage.effects();
    assert!(effects.contains(&Effect::Unload { session: a }), "{effects:?}");
    stage.unloaded(a);
    assert_eq!((stage.used(), stage.fleet.state("liar")), (80, State::Busy));
}

#[test]
fn what_a_model_held_it_needs_again_whatever_it_says() {
    let mut stage = Stage::new();
    stage.ask("liar");
    let liar = stage.begun();
    stage.estimated(liar, 8);
    stage.loaded(liar, 80);
    stage.tell(Event::Left { session: liar });
    stage.tell(Event::Unload { model: "liar".into() });
    stage.unloaded(liar);
    stage.effects();
    let a = stage.leave("a", 40);
    stage.ask("liar");
    let again = stage.begun();
    stage.estimated(again, 8);
    assert_eq!(
        stage.effects(),
        [Effect::Unload { session: a }],
        "it is not loaded beside what it has no room with"
    );
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: again }]);
    // Another configuration makes another model of it.
    stage.loaded(again, 80);
    stage.tell(Event::Left { session: again });
    stage.tell(Event::Outdate { models: vec!["liar".into()], generation: 1 });
    stage.unloaded(again);
    stage.tell(Event::Unload { model: "a".into() });
    stage.effects();
    stage.leave("b", 40);
    stage.ask_for("liar", 1, None);
    let other = stage.begun();
    stage.estimated(other, 8);
    assert_eq!(stage.effects(), [Effect::Load { session: other }]);
}

#[test]
fn a_device_that_has_less_than_its_ledger_is_tried_once_more() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 30);
    let ticket = stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 50);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    let short = || Error::new("out-of-memory", "cudaMalloc failed");
    stage.tell(Event::Failed { session: b, error: short() });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    stage.tell(Event::Failed { session: b, error: short() });
    let effects = stage.effects();
    let [Effect::Stop { .. }, Effect::Refuse { ticket: refused, error }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((*refused, error.code(), stage.used()), (ticket, "out-of-memory", 0));
    assert!(error.message().starts_with("cudaMalloc failed; `b` needs 1 MiB on cpu"), "{error}");
}
