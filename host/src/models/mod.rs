//! Models: what they are made of, where they are in memory, and who gives way when memory runs short.

pub mod fleet;
mod gauge;
mod lease;
mod load;
mod loaded;
mod look;
mod shelf;
mod spec;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod turn;
mod wait;

pub use fleet::{DeviceUse, Keep, by_device, is_lost};
pub use lease::Lease;
pub use loaded::Loaded;
pub use look::{DeviceGlance, Glance, ModelGlance};
pub use spec::Spec;
pub use status::{Change, Failure, State, Status};
pub use store::{Models, Order};
