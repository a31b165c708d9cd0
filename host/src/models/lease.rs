//! The right to use a loaded model.

use std::sync::Arc;

use super::fleet::Event;
use super::loaded::Loaded;
use super::store::Models;

/// A loaded model in use by one request: not evicted while this lives.
pub struct Lease {
    pub(super) model: Arc<Loaded>,
    pub(super) models: Arc<Models>,
}

impl std::ops::Deref for Lease {
    type Target = Loaded;
    fn deref(&self) -> &Loaded {
        &self.model
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.models.tell(Event::Left { session: self.model.number });
    }
}
