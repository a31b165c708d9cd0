//! The tables of `docs/src/day.md`.

use std::fmt::Write as _;

use crate::generate::{CONVERSATIONS, SEED, day};
use crate::machine::{GIB, MEMORY};
use crate::outcome::{Ended, Outcome};
use crate::policy::Policy;
use crate::simulate::simulate;
use crate::trace::{DAY, Request, read};

/// A trace under each policy, in their order.
pub type Outcomes = [Outcome; 3];

/// The trace of the repository under each policy.
///
/// # Errors
/// What is wrong with the trace, or with the configuration of a policy.
pub fn replay() -> Result<Outcomes, String> {
    compare(&read(DAY)?, MEMORY, SEED)
}

fn compare(trace: &[Request], memory: u64, seed: u64) -> Result<Outcomes, String> {
    let [baseline, fleet, router] = Policy::ALL.map(|policy| simulate(trace, policy, memory, seed));
    Ok([baseline?, fleet?, router?])
}

/// All tables.
///
/// # Errors
/// As for [`replay`].
pub fn tables() -> Result<String, String> {
    let outcomes = replay()?;
    let mut page = columns(&outcomes);
    page += &losses(&outcomes[2]);
    page += &budgets(&outcomes)?;
    page += &others(&outcomes)?;
    Ok(page)
}

/// How much lower the 95th percentile of the last is than that of the first, in percent.
pub fn gain(outcomes: &Outcomes) -> Option<f64> {
    let [baseline, _, router] = outcomes;
    let p95 = |outcome: &Outcome| outcome.percentile(95, total).map(|time| time as f64);
    Some(100.0 * (1.0 - p95(router)? / p95(baseline)?))
}

fn total(ended: &Ended) -> u64 {
    ended.total
}

fn first(ended: &Ended) -> u64 {
    ended.first
}

fn columns(outcomes: &Outcomes) -> String {
    let mut page = format!("| | {} |\n|---|---|---|---|\n", Policy::ALL.map(Policy::name).join(" | "));
    let mut row = |what: &str, of: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = outcomes.iter().map(of).collect();
        // A string takes everything.
        let _ = writeln!(page, "| {what} | {} |", cells.join(" | "));
    };
    for share in [50, 95, 99] {
        row(&format!("whole answer, p{share}"), &|outcome| seconds(outcome.percentile(share, total)));
    }
    for share in [50, 95, 99] {
        row(&format!("first token, p{share}"), &|outcome| seconds(outcome.percentile(share, first)));
    }
    row("longest answer", &|outcome| seconds(Some(outcome.longest())));
    row("not answered", &|outcome| {
        let by_code: Vec<String> =
            outcome.unanswered().iter().map(|(code, count)| format!("{count} {code}")).collect();
        if by_code.is_empty() { "none".to_owned() } else { by_code.join(", ") }
    });
    row("answered by another model than asked for", &|outcome| {
        share(outcome.degraded().values().sum(), outcome.ended.len())
    });
    row("loads", &|outcome| outcome.loads.to_string());
    row("GiB loaded", &|outcome| (outcome.loaded / GIB).to_string());
    row("models that gave way", &|outcome| outcome.evictions.to_string());
    row("most memory held, of what may be", &|outcome| {
        format!("{} of {}", gib(outcome.peak), gib(outcome.memory))
    });
    page
}

/// Who answered in place of whom.
fn losses(outcome: &Outcome) -> String {
    let mut page = String::from("\n| asked for | answered by | requests | share |\n|---|---|---|---|\n");
    for ((from, to), count) in outcome.degraded() {
        let _ = writeln!(page, "| `{from}` | `{to}` | {count} | {} |", share(count, outcome.ended.len()));
    }
    page
}

/// Other budgets than the one of the columns.
fn budgets(own: &Outcomes) -> Result<String, String> {
    let mut page = String::from(
        "\n| `latency_budget` | p95 of the whole answer | less | by another model |\n|---|---|---|---|\n",
    );
    let trace = read(DAY)?;
    for budget in [3, 5, 8, 12, 20] {
        let router = simulate(&trace, Policy::Router(budget), MEMORY, SEED)?;
        let p95 = seconds(router.percentile(95, total));
        let degraded = share(router.degraded().values().sum(), router.ended.len());
        let [baseline, fleet, _] = own.clone();
        let less = percent(gain(&[baseline, fleet, router]));
        let _ = writeln!(page, "| {budget} s | {p95} | {less} | {degraded} |");
    }
    Ok(page)
}

/// Other days, other memory, other load.
fn others(own: &Outcomes) -> Result<String, String> {
    let mut page = format!(
        "\n| p95 of the whole answer | {} | less | not answered | by another model |\n|---|---|---|---|---|---|---|\n",
        Policy::ALL.map(Policy::name).join(" | ")
    );
    let mut row = |what: &str, outcomes: &Outcomes| {
        let p95 = outcomes.each_ref().map(|outcome| seconds(outcome.percentile(95, total)));
        let lost =
            outcomes.each_ref().map(|outcome| outcome.unanswered().values().sum::<usize>().to_string());
        let less = percent(gain(outcomes));
        let [.., router] = outcomes;
        let degraded = share(router.degraded().values().sum(), router.ended.len());
        let _ =
            writeln!(page, "| {what} | {} | {less} | {} | {degraded} |", p95.join(" | "), lost.join(", "));
    };
    row("the trace", own);
    for (what, seed, load, memory) in [
        ("another day", SEED + 1, 100, MEMORY),
        ("a third day", SEED + 2, 100, MEMORY),
        ("half the load", SEED, 50, MEMORY),
        ("half as much again", SEED, 150, MEMORY),
        ("memory of 14 GiB", SEED, 100, 14 * GIB),
        ("memory of 24 GiB", SEED, 100, 24 * GIB),
    ] {
        row(what, &compare(&day(seed, CONVERSATIONS * load / 100), memory, seed)?);
    }
    Ok(page)
}

fn seconds(time: Option<u64>) -> String {
    time.map_or_else(|| "never".to_owned(), |us| format!("{:.2} s", us as f64 / 1e6))
}

fn percent(gain: Option<f64>) -> String {
    gain.map_or_else(|| "?".to_owned(), |gain| format!("{gain:.1} %"))
}

fn share(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / GIB as f64)
}
