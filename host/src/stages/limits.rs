//! How much a stage may use.

use std::time::Duration;

/// How much one run of a stage may use. The same limits hold for making the stage from its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of WASM memory, code and stack of the stage included.
    pub memory: usize,
    /// Wall-clock time, kept to within a few milliseconds.
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
