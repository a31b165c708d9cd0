//! So many in a minute: a bucket that fills evenly and is taken from. Pure: the time is given.

/// A token, or a request, in the parts in which a bucket counts: what one a minute brings in a millisecond is one part.
const WHOLE: i64 = 60_000;

/// A bucket of what may be used in a minute. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    per_minute: u32,
    /// In parts; below zero when more was used than was foreseen.
    level: i64,
    at: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(per_minute: u32, now: u64) -> Self {
        Self { per_minute, level: i64::from(per_minute) * WHOLE, at: now }
    }

    /// What fits.
    pub fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// Takes another size, and what is in it along as far as it fits.
    pub fn resize(&mut self, per_minute: u32, now: u64) {
        self.fill(now);
        self.per_minute = per_minute;
        self.level = self.level.min(self.capacity());
    }

    /// In how many milliseconds there is enough for so much. What is more than ever fits is given once it is full.
    pub fn wait(&mut self, amount: u32, now: u64) -> u64 {
        self.fill(now);
        let needed = (i64::from(amount) * WHOLE).min(self.capacity());
        self.time_for(needed - self.level)
    }

    /// Takes more out, also what is not there; or puts back what was not used.
    pub fn charge(&mut self, amount: i64) {
        self.level = self.level.saturating_sub(amount.saturating_mul(WHOLE)).min(self.capacity());
    }

    /// What is left.
    pub fn left(&mut self, now: u64) -> u32 {
        self.fill(now);
        u32::try_from(self.level.max(0) / WHOLE).unwrap_or(u32::MAX)
    }

    /// In how many milliseconds it is full.
    pub fn full_in(&mut self, now: u64) -> u64 {
        self.fill(now);
        self.time_for(self.capacity() - self.level)
    }

    fn capacity(&self) -> i64 {
        i64::from(self.per_minute) * WHOLE
    }

    fn time_for(&self, parts: i64) -> u64 {
        let parts = u64::try_from(parts).unwrap_or(0);
        parts.div_ceil(u64::from(self.per_minute.max(1)))
    }

    /// A clock that goes back brings nothing and costs nothing.
    fn fill(&mut self, now: u64) {
        let passed = i64::try_from(now.saturating_sub(self.at)).unwrap_or(i64::MAX);
        self.at = self.at.max(now);
        let more = passed.saturating_mul(self.per_minute.into());
        self.level = self.level.saturating_add(more).min(self.capacity());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Bucket {
        /// Takes so much out, or says in how many milliseconds there is enough.
        fn take(&mut self, amount: u32, now: u64) -> Result<(), u64> {
            match self.wait(amount, now) {
                0 => {
                    self.charge(amount.into());
                    Ok(())
                }
                wait => Err(wait),
            }
        }
    }

    #[test]
    fn it_fills_evenly_and_says_when_there_is_enough() {
        let mut bucket = Bucket::new(60, 0);
        assert_eq!(bucket.take(60, 0), Ok(()));
        assert_eq!(bucket.take(1, 0), Err(1_000));
        assert_eq!((bucket.take(1, 999), bucket.take(1, 1_000)), (Err(1), Ok(())));
        assert_eq!((bucket.left(30_999), bucket.left(31_000)), (29, 30));
        assert_eq!(bucket.full_in(31_000), 30_000);
        assert_eq!(bucket.left(1_000_000), 60, "no more than fits");
        assert_eq!(bucket.left(0), 60, "a clock that goes back");
    }

    #[test]
    fn what_is_used_beyond_is_owed_and_what_is_not_used_comes_back() {
        let mut bucket = Bucket::new(600, 0);
        assert_eq!(bucket.take(5_000, 0), Ok(()), "more than ever fits, from a full one");
        assert_eq!((bucket.left(0), bucket.wait(1, 0)), (0, 440_100));
        bucket.charge(-4_400);
        assert_eq!(bucket.take(1, 100), Ok(()));
        bucket.resize(60, 100);
        assert_eq!(bucket.left(1_000_000), 60);
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_more_is_taken_than_fits_and_flows(
            per_minute in 1..5_000_u32,
            asks in prop::collection::vec((0..5_000_u64, 1..400_u32), 1..200),
        ) {
            let mut bucket = Bucket::new(per_minute, 0);
            let (mut now, mut taken) = (0, Vec::new());
            for (pause, amount) in asks {
                now += pause;
                let amount = amount.min(per_minute);
                match bucket.take(amount, now) {
                    Ok(()) => taken.push((now, u64::from(amount))),
                    Err(wait) => {
                        // It says when: then there is enough, and a moment before there is not.
                        prop_assert!(bucket.clone().take(amount, now + wait).is_ok());
                        prop_assert!(wait == 0 || bucket.clone().take(amount, now + wait - 1).is_err());
                    }
                }
            }
            for (first, (begun, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (at, amount) in &taken[first..] {
                    sum += amount;
                    let most = u64::from(per_minute) * 60_000 + u64::from(per_minute) * (at - begun);
                    prop_assert!(sum * 60_000 <= most);
                }
            }
        }
    }
}
