//! Embeddings and scores in progress: one batch at a time, so that generations go on between them.

use std::sync::mpsc::Sender;

use pajamas_llama_cpp::{Batch, Context, Decoded, Error, Pooling, Result, Sequence, Token};
use pajamas_plugin_api::PluginError;

use super::work::{Ticket, Work};
use super::{Embed, Reduce, Stop};
use crate::error::plugin_error;

/// A request to embed texts or to score pairs.
pub(super) struct Embedding {
    pub ticket: Ticket,
    request: Embed,
    reply: Sender<pajamas_plugin_api::Result<Vec<f32>>>,
    /// Inputs computed.
    done: usize,
    rows: Vec<f32>,
}

/// How a step of embedding ended.
pub(super) enum Embedded {
    /// An input more is done, or it was stopped.
    Goes,
    /// All of them are done, or it failed.
    Ended,
    /// The cache has no room for it now.
    Full,
}

impl Embedding {
    /// A new request.
    pub fn new(request: Embed, ticket: Ticket, reply: Sender<pajamas_plugin_api::Result<Vec<f32>>>) -> Self {
        Self { ticket, request, reply, done: 0, rows: Vec::new() }
    }

    /// Ends the request because nobody wants the answer any more.
    pub fn cancel(&self) {
        let _ = self.reply.send(Err(PluginError::cancelled()));
    }

    /// Ends the request with an error.
    pub fn fail(&self, error: PluginError) {
        let _ = self.reply.send(Err(error));
    }

    /// The inputs that are not computed yet.
    fn rest(&self) -> &[Vec<Token>] {
        &self.request.inputs[self.done..]
    }

    /// Takes the result of the next input; `Ended` when it was the last.
    fn take(&mut self, mut row: Vec<f32>) -> Embedded {
        if self.request.normalize && matches!(self.request.reduce, Reduce::Pool(_)) {
            normalize(&mut row);
        }
        self.rows.append(&mut row);
        self.done += 1;
        if self.done < self.request.inputs.len() {
            return Embedded::Goes;
        }
        let _ = self.reply.send(Ok(std::mem::take(&mut self.rows)));
        Embedded::Ended
    }

    /// Computes the next input in a sequence of its own, whose cache must be empty and is again afterwards.
    pub fn advance(&mut self, context: &mut Context, batch: &mut Batch, sequence: Sequence) -> Embedded {
        context.set_embeddings(true);
        let row = self.compute(context, batch, sequence);
        context.set_embeddings(false);
        context.remove(sequence, 0);
        match row {
            Ok((Decoded::Done, row)) => self.take(row),
            // The next round finds that it was stopped.
            Ok((Decoded::Aborted, _)) => Embedded::Goes,
            Ok((Decoded::Full, _)) => Embedded::Full,
            Err(error) => {
                self.fail(plugin_error(error));
                Embedded::Ended
            }
        }
    }

    fn compute(
        &self,
        context: &mut Context,
        batch: &mut Batch,
        sequence: Sequence,
    ) -> Result<(Decoded, Vec<f32>)> {
        let Some(tokens) = self.rest().first() else { return Ok((Decoded::Aborted, Vec::new())) };
        // A model that sees the whole text at once gets the whole text at once.
        let chunk = match context.is_causal() {
            true => context.outputs_max().min(context.micro_batch_size() as usize),
            false => tokens.len(),
        };
        let mut pool = Pool::new(context, tokens.len());
        let mut position = 0;
        for chunk in tokens.chunks(chunk.max(1)) {
            batch.clear();
            for token in chunk {
                batch.add(*token, position, sequence, true);
                position += 1;
            }
            match context.decode(batch, &|| self.ticket.stop.is_set())? {
                Decoded::Done => {}
                other => return Ok((other, Vec::new())),
            }
            pool.add(context, &self.request.reduce, 0, chunk.len());
        }
        Ok((Decoded::Done, pool.finish(context, &self.request.reduce, sequence)))
    }
}

/// Computes inputs of several requests in one batch: for models without a cache, whose sequences see only themselves
/// and leave nothing behind. Returns the requests that ended, by their index.
pub(super) fn advance_together(
    works: &mut [&mut Option<Work>],
    context: &mut Context,
    batch: &mut Batch,
) -> Vec<usize> {
    let (room, sequences) = (context.micro_batch_size() as usize, context.sequences() as usize);
    batch.clear();
    // Which request each sequence is for, where it begins in the batch, and its length.
    let mut parts: Vec<(usize, usize, usize)> = Vec::new();
    let mut stops: Vec<Stop> = Vec::new();
    for (owner, work) in works.iter().enumerate() {
        let Some(Work::Embed(embedding)) = work else { continue };
        for tokens in embedding.rest() {
            if parts.len() == sequences || batch.len() + tokens.len() > room {
                break;
            }
            parts.push((owner, batch.len(), tokens.len()));
            for (position, token) in tokens.iter().enumerate() {
                batch.add(*token, position as u32, (parts.len() - 1) as Sequence, true);
            }
        }
        stops.push(embedding.ticket.stop.clone());
    }
    if batch.is_empty() {
        return Vec::new();
    }
    context.set_embeddings(true);
    let decoded = context.decode(batch, &|| stops.iter().all(Stop::is_set));
    let mut ended = Vec::new();
    match decoded {
        Ok(Decoded::Done) => {
            for (sequence, (owner, first, len)) in parts.into_iter().enumerate() {
                let Some(Work::Embed(embedding)) = &mut *works[owner] else { continue };
                let mut pool = Pool::new(context, len);
                pool.add(context, &embedding.request.reduce, first, len);
                let row = pool.finish(context, &embedding.request.reduce, sequence as Sequence);
                if matches!(embedding.take(row), Embedded::Ended) {
                    ended.push(owner);
                }
            }
        }
        // The next round finds that all were stopped.
        Ok(Decoded::Aborted) => {}
        Ok(Decoded::Full) => ended = fail_all(works, &Error::Batch("the batch has no room".into())),
        Err(error) => ended = fail_all(works, &error),
    }
    context.set_embeddings(false);
    ended
}

/// Ends all of these requests with an error; errors are told apart by their words.
fn fail_all(works: &[&mut Option<Work>], error: &Error) -> Vec<usize> {
    for work in works {
        if let Some(Work::Embed(embedding)) = &**work {
            embedding.fail(plugin_error(Error::Batch(error.to_string())));
        }
    }
    (0..works.len()).collect()
}

/// Reduces the embeddings of a text's tokens, batch by batch, to what was asked for.
struct Pool {
    row: Vec<f32>,
    seen: usize,
    len: usize,
}

impl Pool {
    fn new(context: &Context, len: usize) -> Self {
        Self { row: vec![0f32; context.model().embedding_size() as usize], seen: 0, len }
    }

    /// Takes `count` tokens that lie in the last batch from `first` on.
    fn add(&mut self, context: &mut Context, reduce: &Reduce, first: usize, count: usize) {
        let Reduce::Pool(pooling) = reduce else { return };
        for index in first..first + count {
            let row = context.embedding(index).unwrap_or_default();
            match pooling {
                Pooling::Mean => self.row.iter_mut().zip(row).for_each(|(p, e)| *p += e / self.len as f32),
                Pooling::Cls if self.seen == 0 => self.row.copy_from_slice(row),
                Pooling::Last if self.seen + 1 == self.len => self.row.copy_from_slice(row),
                Pooling::Cls | Pooling::Last => {}
            }
            self.seen += 1;
        }
    }

    /// The result, after the last batch.
    fn finish(self, context: &mut Context, reduce: &Reduce, sequence: Sequence) -> Vec<f32> {
        match reduce {
            Reduce::Pool(_) => self.row,
            Reduce::Score => vec![context.score(sequence).unwrap_or(f32::NAN)],
        }
    }
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
