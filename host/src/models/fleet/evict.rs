//! Who gives way: a choice, and nothing else.

use std::time::Duration;

use super::event::Bytes;

/// A session that may give way.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its number.
    pub(super) session: u64,
    /// What it holds.
    pub(super) bytes: Bytes,
    /// For how long no request has used it.
    pub(super) idle: Duration,
    /// How long loading it took.
    pub(super) cost: Duration,
    /// Whether it is to go in any case.
    pub(super) leaving: bool,
}

/// What a load costs at least: one that was never timed is not free.
const LEAST_COST: Duration = Duration::from_millis(1);
/// Below this all count as used just now.
const LEAST_IDLE: Duration = Duration::from_secs(1);

impl Candidate {
    /// What is expected to be lost: the time of loading it again, by how likely that is to be soon. What was not used for
    /// twice as long is half as likely to be asked for in the next moment.
    fn loss(&self) -> f64 {
        if self.leaving {
            return 0.0;
        }
        self.cost.max(LEAST_COST).as_secs_f64() / self.idle.max(LEAST_IDLE).as_secs_f64()
    }

    /// What of the bytes that are needed it frees.
    fn frees(&self, needs: &Bytes) -> u64 {
        let of = |(device, need): (&String, &u64)| self.bytes.get(device).copied().unwrap_or(0).min(*need);
        needs.iter().map(of).fold(0, u64::saturating_add)
    }
}

/// The sessions to be freed so that at least `needs` bytes are, at the least loss as far as that is easily found; `None`
/// when all of them are too few.
///
/// The best set is a knapsack. This takes what loses least for each byte that is still needed until it is enough, leaves
/// out again what turned out not to be needed (the dearest first), and compares that with the cheapest single one that is
/// enough alone. Nothing is in the answer that could be left out.
pub(super) fn choose(needs: &Bytes, candidates: &[Candidate]) -> Option<Vec<u64>> {
    let mut open = needs.clone();
    open.retain(|_, need| *need > 0);
    let mut left: Vec<&Candidate> = candidates.iter().collect();
    let mut chosen: Vec<&Candidate> = Vec::new();
    while !open.is_empty() {
        let price = |one: &Candidate| one.loss() / one.frees(&open) as f64;
        let useful = left.iter().enumerate().filter(|(_, one)| one.frees(&open) > 0);
        let best = useful.min_by(|(_, a), (_, b)| {
            price(a).total_cmp(&price(b)).then_with(|| b.idle.cmp(&a.idle)).then(a.session.cmp(&b.session))
        });
        let (place, _) = best?;
        let taken = left.swap_remove(place);
        open.retain(|device, need| {
            *need = need.saturating_sub(taken.bytes.get(device).copied().unwrap_or(0));
            *need > 0
        });
        chosen.push(taken);
    }
    let mut dearest = chosen.clone();
    dearest.sort_by(|a, b| b.loss().total_cmp(&a.loss()).then_with(|| a.frees(needs).cmp(&b.frees(needs))));
    for one in dearest {
        let others = chosen.iter().copied().filter(|other| other.session != one.session);
        if enough(needs, others) {
            chosen.retain(|other| other.session != one.session);
        }
    }
    let loss: f64 = chosen.iter().map(|one| one.loss()).sum();
    let alone = candidates.iter().filter(|one| enough(needs, std::iter::once(*one)));
    let alone = alone.min_by(|a, b| a.loss().total_cmp(&b.loss()).then(a.session.cmp(&b.session)));
    match alone {
        Some(one) if chosen.len() > 1 && one.loss() < loss => Some(vec![one.session]),
        _ => Some(chosen.iter().map(|one| one.session).collect()),
    }
}

fn enough<'c>(needs: &Bytes, chosen: impl Iterator<Item = &'c Candidate> + Clone) -> bool {
    needs.iter().all(|(device, need)| {
        let freed =
            chosen.clone().filter_map(|one| one.bytes.get(device)).fold(0_u64, |a, b| a.saturating_add(*b));
        freed >= *need
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpu(bytes: u64) -> Bytes {
        Bytes::from([("cpu".to_owned(), bytes)])
    }

    /// Bytes, seconds idle, milliseconds to load.
    fn candidates(all: &[(u64, u64, u64)]) -> Vec<Candidate> {
        let candidate = |(session, (bytes, idle, cost)): (u64, &(u64, u64, u64))| Candidate {
            session,
            bytes: cpu(*bytes),
            idle: Duration::from_secs(*idle),
            cost: Duration::from_millis(*cost),
            leaving: false,
        };
        (0..).zip(all).map(candidate).collect()
    }

    #[test]
    fn of_equals_the_one_that_was_not_used_for_longest_goes() {
        assert_eq!(
            choose(&cpu(10), &candidates(&[(30, 5, 100), (30, 50, 100), (30, 20, 100)])),
            Some(vec![1])
        );
    }

    #[test]
    fn what_takes_long_to_load_stays_longer() {
        let all = candidates(&[(30, 50, 10_000), (30, 20, 100)]);
        assert_eq!(choose(&cpu(30), &all), Some(vec![1]));
        let all = candidates(&[(30, 50, 200), (30, 20, 100)]);
        assert_eq!(choose(&cpu(30), &all), Some(vec![0]));
    }

    #[test]
    fn one_that_is_enough_goes_in_place_of_many_small_ones() {
        let all = candidates(&[(10, 9, 100), (10, 9, 100), (10, 9, 100), (40, 9, 150)]);
        assert_eq!(choose(&cpu(30), &all), Some(vec![3]));
        assert_eq!(choose(&cpu(10), &all).map(|chosen| chosen.len()), Some(1));
    }

    #[test]
    fn what_is_not_enough_is_not_begun() {
        assert_eq!(choose(&cpu(71), &candidates(&[(30, 5, 1), (40, 5, 1)])), None);
        assert_eq!(choose(&cpu(70), &candidates(&[(30, 5, 1), (40, 5, 1)])).map(|all| all.len()), Some(2));
        assert_eq!(choose(&Bytes::new(), &candidates(&[(30, 5, 1)])), Some(Vec::new()));
    }

    #[test]
    fn only_what_holds_something_where_it_is_needed_goes() {
        let mut all = candidates(&[(30, 900, 1), (30, 2, 1000)]);
        all[0].bytes = Bytes::from([("cuda:0".to_owned(), 30)]);
        assert_eq!(choose(&cpu(10), &all), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn it_is_enough_and_nothing_could_be_left_out(
            sizes in prop::collection::vec(((0_u64..50, 0_u64..50), 0_u64..100, 0_u64..5000), 0..9),
            needs in (0_u64..120, 0_u64..120),
        ) {
            let on = |(cpu, gpu): (u64, u64)| Bytes::from([("cpu".to_owned(), cpu), ("cuda:0".to_owned(), gpu)]);
            let all: Vec<Candidate> = (0..).zip(&sizes).map(|(session, (bytes, idle, cost))| Candidate {
                session,
                bytes: on(*bytes),
                idle: Duration::from_secs(*idle),
                cost: Duration::from_millis(*cost),
                leaving: false,
            }).collect();
            let needs = on(needs);
            let of = |chosen: &[u64]| enough(&needs, all.iter().filter(|one| chosen.contains(&one.session)));
            match choose(&needs, &all) {
                None => prop_assert!(!enough(&needs, all.iter())),
                Some(chosen) => {
                    prop_assert!(of(&chosen));
                    for one in &chosen {
                        let others: Vec<u64> = chosen.iter().copied().filter(|other| other != one).collect();
                        prop_assert!(!of(&others), "{one} of {chosen:?} is not needed");
                    }
                }
            }
        }
    }
}
