//! Running windows of tokens through a model and looking at its logits: what measuring a model is made of.

use std::sync::Arc;

use crate::{Batch, Context, ContextParams, Decoded, Error, Model, Result, Token, Watch};

/// The most tokens that are computed at once.
const MOST_TOKENS: usize = 512;
/// Bytes of logits that a window holds at a time: large vocabularies get fewer rows.
const LOGITS_BYTES: usize = 64 << 20;
/// The fewest rows, however large the vocabulary.
const FEWEST_TOKENS: usize = 32;

/// A context that computes one window of tokens after the other, each from an empty cache, a few tokens at a time.
///
/// Two of them, over two models, can be advanced side by side and compared without keeping more than one step's logits
/// of each.
pub struct Windows {
    context: Context,
    batch: Batch,
    step: usize,
    /// Tokens of the window that were computed.
    at: u32,
}

impl Windows {
    /// Windows of at most `length` tokens, computed on so many threads.
    ///
    /// # Errors
    /// As for [`Context::new`].
    pub fn new(model: Arc<Model>, length: u32, threads: u32) -> Result<Self> {
        Self::of(model, length, threads, false)
    }

    /// The same, whose operations can be watched ([`advance_watched`](Self::advance_watched)).
    ///
    /// # Errors
    /// As for [`Context::new`].
    pub fn watched(model: Arc<Model>, length: u32, threads: u32) -> Result<Self> {
        Self::of(model, length, threads, true)
    }

    fn of(model: Arc<Model>, length: u32, threads: u32, watched: bool) -> Result<Self> {
        let row = (model.vocab_size().max(1) as usize) * size_of::<f32>();
        let most = MOST_TOKENS.min(length.max(1) as usize);
        let step = (LOGITS_BYTES / row).max(FEWEST_TOKENS).min(most);
        let params = ContextParams {
            context_length: length.max(1),
            batch_size: most as u32,
            micro_batch_size: most as u32,
            outputs: step as u32,
            threads,
            threads_batch: threads,
            watched,
            ..ContextParams::default()
        };
        Ok(Self { context: Context::new(model, &params)?, batch: Batch::new(), step, at: 0 })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.context.model()
    }

    /// The most tokens of which [`advance`](Self::advance) gives logits at a time.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Begins a window: what was computed before is forgotten.
    pub fn begin(&mut self) {
        self.context.remove(0, 0);
        self.at = 0;
    }

    /// Computes tokens that come next in the window, without looking at what the model makes of them.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub fn skip(&mut self, tokens: &[Token], abort: &(dyn Fn() -> bool + Sync)) -> Result<()> {
        tokens
            .chunks(self.context.batch_size() as usize)
            .try_for_each(|some| self.compute(some, false, abort, None))
    }

    /// Computes tokens that come next in the window, at most [`step`](Self::step) of them, and returns the logits after
    /// each: as many rows as tokens, each as long as the vocabulary.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once `abort` says so; [`Error::Batch`] beyond the window's length or the step; those of
    /// [`Context::decode`].
    pub fn advance(&mut self, tokens: &[Token], abort: &(dyn Fn() -> bool + Sync)) -> Result<&[f32]> {
        self.compute(tokens, true, abort, None)?;
        self.logits()
    }

    /// As [`advance`](Self::advance), while `watch` looks.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance); [`Error::Batch`] when it was not made to be [`watched`](Self::watched).
    pub fn advance_watched(
        &mut self,
        tokens: &[Token],
        abort: &(dyn Fn() -> bool + Sync),
        watch: &mut dyn Watch,
    ) -> Result<&[f32]> {
        self.compute(tokens, true, abort, Some(watch))?;
        self.logits()
    }

    fn logits(&mut self) -> Result<&[f32]> {
        let rows = self.context.all_logits();
        rows.ok_or_else(|| Error::Batch("the batch has no logits".into()))
    }

    fn compute(
        &mut self,
        tokens: &[Token],
        outputs: bool,
        abort: &(dyn Fn() -> bool + Sync),
        watch: Option<&mut dyn Watch>,
    ) -> Result<()> {
        self.batch.clear();
        for (at, token) in (self.at..).zip(tokens) {
            self.batch.add(*token, at, 0, outputs);
        }
        let decoded = match watch {
            Some(watch) => self.context.decode_watched(&mut self.batch, abort, watch)?,
            None => self.context.decode(&mut self.batch, abort)?,
        };
        match decoded {
            Decoded::Done => {
                self.at += tokens.len() as u32;
                Ok(())
            }
            Decoded::Aborted => Err(Error::Cancelled),
            Decoded::Full => {
                Err(Error::Batch(format!("{} tokens do not fit the window", self.at as usize + tokens.len())))
            }
        }
    }
}
