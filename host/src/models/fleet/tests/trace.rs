//! What holds whatever happens in whatever order: random traces against a world that keeps its own books.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{MODELS, Outcome, Real, SIZE, Turned, World};
use super::*;

/// What a step of a trace does; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Act {
    Ask(usize, Option<u64>),
    Cancel(usize),
    Estimate(usize, bool),
    Load(usize, Outcome),
    Doze(usize, Turned),
    Wake(usize, Turned),
    Resize(usize, Turned),
    Free(usize),
    Leave(usize, Option<bool>),
    Unload(usize),
    Outdate(usize),
    Pin(usize, bool),
    Forgive(usize),
    Limit(u64),
    Report(u64),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let which = || 0_usize..1000;
    let outcome = prop_oneof![
        6 => Just(Outcome::Good), 1 => Just(Outcome::Damaged), 1 => Just(Outcome::Short), 1 => Just(Outcome::Crash)
    ];
    let turned =
        || prop_oneof![8 => Just(Turned::Good), 1 => Just(Turned::Restless), 1 => Just(Turned::Crash)];
    prop_oneof![
        8 => (which(), prop::option::weighted(0.2, 0_u64..20)).prop_map(|(model, keep)| Act::Ask(model, keep)),
        2 => which().prop_map(Act::Cancel),
        6 => (which(), prop::bool::weighted(0.9)).prop_map(|(which, good)| Act::Estimate(which, good)),
        6 => (which(), outcome).prop_map(|(which, outcome)| Act::Load(which, outcome)),
        4 => (which(), turned()).prop_map(|(which, turned)| Act::Doze(which, turned)),
        4 => (which(), turned()).prop_map(|(which, turned)| Act::Wake(which, turned)),
        4 => (which(), turned()).prop_map(|(which, turned)| Act::Resize(which, turned)),
        6 => which().prop_map(Act::Free),
        8 => (which(), prop::option::weighted(0.2, any::<bool>())).prop_map(|(which, how)| Act::Leave(which, how)),
        1 => which().prop_map(Act::Unload),
        1 => which().prop_map(Act::Outdate),
        1 => (which(), any::<bool>()).prop_map(|(model, pinned)| Act::Pin(model, pinned)),
        1 => which().prop_map(Act::Forgive),
        1 => (40_u64..=SIZE).prop_map(Act::Limit),
        1 => (0_u64..=SIZE).prop_map(Act::Report),
        4 => (0_u64..5000).prop_map(Act::Wait),
    ]
}

impl World {
    fn act(&mut self, act: &Act) {
        fn one<T: Copy>(all: &[T], which: usize) -> Option<T> {
            (!all.is_empty()).then(|| all[which % all.len()])
        }
        let model = |which: usize| MODELS[which % MODELS.len()].0;
        match act {
            Act::Ask(which, keep) => {
                self.ask(model(*which), keep.map(|seconds| Keep::For(Duration::from_secs(seconds))));
            }
            Act::Cancel(which) => {
                let open: Vec<u64> = self.open.keys().copied().collect();
                if let Some(ticket) = one(&open, *which) {
                    self.tell(Event::Cancelled { ticket });
                    assert!(!self.open.contains_key(&ticket));
                }
            }
            Act::Estimate(which, good) => {
                if let Some(session) = one(&self.those(Real::Sizing), *which) {
                    self.estimate(session, *good);
                }
            }
            Act::Load(which, outcome) => {
                if let Some(session) = one(&self.those(Real::Loading), *which) {
                    self.load(session, *outcome);
                }
            }
            Act::Doze(which, turned) => {
                if let Some(session) = one(&self.those(Real::Dozing), *which) {
                    self.turn(session, *turned);
                }
            }
            Act::Wake(which, turned) => {
                if let Some(session) = one(&self.those(Real::Waking), *which) {
                    self.turn(session, *turned);
                }
            }
            Act::Resize(which, turned) => {
                let resizing: Vec<u64> = self.resizing.keys().copied().collect();
                if let Some(session) = one(&resizing, *which) {
                    self.resize(session, *turned);
                }
            }
            Act::Free(which) => {
                if let Some(session) = one(&self.those(Real::Freeing), *which) {
                    self.free(session);
                }
            }
            Act::Leave(which, broke) if !self.leases.is_empty() => {
                self.leave(which % self.leases.len(), *broke);
            }
            Act::Leave(..) => {}
            Act::Unload(which) => {
                self.forgo(model(*which));
                self.tell(Event::Unload { model: model(*which).to_owned() });
            }
            Act::Outdate(which) => {
                self.forgo(model(*which));
                self.generation += 1;
                let (models, generation) = (vec![model(*which).to_owned()], self.generation);
                self.tell(Event::Outdate { models, generation });
            }
            Act::Pin(which, pinned) => {
                let model = model(*which).to_owned();
                if *pinned {
                    self.pinned.insert(model.clone());
                } else {
                    self.pinned.remove(&model);
                }
                self.tell(Event::Pin { model, pinned: *pinned });
            }
            Act::Forgive(which) => self.tell(Event::Forgive { model: model(*which).to_owned() }),
            Act::Limit(limit) => {
                self.limit = *limit;
                self.tell(Event::Limit { memory: limits(Some(*limit)) });
            }
            Act::Report(free) => self.tell(Event::Report { free: cpu(*free) }),
            Act::Wait(milliseconds) => {
                self.now += Duration::from_millis(*milliseconds);
                self.tell(Event::Tick);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_promised_twice_and_everybody_is_answered(
        trace in prop::collection::vec(act(), 1..150)
    ) {
        let mut world = World::new();
        for act in &trace {
            world.act(act);
        }
        // The world comes to rest: no request lasts for ever, and neither does what others hold.
        world.tell(Event::Report { free: cpu(SIZE) });
        world.pinned.clear();
        for (model, ..) in MODELS {
            world.tell(Event::Pin { model: model.to_owned(), pinned: false });
        }
        for _ in 0..50 {
            while !world.leases.is_empty() {
                world.leave(0, None);
            }
            world.settle_once();
        }
        prop_assert_eq!(&world.open, &BTreeMap::new(), "somebody was forgotten");
        prop_assert!(world.sessions.values().all(|(_, real)| matches!(real, Real::Ready | Real::Asleep)), "{:?}", world.sessions);
        prop_assert_eq!(world.held(), world.fleet.devices().next().map_or(0, |device| device.used));
    }

    /// Small models are asked for again and again, each request lasts some steps, and still everybody has a turn before
    /// long: a large one, too.
    #[test]
    fn nobody_waits_for_ever_while_others_are_served(
        asks in prop::collection::vec((0_usize..5, 1_u64..4), 60..200),
        large in 3_usize..6,
        at in 0_usize..30,
    ) {
        let mut world = World::new();
        let mut ends: Vec<(u64, u64)> = Vec::new();
        let mut large_one = None;
        let mut served_at = None;
        for (step, (small, lasts)) in (0_u64..).zip(&asks) {
            if step == at as u64 {
                large_one = Some((world.ask(MODELS[large].0, None), step));
            }
            // Another small one in each step, so that some of those in memory are always in use.
            world.ask(MODELS[*small % 3].0, None);
            world.settle_once();
            for session in ends.iter().filter(|(_, end)| *end <= step).map(|(session, _)| *session) {
                let place = world.leases.iter().position(|lease| *lease == session).expect("it is in use");
                world.leases.swap_remove(place);
                world.tell(Event::Left { session });
            }
            ends.retain(|(_, end)| *end > step);
            // Those who were granted a session in this step.
            let mut new = world.leases.clone();
            for (session, _) in &ends {
                let known = new.iter().position(|lease| lease == session);
                known.map(|place| new.swap_remove(place));
            }
            ends.extend(new.into_iter().map(|session| (session, step + lasts)));
            if let Some((ticket, since)) = large_one
                && served_at.is_none()
                && !world.open.contains_key(&ticket)
            {
                served_at = Some(step - since);
            }
        }
        // Two seconds of patience, requests of three steps, loads and frees of one each.
        prop_assert!(served_at.is_some_and(|steps| steps <= 14), "{served_at:?}");
    }
}
