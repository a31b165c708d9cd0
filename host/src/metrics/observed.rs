//! How long what takes, by model and device: what the router predicts from. Fed by requests that ended well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::router::{Average, Observed};

/// Models and devices of which something is remembered.
const MOST: usize = 512;
/// The most tokens of the prompts that are averaged together; longer ones are with the last.
const SIZES: [u32; 6] = [64, 256, 1024, 4096, 16_384, 65_536];

/// What one request took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Took {
    /// All of it, without waiting and loading.
    pub service: Duration,
    /// Of text: tokens of the prompt that were not in the cache, and the time to the first token.
    pub first_token: Option<(u32, Duration)>,
    /// Of text: tokens of the answer, and the time of those after the first.
    pub decode: Option<(u32, Duration)>,
}

/// What was observed so far. Every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Observations(Mutex<BTreeMap<Key, Seen>>);

/// Model and device.
type Key = (String, String);

#[derive(Debug, Default)]
struct Seen {
    observed: Observed,
    slots: u32,
    /// How often the model had been loaded when that was last looked at.
    loads: u64,
    /// The same of how often it was woken.
    wakes: u64,
}

impl Observations {
    /// A request ended well.
    pub fn add(&self, model: &str, device: &str, took: Took) {
        let mut all = self.all();
        let seen = &mut entry(&mut all, model, device).observed;
        seen.service = Some(seen.service.unwrap_or_default().with(us(took.service)));
        if let Some((tokens, time)) = took.first_token {
            let size = SIZES.into_iter().find(|size| tokens <= *size).unwrap_or(u32::MAX);
            let average: &mut Average = seen.first_token.entry(size).or_default();
            *average = average.with(us(time));
        }
        if let Some((tokens, time)) = took.decode {
            seen.answer = Some(seen.answer.unwrap_or_default().with(tokens.into()));
            if let Some(rest @ 1..) = tokens.checked_sub(1) {
                let each = us(time) / u64::from(rest);
                seen.between_tokens = Some(seen.between_tokens.unwrap_or_default().with(each));
            }
        }
    }

    /// A model has been loaded so often, the latest time in `took`. Says whether that is news.
    pub fn loaded(&self, model: &str, device: &str, loads: u64, took: Duration) -> bool {
        let mut all = self.all();
        let seen = entry(&mut all, model, device);
        if seen.loads == loads {
            return false;
        }
        seen.loads = loads;
        seen.observed.load = Some(seen.observed.load.unwrap_or_default().with(us(took)));
        true
    }

    /// A model has been woken so often, the latest time in `took`.
    pub fn woken(&self, model: &str, device: &str, wakes: u64, took: Duration) {
        let mut all = self.all();
        let seen = entry(&mut all, model, device);
        if seen.wakes != wakes {
            seen.wakes = wakes;
            seen.observed.wake = Some(seen.observed.wake.unwrap_or_default().with(us(took)));
        }
    }

    /// So many requests can run in a model at the same time.
    pub fn has_slots(&self, model: &str, device: &str, slots: u32) {
        entry(&mut self.all(), model, device).slots = slots;
    }

    /// What was observed of a model on a device, and how many requests run in it at the same time: 0 when that is not
    /// known.
    pub fn of(&self, model: &str, device: &str) -> (Observed, u32) {
        let all = self.all();
        let seen = all.get(&(model.to_owned(), device.to_owned()));
        seen.map(|seen| (seen.observed.clone(), seen.slots)).unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The entry of a model on a device. Where there are too many, the one goes of which the least was observed.
fn entry<'a>(all: &'a mut BTreeMap<Key, Seen>, model: &str, device: &str) -> &'a mut Seen {
    let key = (model.to_owned(), device.to_owned());
    if all.len() >= MOST && !all.contains_key(&key) {
        let count = |seen: &Seen| seen.observed.service.map_or(0, |service| service.count);
        let least = all.iter().min_by_key(|(_, seen)| count(seen)).map(|(key, _)| key.clone());
        if let Some(least) = least {
            all.remove(&least);
        }
    }
    all.entry(key).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn averages_follow_what_is_observed() {
        let observations = Observations::default();
        for _ in 0..50 {
            let took =
                Took { service: 100 * MS, first_token: Some((70, 20 * MS)), decode: Some((9, 80 * MS)) };
            observations.add("a", "cpu", took);
        }
        let (observed, slots) = observations.of("a", "cpu");
        let mean = |average: Option<Average>| average.unwrap().mean;
        assert_eq!((mean(observed.service), mean(observed.between_tokens), slots), (100_000, 10_000, 0));
        assert_eq!(observed.first_token.keys().collect::<Vec<_>>(), [&256]);
        assert_eq!(mean(observed.answer), 9);
        // One that is off moves the average a little, and the spread says that there are such.
        observations.add("a", "cpu", Took { service: 200 * MS, ..Took::default() });
        let service = observations.of("a", "cpu").0.service.unwrap();
        assert_eq!((service.mean, service.spread, service.count), (120_000, 20_000, 51));
        assert_eq!(observations.of("a", "cuda:0").0, Observed::default());
    }

    #[test]
    fn a_load_counts_once_and_so_does_waking() {
        let observations = Observations::default();
        assert!(observations.loaded("a", "cpu", 1, 3 * MS));
        assert!(!observations.loaded("a", "cpu", 1, 3 * MS));
        assert!(observations.loaded("a", "cpu", 2, 3 * MS));
        assert_eq!(observations.of("a", "cpu").0.load.unwrap().count, 2);
        [1, 1, 2].into_iter().for_each(|wakes| observations.woken("a", "cpu", wakes, MS));
        let observed = observations.of("a", "cpu").0;
        assert_eq!((observed.wake.unwrap().count, observed.wake.unwrap().mean), (2, 1000));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let observations = Observations::default();
        observations.add("known", "cpu", Took::default());
        for index in 0..2 * MOST {
            observations.has_slots(&index.to_string(), "cpu", 1);
        }
        assert_eq!(observations.all().len(), MOST);
        assert!(observations.of("known", "cpu").0.service.is_some(), "of it most was observed");
    }
}
