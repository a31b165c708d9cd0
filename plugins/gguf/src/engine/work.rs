//! What a slot can be doing, as the worker sees it.

use std::cmp::Reverse;

use pajamas_plugin_api::PluginError;

use super::Stop;
use super::embed::Embedding;
use super::generate::Generation;
use super::queue::Rank;

/// A request, waiting or running.
pub(super) enum Work {
    Generate(Box<Generation>),
    Embed(Box<Embedding>),
}

/// What any request has.
pub(super) struct Ticket {
    /// Its number in the order of arrival.
    pub number: u64,
    pub priority: i32,
    pub stop: Stop,
}

impl Work {
    fn ticket(&self) -> &Ticket {
        match self {
            Work::Generate(generation) => &generation.ticket,
            Work::Embed(embedding) => &embedding.ticket,
        }
    }

    /// Its place in the queue.
    pub fn rank(&self) -> Rank {
        let ticket = self.ticket();
        (ticket.priority, Reverse(ticket.number))
    }

    pub fn stop(&self) -> &Stop {
        &self.ticket().stop
    }

    /// Ends the request with an error.
    pub fn fail(self, error: PluginError) {
        match self {
            Work::Generate(mut generation) => generation.fail(error),
            Work::Embed(embedding) => embedding.fail(error),
        }
    }

    /// Ends the request because nobody wants the answer any more.
    pub fn cancel(&mut self) {
        match self {
            Work::Generate(generation) => generation.cancel(),
            Work::Embed(embedding) => embedding.cancel(),
        }
    }
}
