//! A generation in progress.

use std::time::{Duration, Instant};

use pajamas_llama_cpp::{Context, Error, Model, Token};
use pajamas_plugin_api::{FinishReason, GenerateSummary, Result, Timings, Usage};

use super::logprobs::Likelihood;
use super::text::{Certain, TextStream};
use super::{Generate, GenerateJob, Produced, Reply, Stop};
use crate::error::plugin_error;

/// A request that has a slot.
pub(super) struct Generation {
    job: GenerateJob,
    text: TextStream,
    /// Prompt tokens in the cache.
    fed: usize,
    /// Of these, the ones an earlier request had left there.
    reused: usize,
    /// The last token sampled, not yet in the cache.
    next: Option<Token>,
    produced: u32,
    /// What it has in the batch at hand: how many tokens, and where the one with logits is.
    batched: usize,
    output: Option<usize>,
    admitted: Instant,
    first: Option<Instant>,
}

/// Whether a generation goes on.
pub(super) enum Step {
    Goes,
    Ended,
}

impl Generation {
    /// A request whose first `reused` prompt tokens are in the cache.
    pub fn new(mut job: GenerateJob, reused: usize) -> Self {
        for token in &job.request.prompt {
            job.request.sampler.accept(*token);
        }
        let text = TextStream::new(std::mem::take(&mut job.request.stops));
        Self {
            job,
            text,
            fed: reused,
            reused,
            next: None,
            produced: 0,
            batched: 0,
            output: None,
            admitted: Instant::now(),
            first: None,
        }
    }

    pub fn stop(&self) -> &Stop {
        &self.job.stop
    }

    /// Whether its prompt is not all in the cache.
    pub fn reads_prompt(&self) -> bool {
        self.fed < self.request().prompt.len()
    }

    /// The tokens it wants computed next, at most `room`: the rest of its prompt, or the token sampled last.
    pub fn wanted(&self, room: usize) -> &[Token] {
        if self.reads_prompt() {
            let rest = &self.request().prompt[self.fed..];
            &rest[..rest.len().min(room)]
        } else if room > 0 {
            self.next.as_slice()
        } else {
            &[]
        }
    }

    /// Whether logits are needed after `count` of the wanted tokens.
    pub fn needs_logits_after(&self, count: usize) -> bool {
        self.fed + count >= self.request().prompt.len()
    }

    /// Notes what went into the batch.
    pub fn batched(&mut self, count: usize, output: Option<usize>) {
        (self.batched, self.output) = (count, output);
    }

    /// The tokens that went into the batch, now that they are computed.
    pub fn take_computed(&mut self) -> Vec<Token> {
        let count = std::mem::take(&mut self.batched);
        if self.reads_prompt() {
            let tokens = self.request().prompt[self.fed..self.fed + count].to_vec();
            self.fed += count;
            tokens
        } else {
            self.next.take().into_iter().collect()
        }
    }

    /// Samples the next token, if the batch had logits for this request, and sends it on its way.
    pub fn advance(&mut self, context: &mut Context, model: &Model) -> Step {
        let Some(index) = self.output.take() else { return Step::Goes };
        match self.sample(context, model, index) {
            Ok(step) => step,
            Err(error) => {
                self.fail(error);
                Step::Ended
            }
        }
    }

    fn sample(&mut self, context: &mut Context, model: &Model, index: usize) -> Result<Step, Error> {
        let no_logits = || Error::Batch("llama.cpp gave no logits for a token that asked for them".into());
        let token = self.job.request.sampler.sample(context, index).ok_or_else(no_logits)?;
        self.first.get_or_insert_with(Instant::now);
        let (logprob, extras) = match self.request().logprobs {
            Some(alternatives) => {
                let likelihood = Likelihood::new(context.logits(index).ok_or_else(no_logits)?);
                let extras = match alternatives {
                    0 => String::new(),
                    n => likelihood.top_json(n as usize, model),
                };
                (likelihood.of(token), extras)
            }
            None => (f32::NAN, String::new()),
        };
        if model.is_end(token) && !self.request().ignore_end {
            let text = self.text.flush();
            if !text.is_empty() {
                // What was held back goes out with the end token, which does not count.
                self.send(Produced { id: token as u32, text, logprob, extras });
            }
            self.finish(FinishReason::Stop, None);
            return Ok(Step::Ended);
        }
        self.produced += 1;
        let full = self.produced >= self.request().max_tokens;
        let (text, ending) = match self.text.push(&model.piece(token, false)?) {
            Certain::Stopped { text, stop } => (text, Some((FinishReason::Stop, Some(stop)))),
            Certain::Text(text) if full => (text + &self.text.flush(), Some((FinishReason::Length, None))),
            Certain::Text(text) => (text, None),
        };
        let listening = self.send(Produced { id: token as u32, text, logprob, extras });
        if let Some((reason, stop_string)) = ending {
            self.finish(reason, stop_string);
            return Ok(Step::Ended);
        }
        self.next = Some(token);
        Ok(if listening { Step::Goes } else { Step::Ended })
    }

    /// Ends the request because nobody wants the answer any more.
    pub fn cancel(&mut self) {
        self.finish(FinishReason::Cancelled, None);
    }

    /// Ends the request with an error.
    pub fn fail(&mut self, error: Error) {
        // The caller may be gone.
        let _ = self.job.reply.send(Reply::Done(Err(plugin_error(error))));
    }

    fn send(&self, token: Produced) -> bool {
        self.job.reply.send(Reply::Token(token)).is_ok()
    }

    fn finish(&mut self, finish_reason: FinishReason, stop_string: Option<String>) {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        let timings = Timings {
            queue_ms: milliseconds(self.admitted - self.job.submitted),
            prompt_ms: milliseconds(first - self.admitted),
            decode_ms: milliseconds(now - first),
        };
        self.job.finish(finish_reason, stop_string, (self.produced, self.reused), timings);
    }

    fn request(&self) -> &Generate {
        &self.job.request
    }
}

impl GenerateJob {
    /// Ends a request that never had a slot, because nobody wants the answer any more.
    pub(super) fn cancel(&self) {
        let timings = Timings { queue_ms: milliseconds(self.submitted.elapsed()), ..Timings::default() };
        self.finish(FinishReason::Cancelled, None, (0, 0), timings);
    }

    fn finish(
        &self,
        reason: FinishReason,
        stop: Option<String>,
        (produced, reused): (u32, usize),
        timings: Timings,
    ) {
        let summary = GenerateSummary {
            finish_reason: reason,
            stop_string: stop,
            usage: Usage {
                prompt_tokens: u32::try_from(self.request.prompt.len()).unwrap_or(u32::MAX),
                completion_tokens: produced,
                cached_tokens: u32::try_from(reused).unwrap_or(u32::MAX),
            },
            timings,
        };
        // The caller may be gone.
        let _ = self.reply.send(Reply::Done(Ok(summary)));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
