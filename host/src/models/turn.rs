//! Putting sessions to sleep, waking them and changing their slots, each on a thread of its own as loads are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::{Session, Sleep, Slots};

use super::fleet::{Bytes, Event, by_device};
use super::loaded::Loaded;
use super::store::Models;
use crate::error::{Error, Result};

/// Which way a session is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Sleep,
    Wake,
    Resize(u32),
}

impl Turn {
    /// Turns a session, and tells how that ended.
    pub(super) fn run(self, models: &Arc<Models>, loaded: Arc<Loaded>) {
        let session = loaded.number;
        let end = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Sleep => fall_asleep(&loaded),
            Self::Wake => wake(&loaded),
            Self::Resize(slots) => resize(&loaded, slots),
        }));
        let end = end.unwrap_or_else(|_| {
            Err(Error::new("internal", "putting it to sleep, waking it or changing its slots panicked"))
        });
        let event = end.unwrap_or_else(|error| {
            let (model, code) = (&loaded.id, error.code());
            let what = match self {
                Self::Sleep => "fall asleep",
                Self::Wake => "wake",
                Self::Resize(_) => "change its slots",
            };
            tracing::error!(model, code, "it does not {what}, and is unloaded: {}", error.message());
            Event::Failed { session, error }
        });
        // What is told may free it: that is not to be left to this thread.
        drop(loaded);
        models.tell(event);
        models.settle();
    }
}

/// What a session would hold asleep; `None` when it cannot sleep, or holds nothing but weights.
pub(super) fn asleep(session: &dyn Session) -> Option<Bytes> {
    let asleep = by_device(&Sleep::of(session)?.estimate().ok()?);
    (asleep != by_device(&session.usage())).then_some(asleep)
}

/// How many slots a session has, and what each of them holds; `None` when it cannot do with fewer, or that would bring nothing.
pub(super) fn slots(session: &dyn Session) -> Option<(u32, Bytes)> {
    let info = Slots::of(session)?.describe().ok()?;
    let each = by_device(&info.each);
    (info.slots > 1 && each.values().any(|bytes| *bytes > 0)).then_some((info.slots, each))
}

fn fall_asleep(loaded: &Loaded) -> Result<Event> {
    let session = loaded.number;
    Ok(match sleep_of(loaded)?.sleep()? {
        true => {
            tracing::info!(model = loaded.id, "sleeps: others need the room");
            Event::Slept { session, bytes: by_device(&loaded.session.usage()) }
        }
        false => Event::Restless { session },
    })
}

fn wake(loaded: &Loaded) -> Result<Event> {
    let begun = Instant::now();
    sleep_of(loaded)?.wake()?;
    let took = begun.elapsed();
    tracing::info!(model = loaded.id, "awake after {took:.0?}");
    Ok(Event::Woken { session: loaded.number, bytes: by_device(&loaded.session.usage()), took })
}

fn resize(loaded: &Loaded, wanted: u32) -> Result<Event> {
    let slots = Slots::of(&*loaded.session).ok_or_else(|| {
        Error::new("plugin-protocol", format!("`{}` cannot change its slots any more", loaded.id))
    })?;
    let slots = slots.resize(wanted)?;
    tracing::info!(model = loaded.id, wanted, slots, "goes on with another number of slots");
    Ok(Event::Resized { session: loaded.number, slots, bytes: by_device(&loaded.session.usage()) })
}

fn sleep_of(loaded: &Loaded) -> Result<Sleep> {
    Sleep::of(&*loaded.session)
        .ok_or_else(|| Error::new("plugin-protocol", format!("`{}` cannot sleep any more", loaded.id)))
}
