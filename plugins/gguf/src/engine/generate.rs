//! A generation: waiting, running, or thrown back into the queue.

use std::ops::{ControlFlow, Range};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pajamas_llama_cpp::{Context, Model, Token};
use pajamas_plugin_api::{FinishReason, GenerateSummary, PluginError, Result, Timings, Usage, codes};

use super::choice::{self, Choice};
use super::logprobs::Likelihood;
use super::text::{Certain, TextStream};
use super::work::Ticket;
use super::{Generate, Produced, Reply};
use crate::error::plugin_error;

/// A request to generate, with all that it needs to go on: whatever is in the cache can be computed again.
pub(super) struct Generation {
    pub ticket: Ticket,
    request: Generate,
    reply: Sender<Reply>,
    text: TextStream,
    /// The prompt, then what was generated.
    tokens: Vec<Token>,
    /// How many of them are in the cache.
    fed: usize,
    /// Tokens of the prompt.
    prompt: usize,
    /// Prompt tokens that an earlier request had left in the cache.
    reused: usize,
    produced: u32,
    /// How it may go on: computed with the next token, and kept as far as it is what would have been chosen anyway.
    draft: Vec<Token>,
    /// What it has in the batch at hand: how many tokens, the draft not counted, and the indices of those with logits.
    batched: usize,
    outputs: Range<usize>,
    submitted: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
}

/// Whether a generation goes on.
pub(super) type Step = ControlFlow<()>;

/// What came of a batch.
pub(super) struct Advanced {
    /// The tokens of the generation that are now in the cache.
    pub computed: Vec<Token>,
    /// Tokens of the draft in the batch, and how many of them are among those. The others are still in the cache.
    pub drafted: usize,
    pub accepted: usize,
    pub step: Step,
}

impl Generation {
    /// A new request. Called by the caller: what takes long for a long prompt is done before the queue.
    pub fn new(mut request: Generate, ticket: Ticket, reply: Sender<Reply>) -> Self {
        let tokens = std::mem::take(&mut request.prompt);
        for token in &tokens {
            request.sampler.accept(*token);
        }
        let text = TextStream::new(std::mem::take(&mut request.stops));
        Self {
            ticket,
            request,
            reply,
            text,
            fed: 0,
            prompt: tokens.len(),
            tokens,
            reused: 0,
            produced: 0,
            draft: Vec::new(),
            batched: 0,
            outputs: 0..0,
            submitted: Instant::now(),
            admitted: None,
            first: None,
        }
    }

    /// Gives it a place in which its first `reused` tokens are.
    pub fn admit(&mut self, reused: usize) {
        self.fed = reused;
        if self.admitted.is_none() {
            self.admitted = Some(Instant::now());
            self.reused = reused;
        }
    }

    /// Takes its place away.
    pub fn preempt(&mut self) {
        (self.fed, self.batched, self.outputs) = (0, 0, 0..0);
        self.draft.clear();
    }

    /// Whether it never had a place before.
    pub fn is_new(&self) -> bool {
        self.admitted.is_none()
    }

    /// All tokens that it has: those that must be in the cache before the next one can be chosen.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// Whether more is missing in the cache than the token chosen last.
    pub fn reads(&self) -> bool {
        self.fed < self.prompt || self.fed + 1 < self.tokens.len()
    }

    /// Takes a guess how it goes on.
    pub fn propose(&mut self, draft: Vec<Token>) {
        self.draft = draft;
    }

    /// Whether there is a guess.
    pub fn has_draft(&self) -> bool {
        !self.draft.is_empty()
    }

    /// Gives the guess up; whether there was one.
    pub fn drop_draft(&mut self) -> bool {
        !std::mem::take(&mut self.draft).is_empty()
    }

    /// How many tokens it wants computed next.
    pub fn wanted(&self) -> usize {
        self.tokens.len() - self.fed + self.draft.len()
    }

    /// Those tokens.
    pub fn next_tokens(&self) -> impl Iterator<Item = Token> {
        self.tokens[self.fed..].iter().chain(&self.draft).copied()
    }

    /// Whether logits are needed after `count` of the wanted tokens.
    pub fn needs_logits_after(&self, count: usize) -> bool {
        self.fed + count >= self.tokens.len()
    }

    /// Notes what went into the batch.
    pub fn batched(&mut self, count: usize, outputs: Range<usize>) {
        self.batched = count.min(self.tokens.len() - self.fed);
        self.draft.truncate(count - self.batched);
        self.outputs = outputs;
    }

    /// Takes what the batch computed: chooses the next token if there are logits for it, and as many more as the draft
    /// foresaw. All of them go on their way.
    pub fn advance(&mut self, context: &mut Context, model: &Model) -> Advanced {
        let start = self.fed;
        self.fed += std::mem::take(&mut self.batched);
        let certain = self.fed;
        let draft = std::mem::take(&mut self.draft);
        let mut step = Step::Continue(());
        for (i, index) in std::mem::take(&mut self.outputs).enumerate() {
            step = self.choose(context, model, index).unwrap_or_else(|error| {
                self.fail(error);
                Step::Break(())
            });
            // What comes after was computed for the drafted token.
            if step.is_break() || draft.get(i) != self.tokens.last() {
                break;
            }
            self.fed += 1;
        }
        Advanced {
            computed: self.tokens[start..self.fed].to_vec(),
            drafted: draft.len(),
            accepted: self.fed - certain,
            step,
        }
    }

    fn choose(&mut self, context: &mut Context, model: &Model, index: usize) -> Result<Step> {
        // Taken before anything changes them: log-probabilities are the model's own.
        let logits = match self.request.logprobs {
            Some(_) => Some(context.logits(index).ok_or_else(no_logits)?.to_vec()),
            None => None,
        };
        let choice = choice::choose(&mut self.request, context, model, index)?;
        self.first.get_or_insert_with(Instant::now);
        let Choice::Token { token, last } = choice else {
            self.end();
            return Ok(Step::Break(()));
        };
        let (logprob, extras) = match &logits {
            Some(logits) => self.likelihood(logits, token, model),
            None => (f32::NAN, String::new()),
        };
        if model.is_end(token) && (!self.request.ignore_end || self.request.guide.is_some()) {
            let text = self.text.flush();
            if !text.is_empty() {
                // What was held back goes out with the end token, which does not count.
                self.send(Produced { id: token as u32, text, logprob, extras });
            }
            self.finish(FinishReason::Stop, None);
            return Ok(Step::Break(()));
        }
        self.produced += 1;
        let full = self.produced >= self.request.max_tokens;
        let piece = model.piece(token, self.request.special).map_err(plugin_error)?;
        let (text, ending) = match self.text.push(&piece) {
            Certain::Stopped { text, stop } => (text, Some((FinishReason::Stop, Some(stop)))),
            Certain::Text(text) if last => (text + &self.text.flush(), Some((FinishReason::Stop, None))),
            Certain::Text(text) if full => (text + &self.text.flush(), Some((FinishReason::Length, None))),
            Certain::Text(text) => (text, None),
        };
        let listening = self.send(Produced { id: token as u32, text, logprob, extras });
        if let Some((reason, stop_string)) = ending {
            self.finish(reason, stop_string);
            return Ok(Step::Break(()));
        }
        self.tokens.push(token);
        Ok(if listening { Step::Continue(()) } else { Step::Break(()) })
    }

    /// Ends the answer where the grammar does. Bytes held back were part of a character that never came whole.
    fn end(&mut self) {
        self.finish(FinishReason::Stop, None);
    }

    /// A token's log-probability, and the alternatives that were asked for.
    fn likelihood(&self, logits: &[f32], token: Token, model: &Model) -> (f32, String) {
        let likelihood = Likelihood::new(logits);
        let extras = match self.request.logprobs {
            Some(n) if n > 0 => likelihood.top_json(n as usize, model),
            _ => String::new(),
        };
        (likelihood.of(token), extras)
    }

    /// Tokens that may still be generated.
    pub fn left(&self) -> usize {
        (self.request.max_tokens - self.produced) as usize
    }

    /// Tokens generated so far.
    pub fn produced(&self) -> usize {
        self.produced as usize
    }

    /// Ends the request because nobody wants the answer any more.
    pub fn cancel(&mut self) {
        self.finish(FinishReason::Cancelled, None);
    }

    /// Ends the request with an error.
    pub fn fail(&mut self, error: PluginError) {
        // The caller may be gone.
        let _ = self.reply.send(Reply::Done(Err(error)));
    }

    fn send(&self, token: Produced) -> bool {
        self.reply.send(Reply::Token(token)).is_ok()
    }

    fn finish(&mut self, finish_reason: FinishReason, stop_string: Option<String>) {
        let now = Instant::now();
        let admitted = self.admitted.unwrap_or(now);
        // Without a place there was no prompt to compute.
        let first = self.first.unwrap_or(now);
        let summary = GenerateSummary {
            finish_reason,
            stop_string,
            usage: Usage {
                prompt_tokens: u32::try_from(self.prompt).unwrap_or(u32::MAX),
                completion_tokens: self.produced,
                cached_tokens: u32::try_from(self.reused).unwrap_or(u32::MAX),
            },
            timings: Timings {
                queue_ms: milliseconds(admitted - self.submitted),
                prompt_ms: milliseconds(first - admitted),
                decode_ms: milliseconds(now - first),
            },
        };
        // The caller may be gone.
        let _ = self.reply.send(Reply::Done(Ok(summary)));
    }
}

pub(super) fn no_logits() -> PluginError {
    PluginError::new(codes::INTERNAL, "llama.cpp gave no logits for a token that asked for them")
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
