//! Who decides which models are in memory: the host's own fleet, or the baseline.

use std::time::Duration;

use pajamas::config;
use pajamas::models::State;
use pajamas::models::fleet::{Bytes, Effect, Event, Fleet};

use crate::lru::Lru;
use crate::machine::DEVICE;

/// Is told what happens, and says what has to be done.
pub trait Keeper {
    /// As [`Fleet::step`].
    fn step(&mut self, now: Duration, event: Event) -> Vec<Effect>;
    /// As [`Fleet::next`].
    fn next(&self) -> Option<Duration>;
    /// As [`Fleet::state`].
    fn state(&self, model: &str) -> State;
    /// Bytes that are held, and what of that would give way.
    fn held(&self) -> [u64; 2];
    /// As [`Fleet::loads`].
    fn loads(&self, model: &str) -> Option<(u64, Duration)>;
}

/// Bytes of the only device.
pub fn bytes(bytes: u64) -> Bytes {
    Bytes::from([(DEVICE.to_owned(), bytes)])
}

/// The host's fleet, with so much memory.
pub fn fleet(memory: u64) -> Box<dyn Keeper> {
    let limits = config::Memory { reserve: config::ByteSize::bytes(0), ..config::Memory::default() };
    let mut fleet = Fleet::new(limits);
    fleet.step(Duration::ZERO, Event::Device { device: DEVICE.to_owned(), total: memory });
    Box::new(fleet)
}

/// The baseline, with so much memory.
pub fn least_recently_used(memory: u64) -> Box<dyn Keeper> {
    Box::new(Lru::new(memory))
}

impl Keeper for Fleet {
    fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        Self::step(self, now, event)
    }

    fn next(&self) -> Option<Duration> {
        Self::next(self)
    }

    fn state(&self, model: &str) -> State {
        Self::state(self, model)
    }

    fn held(&self) -> [u64; 2] {
        [self.devices().map(|device| device.used).sum(), self.idle(DEVICE)]
    }

    fn loads(&self, model: &str) -> Option<(u64, Duration)> {
        Self::loads(self, model)
    }
}
