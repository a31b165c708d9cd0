//! What the loop needs of an engine: runs that leave their outputs where the next run takes them from.

use std::ops::Range;

use pajamas_plugin_api::{Cancel, Result, Session, TensorView};

use crate::ports::Ports;

/// A loaded graph whose outputs can stay with the engine.
///
/// What a run leaves is not copied to be fed to the next one: a cache of keys and values grows where it is.
pub(crate) trait Engine: Session + 'static {
    /// A tensor in the engine's own memory.
    type Kept: Send;

    /// The engine's name, for messages.
    fn name(&self) -> &'static str;

    /// The graph's inputs and outputs.
    fn ports(&self) -> &Ports;

    /// Runs once. `feeds` are all inputs in the order of the ports; `outputs` are indices of ports.
    ///
    /// # Errors
    /// `invalid-input`, `inference-failed`, `cancelled`.
    fn run(
        &self,
        feeds: Vec<Feed<'_, Self::Kept>>,
        outputs: &[usize],
        cancel: &Cancel,
    ) -> Result<Vec<Self::Kept>>;

    /// The tensor's shape.
    ///
    /// # Errors
    /// `internal`.
    fn shape(&self, kept: &Self::Kept) -> Result<Vec<u64>>;

    /// Some of the tensor's elements in row-major order, widened where they are of half precision.
    ///
    /// # Errors
    /// `internal` when the tensor holds no floating-point numbers, or not so many.
    fn floats(&self, kept: &Self::Kept, elements: Range<usize>) -> Result<Vec<f32>>;

    /// A tensor of these rows of the outermost dimension, in this order; a row may come several times.
    ///
    /// # Errors
    /// `internal` when there is no such row.
    fn rows(&self, kept: &Self::Kept, rows: &[usize]) -> Result<Self::Kept>;
}

/// What an input of a run is.
pub(crate) enum Feed<'a, T> {
    /// Memory of this side, aligned for its type.
    Host(TensorView<'a>),
    /// What an earlier run left and a later one will take again.
    Kept(&'a T),
    /// What an earlier run left and nobody else needs: the engine may let it grow where it lies.
    Given(T),
}
