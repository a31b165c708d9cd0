//! The loader (feature `host`): finds plugins, verifies them step by step, and opens them.
//!
//! Nothing is opened before it is verified, because opening a library runs code in it: manifest → platform →
//! hash → open → probe symbol → layout → create → score. Each step has its own error code, and a [`Report`]
//! shows all of them, also for a plugin that was refused. What has been opened stays mapped for the life of the
//! process: a library with live threads or thread-local destructors cannot be unloaded safely.

mod layout;
mod library;
pub(crate) mod manifest;
mod open;
mod report;

pub use manifest::{MANIFEST_NAME, Manifest, ManifestFile, library_file_name, platform};
pub use open::{LoadedBackend, LoadedPlugin, LoadedQuantizer, Policy, discover, open};
pub use report::{Outcome, Report, Step, StepReport};

/// The layout of every type that crosses, as text: what `cargo xtask abi-check` compares with its snapshot.
///
/// One block per type, sorted: a header line without indentation, then one indented line per field or method. The
/// header of a type that may grow begins with `growing`; the others are frozen. Neither addresses nor paths nor
/// line numbers appear, and sizes are those of a 64-bit machine.
pub fn layout_text() -> String {
    layout::text()
}
