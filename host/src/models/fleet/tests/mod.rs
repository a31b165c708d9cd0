//! What becomes of requests, one scene after the other, by a clock that the test turns.

mod life;
mod memory;
mod sleep;
mod slots;
mod trace;
mod world;

use super::*;
use crate::config::ByteSize;
use crate::models::status::State;

/// A fleet on one device, `cpu`, of 100 bytes, with the effects since the test last looked.
struct Stage {
    fleet: Fleet,
    now: Duration,
    tickets: u64,
    effects: Vec<Effect>,
}

fn cpu(bytes: u64) -> Bytes {
    Bytes::from([("cpu".to_owned(), bytes)])
}

fn limits(limit: Option<u64>) -> config::Memory {
    config::Memory {
        limit: limit.map(ByteSize::bytes),
        reserve: ByteSize::bytes(0),
        ..config::Memory::default()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Stage {
    fn new() -> Self {
        let (fleet, effects) = (Fleet::new(limits(None)), Vec::new());
        let mut stage = Self { fleet, now: seconds(1000), tickets: 0, effects };
        stage.tell(Event::Device { device: "cpu".to_owned(), total: 100 });
        stage
    }

    fn tell(&mut self, event: Event) {
        let told = self.fleet.step(self.now, event);
        self.effects.extend(told.into_iter().filter(|effect| !matches!(effect, Effect::Tell(_))));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.tell(Event::Tick);
    }

    /// Gives the ticket.
    fn ask(&mut self, model: &str) -> u64 {
        self.ask_for(model, 0, None)
    }

    fn ask_for(&mut self, model: &str, generation: u64, keep: Option<Keep>) -> u64 {
        self.tickets += 1;
        let (ticket, model) = (self.tickets, model.to_owned());
        self.tell(Event::Asked { ticket, model, generation, keep });
        ticket
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The session that is begun, alone, now.
    fn begun(&mut self) -> u64 {
        let [Effect::Begin { session, .. }] = self.effects()[..] else { panic!("one is begun") };
        session
    }

    fn estimated(&mut self, session: u64, bytes: u64) {
        self.tell(Event::Estimated { session, bytes: cpu(bytes) });
    }

    fn loaded(&mut self, session: u64, bytes: u64) {
        let (took, grew) = (Duration::from_millis(100), cpu(bytes));
        self.tell(Event::Loaded { session, bytes: cpu(bytes), took, grew });
    }

    fn unloaded(&mut self, session: u64) {
        self.tell(Event::Unloaded { session, back: cpu(100), free: Bytes::new() });
    }

    /// Loads a model for one request, which still has it. Gives its session.
    fn bring(&mut self, model: &str, bytes: u64) -> u64 {
        let ticket = self.ask(model);
        let session = self.begun();
        self.estimated(session, bytes);
        assert_eq!(self.effects(), [Effect::Load { session }]);
        self.loaded(session, bytes);
        assert_eq!(self.effects(), [Effect::Grant { ticket, session }]);
        session
    }

    /// The same, and the request ends.
    fn leave(&mut self, model: &str, bytes: u64) -> u64 {
        let session = self.bring(model, bytes);
        self.tell(Event::Left { session });
        assert_eq!(self.effects(), []);
        session
    }

    /// Asks for a model, and tells what it needs. Gives its session.
    fn want(&mut self, model: &str, bytes: u64) -> u64 {
        self.ask(model);
        let session = self.begun();
        self.estimated(session, bytes);
        session
    }

    fn refusal(&mut self) -> Error {
        let refused = self.effects().into_iter().find_map(|effect| match effect {
            Effect::Refuse { error, .. } => Some(error),
            _ => None,
        });
        refused.expect("somebody is refused")
    }

    fn used(&self) -> u64 {
        self.fleet.devices().map(|device| device.used).sum()
    }
}

#[test]
fn a_model_is_loaded_once_for_all_who_ask() {
    let mut stage = Stage::new();
    let first = stage.ask("a");
    let session = stage.begun();
    let second = stage.ask("a");
    stage.estimated(session, 60);
    let third = stage.ask("a");
    assert_eq!(stage.effects(), [Effect::Load { session }]);
    assert_eq!((stage.fleet.state("a"), stage.fleet.waiting("a")), (State::Loading, 3));
    stage.loaded(session, 60);
    let granted = [first, second, third].map(|ticket| Effect::Grant { ticket, session });
    assert_eq!(stage.effects(), granted);
    assert_eq!((stage.fleet.state("a"), stage.fleet.in_flight("a")), (State::Busy, 3));
    (0..3).for_each(|_| stage.tell(Event::Left { session }));
    assert_eq!(stage.fleet.state("a"), State::Ready);
}

#[test]
fn what_gives_way_is_freed_before_its_memory_is_given_to_others() {
    let mut stage = Stage::new();
    let a = stage.leave("a", 60);
    let ticket = stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 60);
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    assert_eq!((stage.fleet.state("a"), stage.used()), (State::Unloading, 60));
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
    stage.loaded(b, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket, session: b }]);
    assert_eq!(stage.fleet.state("a"), State::Unloaded);
}

#[test]
fn what_is_held_by_requests_is_waited_for() {
    let mut stage = Stage::new();
    let a = stage.bring("a", 60);
    stage.ask("b");
    let b = stage.begun();
    stage.estimated(b, 60);
    assert_eq!(stage.effects(), [], "it is neither refused nor does it push anybody out");
    stage.tell(Event::Left { session: a });
    assert_eq!(stage.effects(), [Effect::Unload { session: a }]);
    stage.unloaded(a);
    assert_eq!(stage.effects(), [Effect::Load { session: b }]);
}

#[test]
fn a_large_model_has_its_turn_though_small_ones_are_always_asked_for() {
    let mut stage = Stage::new();
    let (a, b) = (stage.bring("a", 40), stage.bring("b", 40));
    stage.ask("large");
    let large = stage.begun();
    stage.estimated(large, 90);
    // For a while requests for what is in memory go first.
    for (model, session) in [("a", a), ("b", b)] {
        let ticket = stage.ask(model);
        assert_eq!(stage.effects(), [Effect::Grant { ticket, session }]);
        stage.tell(Event::Left { session });
    }
    assert_eq!(stage.fleet.next(), Some(stage.now + line::PATIENCE));
    stage.wait(line::PATIENCE);
    let late = stage.ask("a");
    assert_eq!(stage.effects(), [], "who comes now waits");
    stage.tell(Event::Left { session: a });
    stage.tell(Event::Left { session: b });
    let mut effects = stage.effects();
    effects.sort_by_key(|effect| format!("{effect:?}"));
    assert!(
        matches!(effects[..], [Effect::Begin { .. }, Effect::Unload { .. }, Effect::Unload { .. }]),
        "{effects:?}"
    );
    let Effect::Begin { session: again, ticket } = effects[0] else { panic!("who waited is begun for") };
    assert_eq!(ticket, late);
    stage.estimated(again, 40);
    stage.unloaded(a);
    stage.unloaded(b);
    assert_eq!(stage.effects(), [Effect::Load { session: large }]);
    // And then the small one again.
    stage.loaded(large, 90);
    stage.effects();
    stage.tell(Event::Left { session: large });
    assert_eq!(stage.effects(), [Effect::Unload { session: large }]);
    stage.unloaded(large);
    assert_eq!(stage.effects(), [Effect::Load { session: again }]);
}

#[test]
fn who_waits_no_more_makes_nobody_wait() {
    let mut stage = Stage::new();
    let a = stage.bring("a", 60);
    let large = stage.ask("large");
    let session = stage.begun();
    stage.estimated(session, 90);
    stage.wait(line::PATIENCE);
    let late = stage.ask("a");
    assert_eq!(stage.effects(), []);
    stage.tell(Event::Cancelled { ticket: large });
    let effects = stage.effects();
    assert!(effects.contains(&Effect::Stop { session }), "{effects:?}");
    assert!(effects.contains(&Effect::Grant { ticket: late, session: a }), "{effects:?}");
}

#[test]
fn a_load_goes_on_as_long_as_somebody_waits_for_it() {
    let mut stage = Stage::new();
    let (first, second) = (stage.ask("a"), stage.ask("a"));
    let [Effect::Begin { session, .. }] = stage.effects()[..] else { panic!("one load") };
    stage.estimated(session, 60);
    stage.effects();
    stage.tell(Event::Cancelled { ticket: first });
    let [Effect::Refuse { ticket, error }] = &stage.effects()[..] else { panic!("only the first leaves") };
    assert_eq!((*ticket, error.code()), (first, "cancelled"));
    stage.tell(Event::Cancelled { ticket: second });
    assert!(stage.effects().contains(&Effect::Stop { session }));
    // Its memory counts until it has ended, and who comes meanwhile has it loaded anew.
    let third = stage.ask("a");
    assert_eq!((stage.effects(), stage.used()), (Vec::new(), 60));
    stage.tell(Event::Failed { session, error: Error::new("cancelled", "stopped") });
    let [Effect::Begin { ticket, .. }] = stage.effects()[..] else { panic!("a load for the third") };
    assert_eq!((ticket, stage.used()), (third, 0));
    assert_eq!(stage.fleet.failure("a"), None);
}

#[test]
fn a_load_that_ends_well_after_all_is_used() {
    let mut stage = Stage::new();
    let first = stage.ask("a");
    let session = stage.begun();
    stage.estimated(session, 60);
    stage.tell(Event::Cancelled { ticket: first });
    let second = stage.ask("a");
    stage.effects();
    stage.loaded(session, 60);
    assert_eq!(stage.effects(), [Effect::Grant { ticket: second, session }]);
}
