//! An embedding in progress: one input at a time, so that generations go on between them.

use pajamas_llama_cpp::{Batch, Context, Decoded, Error, Pooling, Result, Sequence, Token};
use pajamas_plugin_api::PluginError;

use super::{EmbedJob, Stop};
use crate::error::plugin_error;

/// A request that has a slot.
pub(super) struct Embedding {
    job: EmbedJob,
    done: usize,
    rows: Vec<f32>,
}

impl Embedding {
    pub fn new(job: EmbedJob) -> Self {
        Self { job, done: 0, rows: Vec::new() }
    }

    pub fn stop(&self) -> &Stop {
        &self.job.stop
    }

    /// Ends the request because nobody wants the answer any more.
    pub fn cancel(&self) {
        let _ = self.job.reply.send(Err(PluginError::cancelled()));
    }

    /// Embeds the next input; `false` when the request has ended. The slot's cache must be empty, and is again
    /// afterwards.
    pub fn advance(&mut self, context: &mut Context, batch: &mut Batch, sequence: Sequence) -> bool {
        let Some(tokens) = self.job.request.inputs.get(self.done) else {
            let _ = self.job.reply.send(Ok(std::mem::take(&mut self.rows)));
            return false;
        };
        context.set_embeddings(true);
        let row = embed(context, batch, sequence, tokens, self.job.request.pooling, &self.job.stop);
        context.set_embeddings(false);
        context.remove(sequence, 0);
        match row {
            Ok(Some(mut row)) => {
                if self.job.request.normalize {
                    normalize(&mut row);
                }
                self.rows.extend(row);
                self.done += 1;
                true
            }
            // The next round finds that it was stopped.
            Ok(None) => true,
            Err(error) => {
                let _ = self.job.reply.send(Err(plugin_error(error)));
                false
            }
        }
    }
}

/// Computes a text and pools the embeddings of its tokens; `None` when it was stopped.
fn embed(
    context: &mut Context,
    batch: &mut Batch,
    sequence: Sequence,
    tokens: &[Token],
    pooling: Pooling,
    stop: &Stop,
) -> Result<Option<Vec<f32>>> {
    // A model that sees the whole text at once gets the whole text at once.
    let chunk = if context.is_causal() && context.has_cache() {
        context.outputs_max().min(context.micro_batch_size() as usize)
    } else {
        tokens.len()
    };
    let mut pooled = vec![0f32; context.model().embedding_size() as usize];
    let mut position = 0;
    for chunk in tokens.chunks(chunk.max(1)) {
        batch.clear();
        for token in chunk {
            batch.add(*token, position, sequence, true);
            position += 1;
        }
        match context.decode(batch, &|| stop.is_set())? {
            Decoded::Done => {}
            Decoded::Aborted => return Ok(None),
            Decoded::Full => {
                return Err(Error::Batch(format!("the cache has no room for {} tokens", tokens.len())));
            }
        }
        let first = position as usize - chunk.len();
        for index in 0..chunk.len() {
            let row = context.embedding(index).unwrap_or_default();
            match pooling {
                Pooling::Mean => pooled.iter_mut().zip(row).for_each(|(p, e)| *p += e / tokens.len() as f32),
                Pooling::Cls if first + index == 0 => pooled.copy_from_slice(row),
                Pooling::Last if first + index + 1 == tokens.len() => pooled.copy_from_slice(row),
                Pooling::Cls | Pooling::Last => {}
            }
        }
    }
    Ok(Some(pooled))
}

/// Scales to length 1; zero stays zero.
fn normalize(row: &mut [f32]) {
    let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_rows_have_length_one() {
        let mut row = [3.0, 4.0];
        normalize(&mut row);
        assert_eq!(row, [0.6, 0.8]);
        let mut zero = [0.0, 0.0];
        normalize(&mut zero);
        assert_eq!(zero, [0.0, 0.0]);
    }
}
