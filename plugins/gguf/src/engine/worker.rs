//! The thread that computes.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, TryRecvError};

use pajamas_llama_cpp::{Batch, Context, Decoded, Error, Model};
use pajamas_plugin_api::{PluginError, Result, codes};

use super::admission;
use super::counters::Counters;
use super::draft::{Drafter, Limits};
use super::embed::{self, Embedded};
use super::fill;
use super::generate::Advanced;
use super::queue::Queue;
use super::sleep::{Life, Tools};
use super::slot::Slot;
use super::work::Work;
use super::{Order, Stop};
use crate::error::plugin_error;

/// Owns the context; lives on one thread.
pub(super) struct Worker<'l> {
    life: &'l Life,
    context: Context,
    model: Arc<Model>,
    drafter: Option<Drafter>,
    slots: Vec<Slot>,
    queue: Queue,
    batch: Batch,
    /// Whether idle slots between busy ones may compute a token for nothing: see [`fill::gaps`].
    pads: bool,
    /// Rounds so far: the time of this thread.
    round: u64,
}

/// Why a worker works no more.
pub(super) enum End {
    /// The engine ends.
    Over,
    /// It is to sleep; who wants that is told when it does.
    Sleep(Sender<bool>),
    /// Another is to go on with what is in work, in so many slots.
    Resize { slots: u32, works: Vec<Work>, reply: Sender<Result<u32>> },
}

impl<'l> Worker<'l> {
    /// One with a slot for each sequence of its context, for generation.
    pub fn new(Tools { context, drafter }: Tools, slots: u32, life: &'l Life) -> Self {
        let slots = (0..slots).map(|s| Slot::new(s as i32)).collect();
        let model = Arc::clone(context.model());
        // A padding token must leave no trace: no state advanced, nothing pushed out of a window.
        let pads = !context.is_unified() && !model.is_recurrent() && model.sliding_window() == 0;
        let (queue, batch) = (Queue::default(), Batch::new());
        Self { life, context, model, drafter, slots, queue, batch, pads, round: 0 }
    }

    /// Takes a request that has come.
    pub fn take(&mut self, work: Work) {
        self.queue.push(work);
    }

    /// Serves requests until the queue is closed, it is to sleep, or another goes on; then its contexts are free.
    pub fn run(mut self) -> End {
        loop {
            if let ControlFlow::Break(end) = self.receive() {
                return end;
            }
            self.round += 1;
            self.drop_stopped();
            self.admit();
            self.count();
            self.draft();
            self.compute();
            self.embed();
        }
    }

    /// Takes what has come, and waits for it while there is nothing to do.
    fn receive(&mut self) -> ControlFlow<End> {
        if self.is_idle() {
            self.count();
            match self.life.orders.recv() {
                Ok(order) => self.obey(order)?,
                Err(_) => return ControlFlow::Break(End::Over),
            }
        }
        loop {
            match self.life.orders.try_recv() {
                Ok(order) => self.obey(order)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(End::Over),
            }
        }
        match self.life.stopping.load(Ordering::Acquire) {
            true => ControlFlow::Break(End::Over),
            false => ControlFlow::Continue(()),
        }
    }

    /// Whether nothing is in work and nothing waits.
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.slots.iter().all(|s| s.work.is_none())
    }

    fn obey(&mut self, order: Order) -> ControlFlow<End> {
        match order {
            Order::Work(work) => self.take(work),
            Order::Sleep(reply) if self.is_idle() => return ControlFlow::Break(End::Sleep(reply)),
            // Who no longer listens needs no answer.
            Order::Sleep(reply) => {
                let _ = reply.send(false);
            }
            Order::Wake(reply) => {
                let _ = reply.send(Ok(()));
            }
            Order::Resize(wanted, reply) => {
                let busy = self.slots.iter().filter(|s| s.work.is_some()).count() as u32;
                let slots = wanted.max(busy).clamp(1, self.life.settings.slots);
                if slots as usize != self.slots.len() {
                    return ControlFlow::Break(End::Resize { slots, works: self.give_up_all(), reply });
                }
                let _ = reply.send(Ok(slots));
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes all that is in work or waits out of this worker's hands; what the cache has of it is to be computed again.
    fn give_up_all(&mut self) -> Vec<Work> {
        let running = self.slots.iter_mut().filter_map(|slot| slot.work.take());
        let mut works: Vec<Work> = running
            .map(|mut work| {
                if let Work::Generate(generation) = &mut work {
                    generation.preempt();
                    Counters::add(&self.life.counters.preempted, 1);
                }
                self.life.counters.waiting.fetch_add(1, Ordering::Relaxed);
                work
            })
            .collect();
        works.extend(std::iter::from_fn(|| self.queue.pop()));
        works
    }

    /// Ends requests that nobody wants any more, running or waiting.
    fn drop_stopped(&mut self) {
        let running = self.slots.iter_mut().filter_map(|slot| slot.work.take_if(|work| work.stop().is_set()));
        let mut stopped: Vec<Work> = running.collect();
        let waiting = self.queue.take_stopped();
        self.life.counters.waiting.fetch_sub(waiting.len() as u32, Ordering::Relaxed);
        stopped.extend(waiting);
        for mut work in stopped {
            work.cancel();
            Counters::add(&self.life.counters.cancelled, 1);
        }
    }

    /// Gives free slots to waiting requests, the first in rank first. Who does not fit the cache waits, and who comes
    /// after waits too: nobody is overtaken for ever.
    fn admit(&mut self) {
        while self.slots.iter().any(|s| s.work.is_none())
            && self.queue.first().is_some_and(|work| admission::fits(work, &self.slots, &self.context))
        {
            let Some(mut work) = self.queue.pop() else { return };
            self.life.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            let tokens = match &work {
                Work::Generate(generation) => generation.tokens(),
                Work::Embed(_) => &[],
            };
            let mode = self.life.settings.prompt_cache;
            let Some((index, reused)) = admission::place(tokens, &mut self.slots, &mut self.context, mode)
            else {
                return;
            };
            if let Work::Generate(generation) = &mut work {
                if generation.is_new() {
                    Counters::add(&self.life.counters.prompt, generation.prompt_len());
                    Counters::add(&self.life.counters.cached, reused);
                }
                generation.admit(reused);
            }
            self.slots[index].work = Some(work);
            self.slots[index].used = self.round;
        }
    }

    /// Publishes what callers may ask about.
    fn count(&self) {
        let busy = self.slots.iter().filter(|s| s.work.is_some()).count();
        let used: usize = self.slots.iter().map(Slot::own).sum();
        self.life.counters.busy.store(busy as u32, Ordering::Relaxed);
        self.life.counters.cache_used.store((used as u64).min(cells(&self.context)), Ordering::Relaxed);
    }

    /// Lets the small model, if there is one, write ahead.
    fn draft(&mut self) {
        let Some(drafter) = &mut self.drafter else { return };
        let limits = Limits {
            capacity: self.context.batch_size() as usize,
            prompt_chunk: self.life.settings.prompt_chunk as usize,
        };
        let stopping = &self.life.stopping;
        drafter.propose(&mut self.slots, &limits, &|| stopping.load(Ordering::Relaxed));
    }

    /// Gives up what was written ahead; `false` when there is nothing of it.
    fn drop_drafts(&mut self) -> bool {
        let mut any = false;
        for slot in &mut self.slots {
            if let Some(Work::Generate(generation)) = &mut slot.work {
                any |= generation.drop_draft();
            }
        }
        any
    }

    /// Computes one batch for all generations: a token each for those that write, prompt tokens in what room is left.
    fn compute(&mut self) {
        loop {
            let capacity = self.context.batch_size() as usize;
            let shares = fill::shares(&self.slots, capacity, self.life.settings.prompt_chunk as usize);
            let padding = self.padding(&shares);
            let stops = fill::fill(&mut self.batch, &mut self.slots, &shares, &padding);
            if self.batch.is_empty() {
                return;
            }
            let stopping = &self.life.stopping;
            let abort = || stopping.load(Ordering::Relaxed) || stops.iter().all(Stop::is_set);
            let decoded = self.context.decode(&mut self.batch, &abort);
            for index in padding {
                self.slots[index].trim(&mut self.context);
            }
            match decoded {
                Ok(Decoded::Done) => return self.advance(stops.len() == 1),
                // Every request of the batch was stopped: the next round tells them.
                Ok(Decoded::Aborted) => {
                    return self.slots.iter_mut().for_each(|slot| slot.trim(&mut self.context));
                }
                Ok(Decoded::Full) if self.drop_drafts() || self.make_room(true) => {}
                Ok(Decoded::Full) => {
                    let what = format!("the cache has no room for a batch of {} tokens", self.batch.len());
                    return self.fail(&PluginError::new(codes::INTERNAL, what));
                }
                Err(error) => return self.fail(&plugin_error(error)),
            }
        }
    }

    /// The idle slots that get a token for nothing.
    fn padding(&self, shares: &[usize]) -> Vec<usize> {
        // Beside drafts it would be a pass more: sequences are cut into equal lengths.
        let drafted = self.slots.iter().any(|s| matches!(&s.work, Some(Work::Generate(g)) if g.has_draft()));
        let mut gaps = if self.pads && !drafted { fill::gaps(shares) } else { Vec::new() };
        let end = self.context.sequence_length() as usize;
        gaps.retain(|index| self.slots[*index].len() < end);
        let room = self.context.batch_size() as usize - shares.iter().sum::<usize>();
        gaps.truncate(room);
        gaps
    }

    /// Frees a part of the cache: what a finished request left, the oldest first; then the place of the youngest
    /// generation, as long as another request keeps one. `false` when there is nothing to free.
    fn make_room(&mut self, keep_one: bool) -> bool {
        let idle = self.slots.iter_mut().filter(|s| s.work.is_none() && s.len() > 0).min_by_key(|s| s.used);
        if let Some(slot) = idle {
            slot.forget(&mut self.context);
            return true;
        }
        let generates = |slot: &Slot| matches!(slot.work, Some(Work::Generate(_)));
        if keep_one && self.slots.iter().filter(|s| generates(s)).count() < 2 {
            return false;
        }
        let running = self.slots.iter_mut().filter(|s| generates(s));
        let Some(slot) = running.min_by_key(|s| s.work.as_ref().map(Work::rank)) else { return false };
        let Some(Work::Generate(mut generation)) = slot.work.take() else { return false };
        slot.forget(&mut self.context);
        generation.preempt();
        self.queue.push(Work::Generate(generation));
        self.life.counters.waiting.fetch_add(1, Ordering::Relaxed);
        Counters::add(&self.life.counters.preempted, 1);
        true
    }

    /// Notes what was computed, and lets each generation take its next token.
    fn advance(&mut self, alone: bool) {
        Counters::add(&self.life.counters.batches, 1);
        let micro_batch = self.context.micro_batch_size() as usize;
        for slot in &mut self.slots {
            let Some(Work::Generate(generation)) = &mut slot.work else { continue };
            let alone = alone && generation.reads();
            let before = generation.produced();
            let Advanced { computed, drafted, accepted, step } =
                generation.advance(&mut self.context, &self.model);
            Counters::add(&self.life.counters.generated, generation.produced() - before);
            Counters::add(&self.life.counters.drafted, drafted);
            Counters::add(&self.life.counters.accepted, accepted);
            slot.computed(&computed, alone, micro_batch);
            if accepted < drafted {
                slot.trim(&mut self.context);
            }
            slot.used = self.round;
            if step.is_break() {
                slot.work = None;
            }
        }
    }

    /// Computes one input of each embedding request, or all that fit a batch where inputs leave nothing in a cache.
    fn embed(&mut self) {
        if !self.context.has_cache() {
            let mut works: Vec<&mut Option<Work>> = self.slots.iter_mut().map(|s| &mut s.work).collect();
            let ended = embed::advance_together(&mut works, &mut self.context, &mut self.batch);
            for index in ended {
                *works[index] = None;
            }
            Counters::add(&self.life.counters.batches, usize::from(!self.batch.is_empty()));
            return;
        }
        for index in 0..self.slots.len() {
            while matches!(self.embed_next(index), Some(Embedded::Full)) {
                if !self.make_room(false) {
                    let what = Error::Batch("the cache has no room for the text".into());
                    if let Some(Work::Embed(embedding)) = self.slots[index].work.take() {
                        embedding.fail(plugin_error(what));
                    }
                }
            }
        }
    }

    /// Computes the next input of a slot's embedding request; `None` when it has none.
    fn embed_next(&mut self, index: usize) -> Option<Embedded> {
        let slot = &mut self.slots[index];
        let Some(Work::Embed(embedding)) = &mut slot.work else { return None };
        let embedded = embedding.advance(&mut self.context, &mut self.batch, slot.sequence);
        if matches!(embedded, Embedded::Ended) {
            slot.work = None;
        }
        Some(embedded)
    }

    /// Ends all generations with an error.
    fn fail(&mut self, error: &PluginError) {
        for slot in &mut self.slots {
            if let Some(Work::Generate(generation)) = &mut slot.work {
                generation.fail(error.clone());
                slot.work = None;
            }
        }
        // What of a batch that failed is in the cache is unknown.
        for slot in self.slots.iter_mut().filter(|slot| slot.work.is_none()) {
            slot.forget(&mut self.context);
        }
    }
}

/// Tokens the cache has room for.
pub(super) fn cells(context: &Context) -> u64 {
    if context.has_cache() { u64::from(context.cache_length()) } else { 0 }
}
