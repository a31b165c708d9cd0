//! The WASM engine: untrusted code that turns named values into named values.
//!
//! A [`StageEngine`] compiles a component once and keeps the machine code on disk; a [`Stage`] is a compiled component;
//! a [`Processor`] is a stage with its options and files. Every [`Processor::run`] happens in an instance of its own
//! that nothing else has used, under [`Limits`], and can be stopped by its [`Cancel`](pajamas_plugin_api::Cancel) flag.
//! All of it may be used from any thread; a run occupies the thread that asked for it.
//!
//! Invariant: a stage can call nothing but the logging that this module gives it, and whatever it does ends in an
//! error with a code.

mod bindings;
mod cache;
mod catalog;
mod convert;
mod description;
mod engine;
mod fault;
mod guest;
mod library;
mod limits;
mod packed;
mod processor;
mod slots;
mod ticker;

pub use catalog::{BUILT_IN, BuiltIn, Catalog, Origin};
pub use description::{Description, Port};
pub use engine::{EngineConfig, Stage, StageEngine};
pub use guest::{Level, LogLine, LogSink};
pub use library::Stages;
pub use limits::Limits;
pub use processor::{GrantedFile, Processor};

#[cfg(test)]
mod tests;
