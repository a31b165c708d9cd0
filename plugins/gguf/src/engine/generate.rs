//! A generation: waiting, running, or thrown back into the queue.

use std::ops::ControlFlow;
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
    /// What it has in the batch at hand: how many tokens, and the index of the one with logits.
    batched: usize,
    output: Option<usize>,
    submitted: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
}

/// Whether a generation goes on.
pub(super) type Step = ControlFlow<()>;

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
            batched: 0,
            output: None,
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
        (self.fed, self.batched, self.output) = (0, 0, None);
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

    /// The tokens it wants computed next, at most `room`.
    pub fn wanted(&self, room: usize) -> &[Token] {
        let rest = &self.tokens[self.fed..];
        &rest[..rest.len().min(room)]
    }

    /// Whether logits are needed after `count` of the wanted tokens.
    pub fn needs_logits_after(&self, count: usize) -> bool {
        self.fed + count == self.tokens.len()
    }

    /// Notes what went into the batch.
    pub fn batched(&mut self, count: usize, output: Option<usize>) {
        (self.batched, self.output) = (count, output);
    }

    /// The tokens that went into the batch, now that they are computed.
    pub fn take_computed(&mut self) -> &[Token] {
        let start = self.fed;
        self.fed += std::mem::take(&mut self.batched);
        &self.tokens[start..self.fed]
    }

    /// Chooses the next token, if the batch had logits for this request, and sends it on its way.
    pub fn advance(&mut self, context: &mut Context, model: &Model) -> Step {
        let Some(index) = self.output.take() else { return Step::Continue(()) };
        match self.choose(context, model, index) {
            Ok(step) => step,
            Err(error) => {
                self.fail(error);
                Step::Break(())
            }
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
