//! How much a stage may use.

use std::time::Duration;

/// How much one run of a stage may use. The same limits hold for making the stage from its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of WASM memory, code and stack of the stage included.
    pub memory: usize,
    /// Wall-clock time, kept to within a few milliseconds; as much again for every 16 MiB that go in, so that an hour of
    /// sound has longer than a picture.
    pub deadline: Duration,
    /// Bytes of all values that a run leaves.
    pub output: usize,
}

impl Default for Limits {
    /// 512 MiB of memory, 10 seconds, 256 MiB of output: room for a picture of 50 million pixels.
    fn default() -> Self {
        Self { memory: 512 << 20, deadline: Duration::from_secs(10), output: 256 << 20 }
    }
}

impl Limits {
    /// The limits of a run that takes so many bytes.
    pub(super) fn taking(self, bytes: usize) -> Self {
        const MORE_EVERY: usize = 16 << 20;
        let times = u32::try_from(bytes / MORE_EVERY).unwrap_or(u32::MAX).saturating_add(1);
        Self { deadline: self.deadline.saturating_mul(times), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_more_may_take_longer() {
        let limits = Limits { deadline: Duration::from_secs(2), ..Limits::default() };
        let seconds = |bytes| limits.taking(bytes).deadline.as_secs();
        assert_eq!([0, (16 << 20) - 1, 16 << 20, 100 << 20].map(seconds), [2, 2, 4, 14]);
        let forever = Limits { deadline: Duration::MAX, ..limits };
        assert_eq!(forever.taking(usize::MAX).deadline, Duration::MAX);
    }
}
