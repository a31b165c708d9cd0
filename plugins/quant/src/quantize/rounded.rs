//! What is left of a tensor's numbers once they were blocks of a type.

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_llama_cpp::quantize::dequantize;
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

use super::importance::Importance;
use super::original::Original;
use super::stream::Job;

/// Gives the numbers of the original's tensor `index` to `out`, in their order, as they come back out of blocks of a
/// type. Returns by how much they differ from what they were: the sum of squares, each weighed by its column's
/// importance where that is known.
///
/// # Errors
/// `weight-not-finite`, `quantize-failed`, `importance-mismatch`, `cancelled`; those of `out`.
pub(crate) fn rounded(
    original: &dyn Original,
    index: usize,
    to: TensorType,
    importance: Option<&Importance>,
    threads: usize,
    cancel: &Cancel,
    out: &mut dyn FnMut(&[f32]) -> Result<()>,
) -> Result<f64> {
    let tensor = &original.tensors()[index];
    let means = match importance {
        Some(importance) => importance.of(&tensor.name, &tensor.dimensions)?,
        None => None,
    };
    let job = Job { original, index, to, importance: means, allow_non_finite: false };
    let (columns, of_matrix) = (tensor.columns().max(1), tensor.rows_of_matrix().max(1));
    let (mut row, mut error) = (0, 0.0);
    let (mut now, mut before) = (Vec::new(), Vec::new());
    job.run(threads, cancel, &mut |blocks| {
        now.clear();
        dequantize(to, blocks, &mut now)
            .map_err(|e| PluginError::new(codes::INTERNAL, format!("tensor `{}`: {e}", tensor.name)))?;
        let rows = now.len() as u64 / columns;
        before.clear();
        original.floats(index, row..row + rows, &mut before)?;
        // What comes at a time is of one matrix.
        let start = (row / of_matrix * columns) as usize;
        let means = means.and_then(|means| means.get(start..start + columns as usize));
        let lines = now.chunks_exact(columns as usize).zip(before.chunks_exact(columns as usize));
        for (now, before) in lines {
            let square = |(now, before): (&f32, &f32)| f64::from(now - before).powi(2);
            let squares = now.iter().zip(before).map(square);
            error += match means {
                Some(means) => {
                    squares.zip(means).map(|(square, mean)| square * f64::from(*mean)).sum::<f64>()
                }
                None => squares.sum(),
            };
        }
        row += rows;
        out(&now)
    })?;
    Ok(error)
}
