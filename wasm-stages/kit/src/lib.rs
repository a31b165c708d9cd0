//! All that the author of a stage needs.
//!
//! A stage is a WASM component that turns named values into named values. It has no clock, no files and no network;
//! it gets its options and the files it was granted once, and then values. Write it as an ordinary type:
//!
//! ```
//! use pajamas_stage::{Description, Files, Kind, Port, Result, Stage, Value, Values, export_stage};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! /// Multiplies a tensor.
//! struct Gain {
//!     factor: f32,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Options {
//!     factor: f32,
//! }
//!
//! impl Default for Options {
//!     fn default() -> Self {
//!         Self { factor: 2.0 }
//!     }
//! }
//!
//! impl Stage for Gain {
//!     type Options = Options;
//!
//!     fn describe() -> Description {
//!         Description::new("gain", "1.0.0", "Multiplies every element of a tensor.")
//!             .input(Port::new("tensor", Kind::Tensor, "any shape"))
//!             .output(Port::new("tensor", Kind::Tensor, "the same shape, as f32"))
//!             .options(json!({ "factor": { "type": "number", "default": 2.0 } }))
//!     }
//!
//!     fn create(options: Options, _files: Files) -> Result<Self> {
//!         Ok(Self { factor: options.factor })
//!     }
//!
//!     fn run(&self, mut inputs: Values) -> Result<Values> {
//!         let tensor = inputs.tensor("tensor")?;
//!         let shape = tensor.shape.clone();
//!         let data = tensor.into_f32()?.into_iter().map(|x| x * self.factor).collect();
//!         Ok(Values::new().with("tensor", pajamas_stage::Tensor::f32(shape, data)?))
//!     }
//! }
//!
//! export_stage!(Gain);
//! # fn main() {}
//! ```
//!
//! Build the crate (`crate-type = ["cdylib"]`) for `wasm32-unknown-unknown` and make a component of it with
//! `wasm-tools component new`. The host calls `run` on a fresh instance each time: nothing a stage keeps between two
//! runs survives, so keep what is dear to make small, and make it in `create`.
//!
//! A panic becomes the host's error `stage-trapped` with the panic's message; return an [`Error`] instead wherever the
//! input may be at fault.

mod adapter;
pub mod audio;
#[doc(hidden)]
pub mod bindings;
mod describe;
mod error;
mod image;
pub mod logging;
mod stage;
mod tensor;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod values;

pub use bindings::pajamas::stage::values::{
    Audio, Detection, Image, Kind, Label, NamedValue, Segment, Tensor, TensorData, Value,
};
pub use describe::{Description, Port};
pub use error::{Error, Result};
pub use stage::{Files, Stage};
pub use values::Values;

#[doc(hidden)]
pub mod __private {
    pub use crate::adapter::Component;
    pub use crate::bindings;
}

/// Exports a type that implements [`Stage`] as the component's one stage.
///
/// Has an effect only on WASM, so that the crate's logic can be tested natively.
#[macro_export]
macro_rules! export_stage {
    ($stage:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::__private::Component<$stage>;
    $crate::__private::bindings::export!(Exported with_types_in $crate::__private::bindings);
        };
    };
}
