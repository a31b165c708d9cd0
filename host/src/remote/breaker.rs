//! When a server that fails is left alone, and when it is tried again. Pure: the time and the dice are given.
//!
//! Closed, everything goes to it. After some failures in a row, or when half of what it is asked fails, it opens: nothing
//! goes to it for a while, each time twice as long. Then it is asked whether it is there; when it is, one request is let
//! through, and whether that goes well decides.

/// How patient a breaker is. Times are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it rests the first time.
    pub rest: u64,
    /// The longest that it rests.
    pub most: u64,
}

/// How much the latest request counts in the share of failures.
const WEIGHT: f64 = 0.1;
/// The share of failures that opens it, and the requests before which the share says nothing.
const SHARE: (f64, u32) = (0.5, 10);

/// Where a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Closed,
    Open {
        until: u64,
    },
    /// It is being asked whether it is there.
    Probing,
    HalfOpen {
        trial: bool,
    },
}

/// A breaker's state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Requests go through.
    Closed,
    /// None does.
    Open,
    /// One does, to see.
    HalfOpen,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// How a request ended, as far as it says something about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The server answered, be it with a refusal.
    Well,
    /// It did not, or not as it should.
    Badly,
    /// Nothing is known: the request was cancelled.
    Unknown,
}

/// The leave of one request, to be given back with [`Breaker::report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    epoch: u64,
    trial: bool,
}

/// Watches one server.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: Policy,
    at: At,
    /// Failures in a row.
    row: u32,
    share: f64,
    /// Requests that the share is made of.
    seen: u32,
    /// How often it opened since it was last closed.
    opened: u32,
    /// Counts its turns: what a request from before says counts no more.
    epoch: u64,
}

impl Breaker {
    /// A closed one.
    pub fn new(policy: Policy) -> Self {
        Self { policy, at: At::Closed, row: 0, share: 0.0, seen: 0, opened: 0, epoch: 0 }
    }

    /// Lets a request through.
    ///
    /// # Errors
    /// In how many milliseconds to try again.
    pub fn admit(&mut self, now: u64) -> Result<Pass, u64> {
        match self.at {
            At::Closed => Ok(Pass { epoch: self.epoch, trial: false }),
            // Nobody asked whether it is there, although it is time: then the request does.
            At::Open { until } if now >= until.saturating_add(self.policy.rest) => Ok(self.try_one()),
            At::Open { until } => Err(until.saturating_sub(now).max(1)),
            At::HalfOpen { trial: false } => Ok(self.try_one()),
            At::Probing | At::HalfOpen { trial: true } => Err(self.policy.rest.max(1)),
        }
    }

    fn try_one(&mut self) -> Pass {
        self.at = At::HalfOpen { trial: true };
        Pass { epoch: self.epoch, trial: true }
    }

    /// Whether a request would be let through.
    pub fn would_admit(&self, now: u64) -> Result<(), u64> {
        self.clone().admit(now).map(drop)
    }

    /// A request ended. `chance` is drawn from 0 to 1.
    pub fn report(&mut self, now: u64, pass: Pass, ended: Ended, chance: f64) {
        if pass.epoch != self.epoch {
            return;
        }
        match ended {
            Ended::Unknown if pass.trial => self.at = At::HalfOpen { trial: false },
            Ended::Unknown => {}
            Ended::Well if pass.trial => self.close(),
            Ended::Well => {
                self.row = 0;
                self.count(0.0);
            }
            Ended::Badly if pass.trial => self.open(now, chance),
            Ended::Badly => {
                self.row = self.row.saturating_add(1);
                self.count(1.0);
                let (share, least) = SHARE;
                if self.row >= self.policy.failures || (self.seen >= least && self.share >= share) {
                    self.open(now, chance);
                }
            }
        }
    }

    /// Whether it is time to ask the server whether it is there; who is told so has to, and to say it with
    /// [`probed`](Self::probed).
    pub fn due(&mut self, now: u64) -> bool {
        let due = matches!(self.at, At::Open { until } if now >= until);
        if due {
            self.at = At::Probing;
        }
        due
    }

    /// Whether the server was there.
    pub fn probed(&mut self, now: u64, there: bool, chance: f64) {
        match (self.at, there) {
            (At::Probing, true) => self.at = At::HalfOpen { trial: false },
            (At::Probing, false) => self.open(now, chance),
            _ => {}
        }
    }

    /// When it is to be asked, while it is open.
    pub fn rests_until(&self) -> Option<u64> {
        match self.at {
            At::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        match self.at {
            At::Closed => Phase::Closed,
            At::Open { .. } | At::Probing => Phase::Open,
            At::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Failures in a row, and their share among the latest requests.
    pub fn failures(&self) -> (u32, f64) {
        (self.row, self.share)
    }

    fn count(&mut self, failed: f64) {
        self.seen = self.seen.saturating_add(1);
        self.share += WEIGHT * (failed - self.share);
    }

    fn close(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::new(self.policy) };
    }

    /// Half of the rest is sure and half is drawn, so that several hosts do not come back at the same moment.
    fn open(&mut self, now: u64, chance: f64) {
        let Policy { rest, most, .. } = self.policy;
        let whole = rest.saturating_mul(1_u64.checked_shl(self.opened.min(63)).unwrap_or(u64::MAX)).min(most);
        let drawn = ((whole - whole / 2) as f64 * chance.clamp(0.0, 1.0)) as u64;
        self.at = At::Open { until: now.saturating_add(whole / 2).saturating_add(drawn) };
        self.opened = self.opened.saturating_add(1);
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { failures: 3, rest: 1_000, most: 60_000 };

    fn fail(breaker: &mut Breaker, now: u64) {
        let pass = breaker.admit(now).unwrap();
        breaker.report(now, pass, Ended::Badly, 1.0);
    }

    #[test]
    fn it_opens_asks_tries_one_and_closes() {
        let mut breaker = Breaker::new(POLICY);
        (0..2).for_each(|now| fail(&mut breaker, now));
        let well = breaker.admit(2).unwrap();
        breaker.report(2, well, Ended::Well, 0.0);
        (3..6).for_each(|now| fail(&mut breaker, now));
        assert_eq!((breaker.phase(), breaker.admit(5)), (Phase::Open, Err(1_000)));
        assert!(!breaker.due(1_004) && breaker.due(1_005) && !breaker.due(1_005), "one asks");
        assert!(breaker.admit(1_005).is_err(), "nothing goes before it was asked");
        breaker.probed(1_010, true, 0.0);
        let trial = breaker.admit(1_011).unwrap();
        assert!(breaker.admit(1_011).is_err(), "one is tried");
        breaker.report(1_012, trial, Ended::Unknown, 0.0);
        let trial = breaker.admit(1_013).unwrap();
        breaker.report(1_014, trial, Ended::Well, 0.0);
        assert_eq!(breaker.phase(), Phase::Closed);
    }

    #[test]
    fn each_rest_is_twice_as_long_up_to_the_longest() {
        let mut breaker = Breaker::new(POLICY);
        (0..3).for_each(|_| fail(&mut breaker, 0));
        let mut now = 0;
        for rest in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let until = breaker.rests_until().unwrap();
            assert_eq!(until - now, rest);
            now = until;
            assert!(breaker.due(now));
            breaker.probed(now, false, 1.0);
        }
    }

    #[test]
    fn half_of_all_is_too_much_though_never_three_in_a_row() {
        let mut breaker = Breaker::new(POLICY);
        let opened = (0..200).any(|now| {
            for ended in [Ended::Badly, Ended::Badly, Ended::Well] {
                let Ok(pass) = breaker.admit(now) else { return true };
                breaker.report(now, pass, ended, 0.0);
            }
            false
        });
        assert!(opened);
    }

    #[test]
    fn what_a_request_from_before_says_counts_no_more() {
        let mut breaker = Breaker::new(POLICY);
        let slow = breaker.admit(0).unwrap();
        (0..3).for_each(|_| fail(&mut breaker, 0));
        breaker.report(1, slow, Ended::Well, 0.0);
        assert_eq!(breaker.phase(), Phase::Open);
    }

    #[test]
    fn where_nobody_asks_a_request_does() {
        let mut breaker = Breaker::new(POLICY);
        (0..3).for_each(|_| fail(&mut breaker, 0));
        assert!(breaker.admit(1_999).is_err());
        assert!(breaker.admit(2_000).is_ok() && breaker.admit(2_000).is_err());
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(u64),
        Ask,
        End(usize, Ended),
        Probe(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ended = prop::sample::select(vec![Ended::Well, Ended::Badly, Ended::Badly, Ended::Unknown]);
        prop_oneof![
            (0..5_000_u64).prop_map(Step::Wait),
            Just(Step::Ask),
            (any::<prop::sample::Index>(), ended)
                .prop_map(|(index, ended)| Step::End(index.index(64), ended)),
            any::<bool>().prop_map(Step::Probe),
        ]
    }

    proptest! {
        #[test]
        fn it_keeps_its_word_whatever_happens(
            steps in prop::collection::vec(step(), 1..300),
            chances in prop::collection::vec(0.0..=1.0, 300),
            failures in 1..6_u32,
            (rest, more) in (1..5_000_u64, 0..60_000_u64),
        ) {
            let policy = Policy { failures, rest, most: rest + more };
            let mut breaker = Breaker::new(policy);
            let (mut now, mut running, mut trials) = (0_u64, Vec::<Pass>::new(), 0_usize);
            for (step, chance) in steps.into_iter().zip(chances) {
                let before = breaker.rests_until();
                match step {
                    Step::Wait(time) => now += time,
                    Step::Ask => {
                        let phase = breaker.phase();
                        match breaker.admit(now) {
                            Ok(pass) => {
                                // While it rests nothing goes through.
                                prop_assert!(before.is_none_or(|until| now >= until));
                                prop_assert_eq!(pass.trial, phase != Phase::Closed);
                                trials += usize::from(pass.trial);
                                prop_assert!(trials <= 1, "one is tried at a time");
                                running.push(pass);
                            }
                            Err(wait) => prop_assert!(wait > 0 && phase != Phase::Closed),
                        }
                    }
                    Step::End(index, ended) if !running.is_empty() => {
                        let pass = running.swap_remove(index % running.len());
                        if pass.trial {
                            trials -= 1;
                        }
                        breaker.report(now, pass, ended, chance);
                        if pass.trial && ended == Ended::Well {
                            prop_assert_eq!(breaker.phase(), Phase::Closed);
                        }
                    }
                    Step::End(..) => {}
                    Step::Probe(there) => if breaker.due(now) {
                        breaker.probed(now, there, chance);
                    }
                }
                if let Some(until) = breaker.rests_until().filter(|_| breaker.rests_until() != before) {
                    prop_assert!(until - now >= rest / 2 && until - now <= policy.most, "{} {:?}", until - now, policy);
                }
                prop_assert!(breaker.row < failures || breaker.phase() != Phase::Closed);
            }
            // A server that is well again gets its requests again.
            for _ in 0..3 {
                now += 2 * policy.most;
                running.clear();
                if breaker.due(now) {
                    breaker.probed(now, true, 0.0);
                }
                if let Ok(pass) = breaker.admit(now) {
                    breaker.report(now, pass, Ended::Well, 0.0);
                }
            }
            // Only a trial that never ended keeps it from that: its pass is always given back.
            prop_assert!(breaker.phase() == Phase::Closed || trials == 1);
        }
    }
}
