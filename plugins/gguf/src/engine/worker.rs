//! The thread that computes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use pajamas_llama_cpp::{Batch, Context, Decoded, Error, Model, Token};
use pajamas_plugin_api::PluginError;

use super::embed::Embedding;
use super::generate::{Generation, Step};
use super::slot::{Slot, Work};
use super::{EmbedJob, GenerateJob, Job, Settings, Stop};

/// Owns the context; lives on one thread.
pub(super) struct Worker {
    context: Context,
    model: Arc<Model>,
    settings: Settings,
    slots: Vec<Slot>,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    batch: Batch,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    pub fn new(context: Context, settings: Settings, jobs: Receiver<Job>, stopping: Arc<AtomicBool>) -> Self {
        let slots = (0..settings.slots).map(|s| Slot::new(s as i32)).collect();
        let model = Arc::clone(context.model());
        Self {
            context,
            model,
            settings,
            slots,
            jobs,
            waiting: VecDeque::new(),
            batch: Batch::new(),
            stopping,
        }
    }

    /// Serves jobs until the queue is closed.
    pub fn run(mut self) {
        while self.receive() {
            self.drop_stopped();
            self.admit();
            self.compute();
            self.embed();
        }
    }

    /// Takes what is in the queue, and waits for it while there is nothing to do; `false` at the end.
    fn receive(&mut self) -> bool {
        if self.waiting.is_empty() && self.slots.iter().all(|s| s.work.is_none()) {
            match self.jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        !self.stopping.load(Ordering::Acquire)
    }

    /// Ends requests that nobody wants any more, running or waiting.
    fn drop_stopped(&mut self) {
        for slot in &mut self.slots {
            let stopped = match &mut slot.work {
                Some(Work::Generate(generation)) if generation.stop().is_set() => {
                    generation.cancel();
                    true
                }
                Some(Work::Embed(embedding)) if embedding.stop().is_set() => {
                    embedding.cancel();
                    true
                }
                _ => false,
            };
            if stopped {
                slot.work = None;
            }
        }
        self.waiting.retain(|job| {
            let stopped = job.stop().is_set();
            if stopped {
                job.cancel();
            }
            !stopped
        });
    }

    /// Gives free slots to waiting jobs, first come, first served.
    fn admit(&mut self) {
        while self.slots.iter().any(|s| s.work.is_none()) {
            match self.waiting.pop_front() {
                Some(Job::Generate(job)) => self.admit_generation(*job),
                Some(Job::Embed(job)) => self.admit_embedding(job),
                None => return,
            }
        }
    }

    /// Chooses the free slot whose cache saves most.
    fn admit_generation(&mut self, job: GenerateJob) {
        let micro_batch = self.context.micro_batch_size() as usize;
        let mode = self.settings.prompt_cache;
        let best = self
            .slots
            .iter_mut()
            .filter(|s| s.work.is_none())
            .map(|s| (s.reusable(&job.request.prompt, mode, micro_batch), s))
            .max_by_key(|(reusable, _)| *reusable);
        if let Some((reusable, slot)) = best {
            let reused = slot.rewind(&mut self.context, reusable);
            slot.work = Some(Work::Generate(Box::new(Generation::new(job, reused))));
        }
    }

    fn admit_embedding(&mut self, job: EmbedJob) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.work.is_none()) {
            slot.forget(&mut self.context);
            slot.work = Some(Work::Embed(Embedding::new(job)));
        }
    }

    /// Computes one batch for all generations: a token each for those that write, prompt tokens in what room is left.
    fn compute(&mut self) {
        let stops = self.fill_batch();
        if self.batch.is_empty() {
            return;
        }
        let stopping = &self.stopping;
        let abort = || stopping.load(Ordering::Relaxed) || stops.iter().all(Stop::is_set);
        match self.context.decode(&mut self.batch, &abort) {
            Ok(Decoded::Done) => self.advance(stops.len() == 1),
            // Every request of the batch was stopped: the next round tells them.
            Ok(Decoded::Aborted) => {
                self.forget(|work| matches!(work, Some(Work::Generate(g)) if g.stop().is_set()))
            }
            Ok(Decoded::Full) => {
                let what = format!("the cache has no room for a batch of {} tokens", self.batch.len());
                self.fail(|| Error::Batch(what.clone()));
            }
            Err(error) => {
                let what = error.to_string();
                let mut error = Some(error);
                self.fail(|| error.take().unwrap_or_else(|| Error::Batch(what.clone())));
            }
        }
    }

    /// Fills the batch and returns the flags of the requests in it.
    fn fill_batch(&mut self) -> Vec<Stop> {
        self.batch.clear();
        let capacity = self.context.batch_size() as usize;
        let mut stops = Vec::with_capacity(self.slots.len());
        for prompts in [false, true] {
            for slot in &mut self.slots {
                let (position, sequence) = (slot.position(), slot.sequence);
                let Some(Work::Generate(generation)) = &mut slot.work else { continue };
                if generation.reads_prompt() != prompts {
                    continue;
                }
                let tokens = generation.wanted(capacity - self.batch.len());
                let count = tokens.len();
                let logits = generation.needs_logits_after(count);
                let mut output = None;
                for (i, token) in tokens.iter().enumerate() {
                    let last = logits && i + 1 == count;
                    let index = self.batch.add(*token, position + i as u32, sequence, last);
                    output = last.then_some(index);
                }
                generation.batched(count, output);
                if count > 0 {
                    stops.push(generation.stop().clone());
                }
            }
        }
        stops
    }

    /// Notes what was computed, and lets each generation take its next token.
    fn advance(&mut self, alone: bool) {
        let micro_batch = self.context.micro_batch_size() as usize;
        for slot in &mut self.slots {
            let Some(Work::Generate(generation)) = &mut slot.work else { continue };
            let prompt = generation.reads_prompt();
            let tokens: Vec<Token> = generation.take_computed();
            let step = generation.advance(&mut self.context, &self.model);
            slot.computed(&tokens, alone && prompt, micro_batch);
            if matches!(step, Step::Ended) {
                slot.work = None;
            }
        }
    }

    /// Embeds one input of each embedding request.
    fn embed(&mut self) {
        for slot in &mut self.slots {
            if let Some(Work::Embed(embedding)) = &mut slot.work
                && !embedding.advance(&mut self.context, &mut self.batch, slot.sequence)
            {
                slot.work = None;
            }
        }
    }

    /// Ends all generations with an error.
    fn fail(&mut self, mut error: impl FnMut() -> Error) {
        for slot in &mut self.slots {
            if let Some(Work::Generate(generation)) = &mut slot.work {
                generation.fail(error());
                slot.work = None;
            }
        }
        self.forget(|work| work.is_none());
    }

    /// Empties the cache of slots: what of a batch that was not completed is in it is unknown.
    fn forget(&mut self, which: impl Fn(&Option<Work>) -> bool) {
        for slot in self.slots.iter_mut().filter(|s| which(&s.work)) {
            slot.forget(&mut self.context);
        }
    }
}

impl Job {
    fn stop(&self) -> &Stop {
        match self {
            Job::Generate(job) => &job.stop,
            Job::Embed(job) => &job.stop,
        }
    }

    /// Ends a job that never had a slot.
    fn cancel(&self) {
        match self {
            Job::Generate(job) => job.cancel(),
            Job::Embed(job) => {
                let _ = job.reply.send(Err(PluginError::cancelled()));
            }
        }
    }
}
