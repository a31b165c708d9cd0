//! What the journeys share: the fixtures they build, pack and load, and the built product they run.

pub mod ages;
pub mod artifacts;
pub mod browser;
pub mod fixtures;
pub mod geometry;
pub mod hub;
pub mod product;
pub mod server;
pub mod terminal;
pub mod upstream;
