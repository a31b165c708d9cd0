//! Artifacts: folders with a `manifest.json` that says what is in them and carries the hashes that prove it.
//!
//! [`resolve`] turns what a person writes (an id, a folder, a file) into what can be loaded; [`Artifact`] reads,
//! verifies and picks; [`Manifest::write`] writes.

mod folder;
mod magic;
mod manifest;
mod source;
mod store;

pub use folder::{Artifact, Variant, Verified, Wanted};
pub use manifest::{Calibration, FileEntry, FormatEntry, MANIFEST, Manifest, SCHEMA};
pub use source::{ModelFile, Reference, Source, resolve};
pub use store::{describe_file, describe_files, write_whole};
