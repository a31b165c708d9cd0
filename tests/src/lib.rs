//! What the journeys share: the fixtures they build, pack and load.

pub mod fixtures;
