//! The engines of the models in memory, which share one device. Those of one model run in a batch, in which each is
//! slower the more there are; models that work at the same time take turns, so that each has its part of the device.

use std::collections::{BTreeMap, VecDeque};

use crate::machine::BATCH;

/// Microseconds of work that count as none.
const NOTHING: f64 = 0.5;

/// All engines.
#[derive(Debug, Default)]
pub struct Engines {
    sessions: BTreeMap<u64, Engine>,
    /// When the work that is left was reckoned.
    now: u64,
}

/// The engine of one session.
#[derive(Debug, Default)]
struct Engine {
    slots: usize,
    running: Vec<Running>,
    waiting: VecDeque<Running>,
    /// The conversations in its cache, and how many tokens of each: the latest last.
    cached: VecDeque<(u32, u32)>,
}

/// What a request still has to do.
#[derive(Debug, Clone)]
struct Running {
    request: usize,
    /// Microseconds of work to the first token, and after it.
    left: [f64; 2],
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has a slot.
    Begun(usize),
    /// Its first token is there.
    FirstToken(usize),
    /// Its answer is whole.
    Ended(usize),
}

impl Engines {
    /// A session is in memory, with so many slots.
    pub fn open(&mut self, session: u64, slots: u32) {
        self.sessions.insert(session, Engine { slots: slots as usize, ..Engine::default() });
    }

    /// A session's memory is freed.
    pub fn close(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    /// How many tokens of a conversation are in a session's cache.
    pub fn cached(&self, session: u64, conversation: u32) -> u32 {
        let cached = self.sessions.get(&session).into_iter().flat_map(|engine| &engine.cached);
        cached.filter(|(of, _)| *of == conversation).map(|(_, tokens)| *tokens).next().unwrap_or(0)
    }

    /// A conversation is in a session's cache, which has room for as many as there are slots.
    pub fn cache(&mut self, session: u64, conversation: u32, tokens: u32) {
        let Some(engine) = self.sessions.get_mut(&session) else { return };
        engine.cached.retain(|(of, _)| *of != conversation);
        engine.cached.push_back((conversation, tokens));
        while engine.cached.len() > engine.slots {
            engine.cached.pop_front();
        }
    }

    /// A request comes to a session, after [`advance`](Self::advance) to now.
    pub fn enter(&mut self, session: u64, request: usize, left: [f64; 2]) {
        if let Some(engine) = self.sessions.get_mut(&session) {
            engine.waiting.push_back(Running { request, left });
        }
    }

    /// A request leaves a session before its end.
    pub fn leave(&mut self, session: u64, request: usize) {
        if let Some(engine) = self.sessions.get_mut(&session) {
            engine.running.retain(|running| running.request != request);
            engine.waiting.retain(|waiting| waiting.request != request);
        }
    }

    /// Time goes by until `now`, which is not after [`next`](Self::next). Says what happened.
    pub fn advance(&mut self, now: u64) -> Vec<Progress> {
        let passed = now.saturating_sub(self.now) as f64;
        self.now = self.now.max(now);
        let busy = self.busy();
        let mut progress = Vec::new();
        for engine in self.sessions.values_mut() {
            let done = passed * speed(busy, engine.running.len());
            engine.running.retain_mut(|running| {
                let part = usize::from(running.left[0] <= NOTHING);
                running.left[part] -= done;
                match (part, running.left[part] <= NOTHING) {
                    (_, false) => true,
                    // Vectors are whole with their first token.
                    (0, true) if running.left[1] > NOTHING => {
                        progress.push(Progress::FirstToken(running.request));
                        true
                    }
                    (_, true) => {
                        progress.push(Progress::Ended(running.request));
                        false
                    }
                }
            });
            while engine.running.len() < engine.slots
                && let Some(next) = engine.waiting.pop_front()
            {
                progress.push(Progress::Begun(next.request));
                engine.running.push(next);
            }
        }
        progress
    }

    /// When something happens next, if nobody comes or leaves.
    pub fn next(&self) -> Option<u64> {
        let busy = self.busy();
        let soonest = self.sessions.values().filter_map(|engine| {
            let left =
                engine.running.iter().map(|running| running.left[usize::from(running.left[0] <= NOTHING)]);
            Some(left.min_by(f64::total_cmp)? / speed(busy, engine.running.len()))
        });
        let soonest = soonest.min_by(f64::total_cmp)?;
        Some(self.now + (soonest.max(0.0).ceil() as u64).max(1))
    }

    /// Models that work now.
    fn busy(&self) -> usize {
        self.sessions.values().filter(|engine| !engine.running.is_empty()).count()
    }
}

/// How fast each of so many in one batch is, beside one that is alone on the device.
fn speed(busy: usize, batch: usize) -> f64 {
    let others = batch.saturating_sub(1) as f64;
    1.0 / (busy.max(1) as f64 * (1.0 + BATCH * others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_in_a_batch_slow_each_other_and_models_share_the_device() {
        let mut engines = Engines::default();
        engines.open(1, 2);
        engines.open(2, 2);
        engines.enter(1, 0, [100.0, 900.0]);
        assert_eq!(engines.advance(0), [Progress::Begun(0)]);
        assert_eq!(engines.next(), Some(100));
        assert_eq!(engines.advance(100), [Progress::FirstToken(0)]);
        engines.enter(1, 1, [1000.0, 0.0]);
        engines.enter(1, 2, [1.0, 0.0]);
        assert_eq!(engines.advance(100), [Progress::Begun(1)], "there are two slots");
        // Two in a batch take a quarter longer each.
        assert_eq!(engines.next(), Some(100 + 1125));
        engines.enter(2, 3, [100.0, 0.0]);
        assert_eq!(engines.advance(100), [Progress::Begun(3)]);
        assert_eq!(engines.next(), Some(100 + 200), "half of the device");
    }
}
