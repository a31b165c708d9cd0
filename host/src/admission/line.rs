//! Who is next of those that wait for one model. Pure: the time is given, in milliseconds.
//!
//! The class with the highest priority is first, and one that was passed over rises with the time, so that none waits for
//! ever. Within a class the keys take turns, each with its oldest request: however many one has waiting, another's first is
//! one turn away.

use std::collections::{BTreeMap, VecDeque};

/// How long a class is passed over before it counts as one priority higher.
const AGE: u64 = 1_000;
/// The highest and the lowest priority that count: with them it is sure how long a class is passed over at most.
const RANGE: (i32, i32) = (-100, 100);

/// Those that wait for one model. Each has a number of its own.
#[derive(Debug, Default)]
pub struct Line {
    classes: BTreeMap<i32, Class>,
}

/// Those of one priority.
#[derive(Debug, Default)]
struct Class {
    /// Since when it was passed over.
    since: u64,
    /// Whose turn it is, the next first. Each key that waits is in it once.
    turns: VecDeque<String>,
    waiting: BTreeMap<String, VecDeque<u64>>,
}

impl Line {
    /// One more waits, the last of its key in its class.
    pub fn push(&mut self, number: u64, priority: i32, key: &str, now: u64) {
        let (least, most) = RANGE;
        let class = self.classes.entry(priority.clamp(least, most)).or_default();
        if class.turns.is_empty() {
            class.since = now;
        }
        let own = class.waiting.entry(key.to_owned()).or_default();
        if own.is_empty() {
            class.turns.push_back(key.to_owned());
        }
        own.push_back(number);
    }

    /// Takes out who is next.
    pub fn next(&mut self, now: u64) -> Option<u64> {
        let risen = |(priority, class): (&i32, &Class)| {
            let age = i64::try_from(now.saturating_sub(class.since) / AGE).unwrap_or(i64::MAX);
            i64::from(*priority).saturating_add(age)
        };
        let all = self.classes.iter();
        // Of equals the higher one, which comes later.
        let (priority, _) = all.max_by_key(|(priority, class)| (risen((priority, class)), **priority))?;
        let priority = *priority;
        let class = self.classes.get_mut(&priority)?;
        class.since = now;
        let key = class.turns.pop_front()?;
        let own = class.waiting.get_mut(&key)?;
        let number = own.pop_front();
        if own.is_empty() {
            class.waiting.remove(&key);
        } else {
            class.turns.push_back(key);
        }
        if class.turns.is_empty() {
            self.classes.remove(&priority);
        }
        number
    }

    /// One does not wait any more.
    pub fn remove(&mut self, number: u64) {
        for class in self.classes.values_mut() {
            for own in class.waiting.values_mut() {
                own.retain(|one| *one != number);
            }
            class.waiting.retain(|_, own| !own.is_empty());
            class.turns.retain(|key| class.waiting.contains_key(key));
        }
        self.classes.retain(|_, class| !class.turns.is_empty());
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.classes.values().flat_map(|class| class.waiting.values()).map(VecDeque::len).sum()
    }

    /// How many wait of each key.
    pub fn by_key(&self) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for (key, own) in self.classes.values().flat_map(|class| &class.waiting) {
            *keys.entry(key.clone()).or_default() += own.len();
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(line: &mut Line, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| line.next(now)).collect()
    }

    #[test]
    fn the_highest_goes_first_and_equals_in_the_order_of_their_arrival() {
        let mut line = Line::default();
        for (number, priority) in [(1, 0), (2, -10), (3, 10), (4, 0), (5, 10)] {
            line.push(number, priority, "", 0);
        }
        assert_eq!(order(&mut line, 0), [3, 5, 1, 4, 2]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn keys_take_turns_however_many_one_has_waiting() {
        let mut line = Line::default();
        (0..500).for_each(|number| line.push(number, 0, "many", 0));
        line.push(1_000, 0, "few", 9_000);
        assert_eq!((line.next(9_000), line.next(9_000)), (Some(0), Some(1_000)));
        assert_eq!(line.by_key(), [("many".to_owned(), 499)].into());
    }

    #[test]
    fn who_is_passed_over_rises() {
        let mut line = Line::default();
        line.push(0, -10, "", 0);
        let mut served = Vec::new();
        for now in 0..30 {
            line.push(now + 1, 0, "", now * 500);
            served.push(line.next(now * 500).unwrap());
        }
        let place = served.iter().position(|number| *number == 0).unwrap();
        // Ten priorities less are ten seconds more, at two requests a second.
        assert!((20..=22).contains(&place), "{place}");
    }

    #[test]
    fn who_went_away_is_not_waited_for() {
        let mut line = Line::default();
        for (number, key) in [(1, "a"), (2, "b"), (3, "a")] {
            line.push(number, 0, key, 0);
        }
        line.remove(1);
        line.remove(2);
        line.remove(9);
        assert_eq!((line.len(), order(&mut line, 0)), (1, vec![3]));
    }

    proptest! {
        #[test]
        fn nobody_is_lost_twice_or_forgotten(
            steps in prop::collection::vec((0..2_000_u64, 0..5_u8, -200..200_i32, 0..4_u8), 1..300),
        ) {
            let (mut line, mut now, mut waiting) = (Line::default(), 0, std::collections::BTreeSet::new());
            for (number, (pause, what, priority, key)) in (0_u64..).zip(steps) {
                now += pause;
                match what {
                    0..=2 => {
                        line.push(number, priority, &key.to_string(), now);
                        waiting.insert(number);
                    }
                    3 => match line.next(now) {
                        Some(next) => prop_assert!(waiting.remove(&next)),
                        None => prop_assert!(waiting.is_empty()),
                    },
                    _ => if let Some(gone) = waiting.pop_first() {
                        line.remove(gone);
                    }
                }
                prop_assert_eq!(line.len(), waiting.len());
            }
            let rest = order(&mut line, now);
            prop_assert_eq!(rest.len(), waiting.len());
            prop_assert!(rest.iter().all(|number| waiting.remove(number)));
        }

        /// A class below a flood of higher ones is served at least once in the time that the difference takes to rise.
        #[test]
        fn nobody_starves(
            (low, high) in (-100..100_i32, 0..100_i32), flood in 1..4_u64, service in 1..900_u64,
        ) {
            let high = low.saturating_add(high).min(100);
            let mut line = Line::default();
            line.push(0, low, "patient", 0);
            let (mut now, mut number) = (0, 1);
            let most = (u64::from(high.abs_diff(low)) + 1) * AGE + 2 * service;
            loop {
                for _ in 0..flood {
                    line.push(number, high, "eager", now);
                    number += 1;
                }
                if line.next(now) == Some(0) {
                    break;
                }
                now += service;
                prop_assert!(now <= most, "{} ms for {} below {}", now, low, high);
            }
        }
    }
}
