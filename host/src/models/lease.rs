//! The right to load a model, and the right to use a loaded one.

use std::sync::Arc;

use super::shelf::Slot;
use super::store::{Loaded, Models};

/// The right to load one model, and the duty to say how it ended.
pub(super) struct Claim<'m> {
    pub(super) models: &'m Models,
    pub(super) id: &'m str,
    /// Of the configuration that the model is loaded after.
    pub(super) generation: u64,
}

impl Claim<'_> {
    /// The model is there, and its first request uses it. Others do, too, unless it became another one meanwhile.
    pub(super) fn fulfil(self, loaded: &Arc<Loaded>) {
        let mut shelf = self.models.shelf();
        let (count, latest) = shelf.loads.entry(self.id.to_owned()).or_default();
        (*count, *latest) = (*count + 1, loaded.load_time);
        shelf.slots.insert(self.id.to_owned(), Slot::Ready(Arc::clone(loaded)));
        // Breaks count until a request goes well; a failure to load is over.
        if shelf.failures.get(self.id).is_some_and(|failure| failure.breaks == 0) {
            shelf.failures.remove(self.id);
        }
        if shelf.is_outdated(self.id, self.generation) {
            // Not the last one who has it: nothing is freed under the lock.
            drop(shelf.take(self.id));
        } else {
            shelf.tell(self.id);
        }
        drop(shelf);
        self.models.changed.notify_all();
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut shelf = self.models.shelf();
        shelf.slots.remove(self.id);
        shelf.ledger.release(self.id);
        shelf.tell(self.id);
        drop(shelf);
        self.models.changed.notify_all();
    }
}

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
        let mut shelf = self.models.shelf();
        if shelf.offers(&self.model) {
            shelf.ledger.leave(&self.model.id);
            shelf.tell(&self.model.id);
        } else {
            shelf.ledger.leave_retired(&self.model.retired());
        }
    }
}
