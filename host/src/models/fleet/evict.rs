//! Who gives way, and how: a choice, and nothing else.

use std::time::Duration;

use super::event::Bytes;
use super::ledger::less;

/// How a session gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// It is in use, and gives up what it has for more requests than it has.
    Narrow,
    /// It falls asleep, and keeps its weights.
    Sleep,
    /// It is freed.
    Go,
}

/// A session that may give way, and one way that it may.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its number.
    pub(super) session: u64,
    /// How.
    pub(super) way: Way,
    /// What that frees.
    pub(super) bytes: Bytes,
    /// For how long no request has used it.
    pub(super) idle: Duration,
    /// How long it takes until it is again as it was.
    pub(super) cost: Duration,
    /// Whether it is to give way in any case.
    pub(super) leaving: bool,
}

/// What a load costs at least: one that was never timed is not free.
const LEAST_COST: Duration = Duration::from_millis(1);
/// Below this all count as used just now.
const LEAST_IDLE: Duration = Duration::from_secs(1);

impl Candidate {
    /// What is expected to be lost: the time until it is again as it was, by how likely that is to be needed soon. What was
    /// not used for twice as long is half as likely to be asked for in the next moment.
    fn loss(&self) -> f64 {
        if self.leaving {
            return 0.0;
        }
        self.cost.max(LEAST_COST).as_secs_f64() / self.idle.max(LEAST_IDLE).as_secs_f64()
    }

    /// What of the bytes that are needed it frees.
    fn frees(&self, needs: &Bytes) -> u64 {
        of_needed(&self.bytes, needs)
    }
}

fn of_needed(bytes: &Bytes, needs: &Bytes) -> u64 {
    let of = |(device, need): (&String, &u64)| bytes.get(device).copied().unwrap_or(0).min(*need);
    needs.iter().map(of).fold(0, u64::saturating_add)
}

/// Who gives way and how, so that at least `needs` bytes are freed, at the least loss as far as that is easily found;
/// `None` when all of them are too few. Each session is in it once.
///
/// The best set is a knapsack. This takes what loses least for each byte that is still needed until it is enough (who
/// falls asleep already may go instead, for what that loses and frees more), and then leaves out again what turned out not
/// to be needed, the dearest first, or has it sleep where that is enough. It compares that with the cheapest single one
/// that is enough alone. Nothing is in the answer that could be left out, and nobody goes who could as well sleep.
pub(super) fn choose(needs: &Bytes, candidates: &[Candidate]) -> Option<Vec<(u64, Way)>> {
    let mut chosen = gather(needs, candidates)?;
    let mut dearest = chosen.clone();
    dearest.sort_by(|a, b| b.loss().total_cmp(&a.loss()).then_with(|| a.frees(needs).cmp(&b.frees(needs))));
    for one in dearest {
        let others: Vec<&Candidate> =
            chosen.iter().copied().filter(|other| other.session != one.session).collect();
        let asleep =
            candidates.iter().find(|c| one.way == Way::Go && c.session == one.session && c.way == Way::Sleep);
        if enough(needs, &others) {
            chosen = others;
        } else if let Some(asleep) = asleep {
            let softer = [&others[..], &[asleep]].concat();
            if enough(needs, &softer) {
                chosen = softer;
            }
        }
    }
    let loss: f64 = chosen.iter().map(|one| one.loss()).sum();
    let alone = candidates.iter().filter(|one| enough(needs, &[one]));
    let alone =
        alone.min_by(|a, b| a.loss().total_cmp(&b.loss()).then((a.way, a.session).cmp(&(b.way, b.session))));
    match alone {
        Some(one) if chosen.len() > 1 && one.loss() < loss => Some(vec![(one.session, one.way)]),
        _ => Some(chosen.iter().map(|one| (one.session, one.way)).collect()),
    }
}

/// Takes what loses least for each byte, one after the other, until it is enough.
fn gather<'c>(needs: &Bytes, candidates: &'c [Candidate]) -> Option<Vec<&'c Candidate>> {
    let mut chosen: Vec<&Candidate> = Vec::new();
    loop {
        let open = short(needs, &chosen);
        if open.is_empty() {
            return Some(chosen);
        }
        // What it loses for each byte that it adds, beyond what its session gives already.
        let price = |one: &Candidate| {
            let before = chosen.iter().find(|other| other.session == one.session);
            let (bytes, loss) = match before {
                None => (one.frees(&open), one.loss()),
                Some(before) => (
                    of_needed(&less(&one.bytes, &before.bytes), &open),
                    (one.loss() - before.loss()).max(0.0),
                ),
            };
            (bytes > 0).then(|| loss / bytes as f64)
        };
        let priced = candidates.iter().filter_map(|one| Some((price(one)?, one)));
        let (_, best) = priced.min_by(|(a, one), (b, other)| {
            a.total_cmp(b)
                .then_with(|| other.idle.cmp(&one.idle))
                .then((one.way, one.session).cmp(&(other.way, other.session)))
        })?;
        chosen.retain(|one| one.session != best.session);
        chosen.push(best);
    }
}

/// What is still needed when these give way.
fn short(needs: &Bytes, chosen: &[&Candidate]) -> Bytes {
    let short = |(device, need): (&String, &u64)| {
        let freed =
            chosen.iter().filter_map(|one| one.bytes.get(device)).fold(0_u64, |a, b| a.saturating_add(*b));
        let short = need.saturating_sub(freed);
        (short > 0).then(|| (device.clone(), short))
    };
    needs.iter().filter_map(short).collect()
}

fn enough(needs: &Bytes, chosen: &[&Candidate]) -> bool {
    short(needs, chosen).is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(bytes: u64) -> Bytes {
        Bytes::from([("cpu".to_owned(), bytes)])
    }

    fn candidate(session: u64, way: Way, (bytes, idle, cost): (u64, u64, u64)) -> Candidate {
        Candidate {
            session,
            way,
            bytes: cpu(bytes),
            idle: Duration::from_secs(idle),
            cost: Duration::from_millis(cost),
            leaving: false,
        }
    }

    /// Bytes, seconds idle, milliseconds to load.
    fn candidates(all: &[(u64, u64, u64)]) -> Vec<Candidate> {
        (0..).zip(all).map(|(session, one)| candidate(session, Way::Go, *one)).collect()
    }

    /// The sessions that go.
    fn gone(needs: &Bytes, all: &[Candidate]) -> Option<Vec<u64>> {
        Some(choose(needs, all)?.into_iter().map(|(session, _)| session).collect())
    }

    #[test]
    fn of_equals_the_one_that_was_not_used_for_longest_goes() {
        assert_eq!(gone(&cpu(10), &candidates(&[(30, 5, 100), (30, 50, 100), (30, 20, 100)])), Some(vec![1]));
    }

    #[test]
    fn what_takes_long_to_load_stays_longer() {
        let all = candidates(&[(30, 50, 10_000), (30, 20, 100)]);
        assert_eq!(gone(&cpu(30), &all), Some(vec![1]));
        let all = candidates(&[(30, 50, 200), (30, 20, 100)]);
        assert_eq!(gone(&cpu(30), &all), Some(vec![0]));
    }

    #[test]
    fn one_that_is_enough_goes_in_place_of_many_small_ones() {
        let all = candidates(&[(10, 9, 100), (10, 9, 100), (10, 9, 100), (40, 9, 150)]);
        assert_eq!(gone(&cpu(30), &all), Some(vec![3]));
        assert_eq!(gone(&cpu(10), &all).map(|chosen| chosen.len()), Some(1));
    }

    #[test]
    fn what_is_not_enough_is_not_begun() {
        assert_eq!(gone(&cpu(71), &candidates(&[(30, 5, 1), (40, 5, 1)])), None);
        assert_eq!(gone(&cpu(70), &candidates(&[(30, 5, 1), (40, 5, 1)])).map(|all| all.len()), Some(2));
        assert_eq!(gone(&Bytes::new(), &candidates(&[(30, 5, 1)])), Some(Vec::new()));
    }

    #[test]
    fn only_what_holds_something_where_it_is_needed_goes() {
        let mut all = candidates(&[(30, 900, 1), (30, 2, 1000)]);
        all[0].bytes = Bytes::from([("cuda:0".to_owned(), 30)]);
        assert_eq!(gone(&cpu(10), &all), Some(vec![1]));
    }

    #[test]
    fn who_need_not_go_sleeps() {
        let both = |session, idle| {
            [(Way::Sleep, 20, 60), (Way::Go, 50, 1050)]
                .map(|(way, bytes, cost)| candidate(session, way, (bytes, idle, cost)))
        };
        let one = both(1, 9);
        assert_eq!(choose(&cpu(20), &one), Some(vec![(1, Way::Sleep)]));
        assert_eq!(choose(&cpu(21), &one), Some(vec![(1, Way::Go)]));
        assert_eq!(choose(&cpu(51), &one), None, "it frees nothing twice");
        let two = [both(1, 9), both(2, 9)].concat();
        assert_eq!(choose(&cpu(40), &two), Some(vec![(1, Way::Sleep), (2, Way::Sleep)]));
        let mut enough = choose(&cpu(70), &two).unwrap();
        enough.sort_unstable();
        assert_eq!(enough, [(1, Way::Go), (2, Way::Sleep)]);
        // One that is loaded quickly and was long forgotten goes before a busy one loses its caches.
        let mixed = [&both(1, 1)[..], &[candidate(2, Way::Go, (20, 900, 200))]].concat();
        assert_eq!(choose(&cpu(20), &mixed), Some(vec![(2, Way::Go)]));
        // What is to give way in any case need not go for that.
        let leaving: Vec<Candidate> =
            one.iter().map(|one| Candidate { leaving: true, ..one.clone() }).collect();
        assert_eq!(choose(&cpu(20), &leaving), Some(vec![(1, Way::Sleep)]));
    }

    proptest! {
        #[test]
        fn it_is_enough_and_nothing_could_be_left_out(
            sizes in prop::collection::vec(
                ((0_u64..50, 0_u64..50), 0_u64..100, 0_u64..5000, prop::option::of((0_u64..100, 0_u64..=100))), 0..9
            ),
            needs in (0_u64..120, 0_u64..120),
        ) {
            let on = |(cpu, gpu): (u64, u64)| Bytes::from([("cpu".to_owned(), cpu), ("cuda:0".to_owned(), gpu)]);
            let mut all = Vec::new();
            for (session, ((cpu, gpu), idle, cost, sleep)) in (0..).zip(&sizes) {
                let goes = Candidate { bytes: on((*cpu, *gpu)), ..candidate(session, Way::Go, (0, *idle, *cost)) };
                if let Some((bytes, time)) = sleep {
                    let (bytes, cost) = (on((cpu * bytes / 100, gpu * bytes / 100)), cost * time / 100);
                    all.push(Candidate { bytes, ..candidate(session, Way::Sleep, (0, *idle, cost)) });
                }
                all.push(goes);
            }
            let needs = on(needs);
            let of = |chosen: &[(u64, Way)]| {
                let is = |one: &&Candidate| chosen.contains(&(one.session, one.way));
                enough(&needs, &all.iter().filter(is).collect::<Vec<_>>())
            };
            match choose(&needs, &all) {
                None => {
                    let most: Vec<&Candidate> = all.iter().filter(|one| one.way == Way::Go).collect();
                    prop_assert!(!enough(&needs, &most));
                }
                Some(chosen) => {
                    prop_assert!(of(&chosen));
                    for (session, way) in &chosen {
                        let others: Vec<(u64, Way)> =
                            chosen.iter().copied().filter(|(other, _)| other != session).collect();
                        prop_assert!(others.len() + 1 == chosen.len(), "{session} of {chosen:?} is there twice");
                        prop_assert!(!of(&others), "{session} of {chosen:?} is not needed");
                        if *way == Way::Go {
                            let softer = [&others[..], &[(*session, Way::Sleep)]].concat();
                            prop_assert!(!of(&softer), "{session} of {chosen:?} need not go");
                        }
                    }
                }
            }
        }
    }
}
