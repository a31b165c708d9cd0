//! Putting sessions to sleep and waking them, each on a thread of its own as loads are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::{Session, Sleep};

use super::fleet::{Bytes, Event, by_device};
use super::loaded::Loaded;
use super::store::Models;
use crate::error::{Error, Result};

/// Which way a session is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Sleep,
    Wake,
}

impl Turn {
    /// Turns a session, and tells how that ended.
    pub(super) fn run(self, models: &Arc<Models>, loaded: Arc<Loaded>) {
        let session = loaded.number;
        let end = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Sleep => fall_asleep(&loaded),
            Self::Wake => wake(&loaded),
        }));
        let end =
            end.unwrap_or_else(|_| Err(Error::new("internal", "putting it to sleep or waking it panicked")));
        let event = end.unwrap_or_else(|error| {
            let (model, code) = (&loaded.id, error.code());
            let what = if self == Self::Sleep { "fall asleep" } else { "wake" };
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

fn sleep_of(loaded: &Loaded) -> Result<Sleep> {
    Sleep::of(&*loaded.session)
        .ok_or_else(|| Error::new("plugin-protocol", format!("`{}` cannot sleep any more", loaded.id)))
}
