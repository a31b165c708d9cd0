//! What must hold of a day: nobody is lost, no memory is promised twice, and the router and the fleet are worth having.

use super::*;
use crate::chance::Chance;
use crate::machine::{CONTEXT, MEMORY};
use crate::policy::Policy;
use crate::trace::{DAY, read};

#[test]
fn the_trace_is_what_its_generator_writes() {
    let day = generate::day(generate::SEED, generate::CONVERSATIONS);
    assert!(generate::file(&day) == DAY, "write host/examples/day/trace.txt anew with `day trace`");
    assert_eq!(read(DAY).unwrap(), day);
    assert!(day.iter().all(|request| request.at < trace::LENGTH && request.prompt < CONTEXT));
    assert!(day.is_sorted_by_key(|request| request.at));
    assert_eq!(
        read("# words\n1 2 app chat 3 4 0").unwrap_err(),
        "line 2: not eight fields: 1 2 app chat 3 4 0"
    );
}

#[test]
fn a_day_loses_nobody_keeps_to_its_memory_and_is_a_third_faster() {
    let outcomes = report::replay().unwrap();
    for (outcome, policy) in outcomes.iter().zip(Policy::ALL) {
        let policy = policy.name();
        assert!(outcome.ended.iter().all(|ended| ended.times == 1), "{policy}: each request ends once");
        assert!(outcome.peak <= MEMORY, "{policy}: {} of {MEMORY} bytes", outcome.peak);
        assert!(outcome.peak > MEMORY / 2 && outcome.evictions > 100, "{policy}: memory is short");
    }
    let gain = report::gain(&outcomes).unwrap();
    assert!(gain >= 30.0, "the p95 is only {gain:.1} % lower");
}

#[test]
fn the_page_has_the_numbers_of_this_code() {
    let page = include_str!("../../../docs/src/day.md");
    let help = "run `cargo xtask bench --only day` and commit the result";
    assert!(page.contains(&report::tables().unwrap()), "docs/src/day.md has other tables: {help}");
    assert!(page.contains(&Policy::ALL[2].toml()), "docs/src/day.md has another configuration");
}

/// Whatever comes in whatever order with whatever memory: short days under all policies.
#[test]
fn no_day_loses_anybody_or_holds_too_much() {
    let largest = machine::MODELS.iter().map(machine::Model::memory).max().unwrap();
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let mut day = generate::day(seed, 60);
        // All of it within so many minutes.
        let hurry = 1 + chance.below(400);
        day.iter_mut().for_each(|request| request.at /= hurry);
        let memory = largest + chance.below(12 << 30);
        for policy in Policy::ALL {
            let outcome = simulate::simulate(&day, policy, memory, seed).unwrap();
            let name = policy.name();
            assert!(outcome.ended.iter().all(|ended| ended.times == 1), "{name}, {seed}: each ends once");
            assert!(outcome.peak <= memory, "{name}, {seed}: {} of {memory} bytes", outcome.peak);
        }
    }
}
