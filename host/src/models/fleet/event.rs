//! What happens to the models of a host, and what has to be done about it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config;
use crate::error::Error;
use crate::models::status::Change;

/// Bytes by device.
pub type Bytes = BTreeMap<String, u64>;

/// How long a model stays in memory after its last request, as a request wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So long; nothing is at once.
    For(Duration),
    /// Until others need the room.
    Always,
}

/// What happens. Sessions and tickets are numbers that only grow: a session's is given with [`Effect::Begin`], a ticket's
/// by who asks.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody wants to use a model.
    Asked {
        /// What the answer is told to.
        ticket: u64,
        /// The model.
        model: String,
        /// Of the configuration that the request was made from.
        generation: u64,
        /// How long it stays after, from now on.
        keep: Option<Keep>,
    },
    /// Who has this ticket waits no longer.
    Cancelled {
        /// The ticket.
        ticket: u64,
    },
    /// What loading needs is known.
    Estimated {
        /// The session to be.
        session: u64,
        /// What it would hold.
        bytes: Bytes,
    },
    /// The session that is loaded now, whose end is told next, can sleep.
    CanSleep {
        /// The session to be.
        session: u64,
        /// What it would hold asleep.
        bytes: Bytes,
    },
    /// The session that is loaded now, whose end is told next, can go on with fewer slots.
    CanResize {
        /// The session to be.
        session: u64,
        /// How many it will have.
        slots: u32,
        /// What each of them holds.
        each: Bytes,
    },
    /// A load ended well.
    Loaded {
        /// The session.
        session: u64,
        /// What it says it holds.
        bytes: Bytes,
        /// How long loading took.
        took: Duration,
        /// What the devices were measured to hold more than before.
        grew: Bytes,
    },
    /// A session sleeps.
    Slept {
        /// The session.
        session: u64,
        /// What it says it holds.
        bytes: Bytes,
    },
    /// A session that was to sleep stays awake: it has work that nobody here knows of.
    Restless {
        /// The session.
        session: u64,
    },
    /// A session is awake again.
    Woken {
        /// The session.
        session: u64,
        /// What it says it holds.
        bytes: Bytes,
        /// How long waking took.
        took: Duration,
    },
    /// A session goes on with another number of slots, or with as many as before.
    Resized {
        /// The session.
        session: u64,
        /// How many it has.
        slots: u32,
        /// What it says it holds.
        bytes: Bytes,
    },
    /// An estimate, a load, falling asleep, waking or changing slots ended badly, or a load was stopped.
    Failed {
        /// The session that is not to be, or no more.
        session: u64,
        /// Why.
        error: Error,
    },
    /// A request is done with its session.
    Left {
        /// The session.
        session: u64,
    },
    /// A session is of no use any more.
    Broke {
        /// The session.
        session: u64,
        /// How that showed.
        error: Error,
    },
    /// A session's memory is free again.
    Unloaded {
        /// The session.
        session: u64,
        /// What the devices were measured to hold less than before.
        back: Bytes,
        /// What is free on the devices now, where they can be asked.
        free: Bytes,
    },
    /// Nobody needs this model for now.
    Unload {
        /// The model.
        model: String,
    },
    /// These are other models from this generation of the configuration on.
    Outdate {
        /// The models.
        models: Vec<String>,
        /// The generation.
        generation: u64,
    },
    /// Earlier failures of a model count no more.
    Forgive {
        /// The model.
        model: String,
    },
    /// A model stays when others need room, or no longer.
    Pin {
        /// The model.
        model: String,
        /// Whether it stays.
        pinned: bool,
    },
    /// How long models stay after their last request; others stay until room is needed.
    Ttl {
        /// By model.
        ttls: BTreeMap<String, Duration>,
    },
    /// Other limits of memory.
    Limit {
        /// The limits.
        memory: config::Memory,
    },
    /// A device has so much memory in all.
    Device {
        /// Its id.
        device: String,
        /// Bytes.
        total: u64,
    },
    /// The devices were asked what of their memory nobody holds.
    Report {
        /// Bytes of each that answered.
        free: Bytes,
    },
    /// Time went by.
    Tick,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Find out what a model needs, by the order of who has the ticket. Ends with [`Event::Estimated`] or
    /// [`Event::Failed`].
    Begin {
        /// The session to be.
        session: u64,
        /// Whose order it is.
        ticket: u64,
    },
    /// The memory is reserved: load. Ends with [`Event::Loaded`] or [`Event::Failed`]; may come once more after that.
    Load {
        /// The session to be.
        session: u64,
    },
    /// This load goes no further. What of it runs is cancelled, and its end is told; what waits is forgotten.
    Stop {
        /// The session that is not to be.
        session: u64,
    },
    /// Put a session to sleep that nobody uses: it keeps its weights. Ends with [`Event::Slept`], [`Event::Restless`] or
    /// [`Event::Failed`]. Comes only for sessions of which [`Event::CanSleep`] was told.
    Sleep {
        /// The session.
        session: u64,
    },
    /// The memory is reserved: wake a session that sleeps. Ends with [`Event::Woken`] or [`Event::Failed`].
    Wake {
        /// The session.
        session: u64,
    },
    /// Have a session, in use or not, go on with so many slots. Ends with [`Event::Resized`] or [`Event::Failed`]. Comes only for
    /// sessions of which [`Event::CanResize`] was told.
    Resize {
        /// The session.
        session: u64,
        /// How many.
        slots: u32,
    },
    /// Free a session that nobody uses. Ends with [`Event::Unloaded`].
    Unload {
        /// The session.
        session: u64,
    },
    /// The ticket's turn: the session is used from now on, until [`Event::Left`].
    Grant {
        /// The ticket.
        ticket: u64,
        /// The session.
        session: u64,
    },
    /// The ticket gets no session.
    Refuse {
        /// The ticket.
        ticket: u64,
        /// Why.
        error: Error,
    },
    /// The model became another one: who has the ticket asks again, under the new configuration.
    Again {
        /// The ticket.
        ticket: u64,
    },
    /// A model's state is another.
    Tell(Change),
    /// For the second time in a row much less memory came back than a model had taken.
    Leaked {
        /// The model.
        model: String,
        /// Where.
        device: String,
        /// Bytes that it had taken.
        took: u64,
        /// Bytes that came back.
        back: u64,
    },
}
