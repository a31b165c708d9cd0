//! Models: what they are made of, where they are in memory, and who gives way when memory runs short.

mod ledger;
mod spec;
mod status;
mod store;

pub use ledger::{Holding, Ledger, by_device};
pub use spec::Spec;
pub use status::{Change, Failure, State, Status};
pub use store::{Lease, Loaded, Models};
