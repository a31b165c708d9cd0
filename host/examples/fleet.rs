//! How long the state machine behind all models takes for one event, with a thousand requests in flight.
//!
//! `cargo run --release --example fleet`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pajamas::config;
use pajamas::models::fleet::{Bytes, Effect, Event, Fleet};

const MODELS: u64 = 10;
const IN_FLIGHT: u64 = 1000;
const EVENTS: u64 = 200_000;

fn cpu(bytes: u64) -> Bytes {
    Bytes::from([("cpu".to_owned(), bytes)])
}

fn asked(ticket: u64) -> Event {
    Event::Asked { ticket, model: format!("model-{}", ticket % MODELS), generation: 0, keep: None }
}

/// Carries effects out at once; gives the sessions that were granted.
fn carry_out(fleet: &mut Fleet, now: Duration, effects: Vec<Effect>) -> Vec<u64> {
    let mut granted = Vec::new();
    for effect in effects {
        let event = match effect {
            Effect::Begin { session, .. } => Event::Estimated { session, bytes: cpu(1 << 30) },
            Effect::Load { session } => {
                let (bytes, took) = (cpu(1 << 30), Duration::from_millis(500));
                Event::Loaded { session, bytes, took, grew: Bytes::new() }
            }
            Effect::Unload { session } => Event::Unloaded { session, back: Bytes::new(), free: Bytes::new() },
            Effect::Grant { session, .. } => {
                granted.push(session);
                continue;
            }
            _ => continue,
        };
        let effects = fleet.step(now, event);
        granted.extend(carry_out(fleet, now, effects));
    }
    granted
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let mean = took.iter().sum::<Duration>() / took.len() as u32;
    println!("{what}: mean {mean:.1?}, p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(0.5), at(0.99), at(1.0));
}

fn main() {
    let begun = Instant::now();
    let mut fleet = Fleet::new(config::Memory::default());
    fleet.step(Duration::ZERO, Event::Device { device: "cpu".to_owned(), total: (MODELS + 1) << 30 });
    let ttls = (0..MODELS).map(|model| (format!("model-{model}"), Duration::from_secs(3600)));
    fleet.step(Duration::ZERO, Event::Ttl { ttls: ttls.collect::<BTreeMap<_, _>>() });
    let mut sessions = Vec::new();
    for ticket in 1..=IN_FLIGHT {
        let effects = fleet.step(begun.elapsed(), asked(ticket));
        sessions.extend(carry_out(&mut fleet, begun.elapsed(), effects));
    }
    assert_eq!(sessions.len() as u64, IN_FLIGHT);
    let (mut asks, mut ends) = (Vec::new(), Vec::new());
    for ticket in IN_FLIGHT + 1..=IN_FLIGHT + EVENTS {
        let event = asked(ticket);
        let before = Instant::now();
        let effects = fleet.step(begun.elapsed(), event);
        asks.push(before.elapsed());
        let mut granted = carry_out(&mut fleet, begun.elapsed(), effects);
        let Some(session) = granted.pop() else { continue };
        let before = Instant::now();
        fleet.step(begun.elapsed(), Event::Left { session });
        ends.push(before.elapsed());
    }
    report("a request for a model in memory", asks);
    report("its end", ends);
    // A model that nobody has room for, and a thousand who wait for it.
    let large = |ticket| Event::Asked { ticket, model: "large".to_owned(), generation: 0, keep: None };
    let first = 2 * (IN_FLIGHT + EVENTS);
    let mut waits = Vec::new();
    for ticket in first..first + IN_FLIGHT {
        let before = Instant::now();
        let effects = fleet.step(begun.elapsed(), large(ticket));
        waits.push(before.elapsed());
        for effect in effects {
            if let Effect::Begin { session, .. } = effect {
                fleet.step(begun.elapsed(), Event::Estimated { session, bytes: cpu(5 << 30) });
            }
        }
    }
    report("a request that waits for memory", waits);
    let mut ends = Vec::new();
    for session in sessions.drain(..) {
        let before = Instant::now();
        fleet.step(begun.elapsed(), Event::Left { session });
        ends.push(before.elapsed());
    }
    report("an end while a thousand wait", ends);
    let mut cancels = Vec::new();
    for ticket in first..first + IN_FLIGHT {
        let before = Instant::now();
        fleet.step(begun.elapsed(), Event::Cancelled { ticket });
        cancels.push(before.elapsed());
    }
    report("one of them who leaves", cancels);
}
