//! Carries out one task: stages and a session as one way from values to values, or a text model's own work.

pub mod encode;
mod request;
mod room;
mod run;
pub mod speak;
mod tensors;
pub mod text;
pub mod transcribe;
pub mod vision;

pub use request::{Event, Hints, Input, Keep, Outcome, Output, Params, Request, Route, StepTime};
pub use run::{Prepared, Workshop};
pub use tensors::Outputs;
