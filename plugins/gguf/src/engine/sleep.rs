//! Sleeping: the worker lets its contexts go, caches and buffers with them, and makes new ones when it is needed again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};

use pajamas_llama_cpp::{BufferMemory, Context, HeapTrim};
use pajamas_plugin_api::{Memory, PluginError, Result, Sleeper};

use super::counters::Counters;
use super::draft::{DraftSettings, Drafter};
use super::work::Work;
use super::worker::{End, Worker, cells};
use super::{Order, Settings, ended};
use crate::part::Seed;

/// What an engine's contexts are made of.
pub(crate) struct Source {
    pub main: Seed,
    pub draft: Option<(Seed, DraftSettings)>,
}

/// What an engine computes with.
pub(crate) struct Tools {
    pub context: Context,
    pub drafter: Option<Drafter>,
}

impl Source {
    /// Makes the contexts for so many requests at the same time.
    ///
    /// # Errors
    /// `out-of-memory`; `invalid-option` when llama.cpp cannot compute the model like this.
    pub fn make(&self, slots: u32) -> Result<Tools> {
        let context = self.main.context(slots, None)?;
        let drafter = match &self.draft {
            Some((seed, settings)) => {
                Some(Drafter::new(seed.context(slots, Some(&context))?, &context, settings))
            }
            None => None,
        };
        Ok(Tools { context, drafter })
    }
}

impl Tools {
    /// What the draft model and its context hold, where there is one.
    pub fn draft_memory(&self) -> Option<Vec<BufferMemory>> {
        self.drafter.as_ref().map(Drafter::memory)
    }
}

/// What outlives the contexts.
pub(super) struct Life {
    pub source: Source,
    pub settings: Settings,
    pub orders: Receiver<Order>,
    pub stopping: Arc<AtomicBool>,
    pub asleep: Arc<AtomicBool>,
    pub counters: Arc<Counters>,
}

impl Life {
    /// The cache that there is now is the one of these.
    pub fn counts(&self, tools: &Tools) {
        self.counters.cache_total.store(cells(&tools.context), Ordering::Relaxed);
    }

    /// Works and sleeps by turns, until the queue is closed.
    pub fn live(self, tools: Tools) {
        let mut worker = Worker::new(tools, self.settings.slots, &self);
        loop {
            let next = match worker.run() {
                End::Over => None,
                End::Sleep(reply) => {
                    self.rests();
                    // Who no longer listens needs no answer, here and below.
                    let _ = reply.send(true);
                    self.sleep()
                }
                End::Resize { slots, works, reply } => self.resize(slots, works, &reply),
            };
            match next {
                Some(next) => worker = next,
                None => return,
            }
        }
    }

    /// The contexts are gone.
    pub fn rests(&self) {
        self.counters.cache_total.store(0, Ordering::Relaxed);
        self.counters.cache_used.store(0, Ordering::Relaxed);
        self.asleep.store(true, Ordering::Release);
        drop(HeapTrim::default());
    }

    /// Sleeps until it is woken, or a request comes all the same; `None` at the end.
    pub fn sleep(&self) -> Option<Worker<'_>> {
        loop {
            let order = self.orders.recv().ok()?;
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            match order {
                Order::Sleep(reply) => {
                    let _ = reply.send(true);
                }
                // It wakes with all of them.
                Order::Resize(_, reply) => {
                    let _ = reply.send(Ok(self.settings.slots));
                }
                Order::Work(work) => match self.wake(self.settings.slots) {
                    Ok(mut worker) => {
                        worker.take(work);
                        return Some(worker);
                    }
                    Err(error) => self.refuse(work, error),
                },
                Order::Wake(reply) => match self.wake(self.settings.slots) {
                    Ok(worker) => {
                        let _ = reply.send(Ok(()));
                        return Some(worker);
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                },
            }
        }
    }

    /// Goes on with new contexts.
    ///
    /// # Errors
    /// Those of [`Source::make`]; it sleeps then as before.
    pub fn wake(&self, slots: u32) -> Result<Worker<'_>> {
        let tools = self.source.make(slots)?;
        self.counts(&tools);
        self.counters.slots.store(slots, Ordering::Relaxed);
        self.asleep.store(false, Ordering::Release);
        Ok(Worker::new(tools, slots, self))
    }

    /// Ends a request that waits.
    pub fn refuse(&self, work: Work, error: PluginError) {
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        work.fail(error);
    }
}

/// A worker's queue for whoever does not keep it alive.
pub(super) struct Door(pub(super) Weak<Sender<Order>>);

impl Door {
    /// Gives an order, and waits for its answer.
    ///
    /// # Errors
    /// `session-poisoned` when the worker has ended.
    pub fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        let (reply, answer) = mpsc::channel();
        let queue = self.0.upgrade().ok_or_else(ended)?;
        queue.send(order(reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())
    }
}

/// Where a worker is asked to sleep or to wake, from any thread.
pub(crate) struct Bed {
    pub(super) door: Door,
    /// What is held asleep.
    pub(super) memory: Vec<Memory>,
}

impl Sleeper for Bed {
    fn estimate(&self) -> Vec<Memory> {
        self.memory.clone()
    }

    fn sleep(&self) -> Result<bool> {
        self.door.ask(Order::Sleep)
    }

    fn wake(&self) -> Result<()> {
        self.door.ask(Order::Wake)?
    }
}
