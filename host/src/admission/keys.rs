//! What each key of the server may use: requests at the same time, requests and tokens in a minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::config::Key;
use crate::error::{Error, Result};

/// What a refused caller is told to wait when too many of its requests run.
const WAIT: u64 = 1_000;

/// What a key may use; `None` is as much as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run and wait at the same time.
    pub concurrent: Option<u32>,
    /// Requests in a minute.
    pub requests: Option<u32>,
    /// Tokens in a minute, of prompts and answers.
    pub tokens: Option<u32>,
}

impl Limits {
    /// Those of a key; `None` when it has none.
    pub fn of(key: &Key) -> Option<Self> {
        let Key { max_concurrent, requests_per_minute, tokens_per_minute, .. } = *key;
        let limits =
            Self { concurrent: max_concurrent, requests: requests_per_minute, tokens: tokens_per_minute };
        (limits != Self::default()).then_some(limits)
    }
}

/// Why a key gets no more, and in how many milliseconds it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What it has used up.
    pub what: &'static str,
    /// How many of them it may use.
    pub most: u32,
    /// When to try again.
    pub wait: u64,
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// What may be used in a minute.
    pub limit: u32,
    /// What of it is left.
    pub left: u32,
    /// When nothing of it is used any more.
    pub full_in: Duration,
}

/// What is left to a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests.
    pub requests: Option<Left>,
    /// Tokens.
    pub tokens: Option<Left>,
}

/// What one key used. Pure: the time is given, in milliseconds.
#[derive(Debug, Clone, Default)]
struct Account {
    inside: u32,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Account {
    /// Limits may have changed since the last request.
    fn hold_to(&mut self, limits: Limits, now: u64) {
        let fit = |bucket: &mut Option<Bucket>, limit: Option<u32>| match (bucket.as_mut(), limit) {
            (_, None) => *bucket = None,
            (None, Some(limit)) => *bucket = Some(Bucket::new(limit, now)),
            (Some(bucket), Some(limit)) if bucket.per_minute() != limit => bucket.resize(limit, now),
            (Some(_), Some(_)) => {}
        };
        fit(&mut self.requests, limits.requests);
        fit(&mut self.tokens, limits.tokens);
    }

    /// Lets a request in that has about so many tokens. All limits are looked at before any is used.
    fn enter(&mut self, limits: Limits, tokens: u32, now: u64) -> Result<(), Refused> {
        self.hold_to(limits, now);
        if let Some(most) = limits.concurrent.filter(|most| self.inside >= *most) {
            return Err(Refused { what: "requests at the same time", most, wait: WAIT });
        }
        let buckets =
            [(&mut self.requests, 1, "requests a minute"), (&mut self.tokens, tokens, "tokens a minute")];
        for (bucket, amount, what) in buckets {
            if let Some(bucket) = bucket
                && let wait @ 1.. = bucket.wait(amount, now)
            {
                return Err(Refused { what, most: bucket.per_minute(), wait });
            }
        }
        for (bucket, amount) in [(&mut self.requests, 1), (&mut self.tokens, tokens)] {
            if let Some(bucket) = bucket {
                bucket.charge(amount.into());
            }
        }
        self.inside += 1;
        Ok(())
    }

    /// A request ended that was counted with so many tokens and used so many.
    fn leave(&mut self, counted: u32, used: u32) {
        self.inside = self.inside.saturating_sub(1);
        if let Some(tokens) = &mut self.tokens {
            tokens.charge(i64::from(used) - i64::from(counted));
        }
    }

    fn allowance(&mut self, limits: Limits, now: u64) -> Allowance {
        self.hold_to(limits, now);
        let left = |bucket: &mut Option<Bucket>| {
            bucket.as_mut().map(|bucket| Left {
                limit: bucket.per_minute(),
                left: bucket.left(now),
                full_in: Duration::from_millis(bucket.full_in(now)),
            })
        };
        Allowance { requests: left(&mut self.requests), tokens: left(&mut self.tokens) }
    }
}

/// What all keys used. Bounded by the keys of the configuration, past ones included.
#[derive(Debug)]
pub struct Keys {
    begun: Instant,
    accounts: Mutex<BTreeMap<String, Account>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self { begun: Instant::now(), accounts: Mutex::default() }
    }
}

impl Keys {
    /// Lets a request of a key in that has about so many tokens, until its pass is dropped.
    ///
    /// # Errors
    /// `rate-limited`, with when to try again.
    pub fn enter(self: &Arc<Self>, name: &str, limits: Limits, tokens: u32) -> Result<Pass> {
        let now = self.now();
        let entered = self.accounts().entry(name.to_owned()).or_default().enter(limits, tokens, now);
        entered.map_err(|Refused { what, most, wait }| {
            let wait = Duration::from_millis(wait);
            let seconds = wait.as_millis().div_ceil(1_000);
            let message = format!("the key `{name}` may use {most} {what}: try again in {seconds} s");
            Error::new("rate-limited", message)
                .help("send fewer, or ask the operator for more")
                .retry_after(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
        })?;
        Ok(Pass { keys: Arc::clone(self), name: name.to_owned(), counted: tokens, used: 0 })
    }

    /// What is left to a key.
    pub fn allowance(&self, name: &str, limits: Limits) -> Allowance {
        let now = self.now();
        self.accounts().entry(name.to_owned()).or_default().allowance(limits, now)
    }

    /// The keys that asked for something, with how many requests each has.
    pub fn inside(&self) -> Vec<(String, u32)> {
        self.accounts().iter().map(|(name, account)| (name.clone(), account.inside)).collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing panics while the lock is held; should it, the counts are still whole.
    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of a key.
#[derive(Debug)]
pub struct Pass {
    keys: Arc<Keys>,
    name: String,
    counted: u32,
    used: u32,
}

impl Pass {
    /// What was estimated of the request's tokens.
    pub fn counted(&self) -> u32 {
        self.counted
    }

    /// The request used so many tokens.
    pub fn used(mut self, tokens: u32) {
        self.used = tokens;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(account) = self.keys.accounts().get_mut(&self.name) {
            account.leave(self.counted, self.used);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { concurrent: Some(2), requests: Some(60), tokens: Some(600) };

    #[test]
    fn each_limit_refuses_with_when_to_try_again_and_uses_nothing() {
        let mut account = Account::default();
        assert_eq!(account.enter(LIMITS, 100, 0), Ok(()));
        assert_eq!(account.enter(LIMITS, 100, 0), Ok(()));
        let refused = account.enter(LIMITS, 100, 0).unwrap_err();
        assert_eq!((refused.what, refused.most), ("requests at the same time", 2));
        account.leave(100, 500);
        account.leave(100, 100);
        // Of 600 tokens all are used.
        let refused = account.enter(LIMITS, 10, 0).unwrap_err();
        assert_eq!(refused, Refused { what: "tokens a minute", most: 600, wait: 1_000 });
        assert_eq!(account.enter(LIMITS, 10, 1_000), Ok(()));
        account.leave(10, 0);
        let left = account.allowance(LIMITS, 1_000);
        assert_eq!(left.tokens.unwrap().left, 10, "what was not used came back");
        assert_eq!(left.requests.unwrap().left, 58);
        assert_eq!(account.allowance(Limits::default(), 1_000), Allowance::default());
    }

    #[test]
    fn requests_in_a_minute_are_counted() {
        let limits = Limits { requests: Some(2), ..Limits::default() };
        let mut account = Account::default();
        assert_eq!((account.enter(limits, 0, 0), account.enter(limits, 0, 0)), (Ok(()), Ok(())));
        assert_eq!(account.enter(limits, 0, 0).unwrap_err().wait, 30_000);
        assert_eq!(account.enter(limits, 0, 30_000), Ok(()));
    }

    #[test]
    fn a_pass_ends_with_its_request() {
        let keys = Arc::new(Keys::default());
        let limits = Limits { concurrent: Some(1), ..Limits::default() };
        let pass = keys.enter("app", limits, 0).unwrap();
        let refused = keys.enter("app", limits, 0).unwrap_err();
        assert_eq!((refused.code(), refused.wait()), ("rate-limited", Some(Duration::from_secs(1))));
        assert!(keys.enter("other", limits, 0).is_ok());
        pass.used(7);
        assert!(keys.enter("app", limits, 0).is_ok());
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_passed(
            (concurrent, requests, tokens) in (1..6_u32, 1..100_u32, 1..2_000_u32),
            steps in prop::collection::vec((0..3_000_u64, 0..200_u32, any::<bool>()), 1..200),
        ) {
            let limits = Limits { concurrent: Some(concurrent), requests: Some(requests), tokens: Some(tokens) };
            let (mut account, mut now, mut running) = (Account::default(), 0, Vec::new());
            let mut entered: Vec<u64> = Vec::new();
            for (pause, amount, leaves) in steps {
                now += pause;
                if leaves && let Some(counted) = running.pop() {
                    account.leave(counted, amount);
                } else if account.enter(limits, amount, now).is_ok() {
                    running.push(amount);
                    entered.push(now);
                }
                prop_assert_eq!(account.inside as usize, running.len());
                prop_assert!(account.inside <= concurrent);
                let lately = entered.iter().filter(|at| now - **at < 60_000).count();
                prop_assert!(lately <= 2 * requests as usize, "a full bucket and what flows in a minute");
            }
        }
    }
}
