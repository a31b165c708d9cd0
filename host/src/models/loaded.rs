//! A model in memory.

use std::sync::{OnceLock, Weak};
use std::time::Duration;

use pajamas_plugin_api::{Session, Signature};

use super::fleet::{Bytes, Event};
use super::store::Models;

/// A model in memory.
pub struct Loaded {
    /// The id it was asked for by.
    pub id: String,
    /// The backend that runs it, `plugin/backend`.
    pub backend: String,
    /// The device it runs on.
    pub device: String,
    /// What it takes and gives.
    pub signature: Signature,
    /// The session itself.
    pub session: Box<dyn Session>,
    /// Whether it runs in a process of its own, so that a crash is that of the model alone.
    pub isolated: bool,
    /// How long loading took.
    pub load_time: Duration,
    /// Which of all sessions it is.
    pub(super) number: u64,
    /// Dropped after the session, since it stands behind it.
    pub(super) end: End,
}

/// Tells that a session's memory is free, whoever had it last.
pub(super) struct End {
    pub(super) models: Weak<Models>,
    pub(super) session: u64,
    /// What the devices were measured to hold before it was freed.
    pub(super) before: OnceLock<Bytes>,
}

impl Drop for End {
    fn drop(&mut self) {
        // When the host is gone nobody wants to know.
        let Some(models) = self.models.upgrade() else { return };
        let before = self.before.take().unwrap_or_default();
        let after = models.gauge.held(before.keys());
        let less = |(device, before): (String, u64)| {
            let after = after.get(&device)?;
            Some((device, before.saturating_sub(*after)))
        };
        let back = before.into_iter().filter_map(less).collect();
        models.tell(Event::Unloaded { session: self.session, back, free: models.gauge.free() });
        models.settle();
    }
}
