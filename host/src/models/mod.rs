//! Models: what they are made of, where they are in memory, and who gives way when memory runs short.

mod lease;
mod ledger;
mod look;
mod shelf;
mod spec;
mod status;
mod store;
#[cfg(test)]
mod tests;

pub use lease::Lease;
pub use ledger::{Holding, Ledger, by_device};
pub use look::{DeviceGlance, Glance};
pub use spec::Spec;
pub use status::{Change, Failure, State, Status};
pub use store::{Loaded, Models, Order, is_lost};
