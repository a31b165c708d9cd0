//! Loading a model on a thread of its own: whoever asked for it may leave, and nobody waits for anything but its end.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

use pajamas_plugin_api::{Backend, Cancel, LoadRequest, Memory};

use super::fleet::{Bytes, Event, by_device};
use super::loaded::{End, Loaded};
use super::store::{Models, Order};
use super::turn;
use crate::error::{Error, Result};

/// A file of templates is text for people: what is larger is something else.
const MOST_TEMPLATE: u64 = 1 << 20;

/// All that is needed to load a model.
pub(super) struct Recipe {
    id: String,
    runner: Arc<dyn Backend>,
    backend: String,
    device: String,
    /// The device's memory, as its backend says; 0 when it does not.
    reported: u64,
    isolated: bool,
    request: LoadRequest,
    chat_template: Option<PathBuf>,
}

impl Recipe {
    pub(super) fn of(order: &Order<'_>) -> Result<Self> {
        let Order { id, choice, request, isolation, chat_template, .. } = *order;
        Ok(Self {
            id: id.to_owned(),
            runner: Arc::clone(choice.backend.runner(isolation)?),
            backend: choice.backend.full_id(),
            device: choice.device.map_or_else(|| request.device.clone(), |d| d.id.clone()),
            reported: choice.device.map_or(0, |d| d.memory_total),
            isolated: choice.backend.isolates(isolation),
            request: request.clone(),
            chat_template: chat_template.map(Path::to_path_buf),
        })
    }

    fn within(&self, error: impl Into<Error>) -> Error {
        error.into().within(format_args!("model `{}`", self.id))
    }
}

/// One load, which the store knows by its session's number.
pub(super) struct Load {
    pub(super) models: Arc<Models>,
    pub(super) session: u64,
    pub(super) recipe: Arc<Recipe>,
    pub(super) cancel: Cancel,
    /// Says that the memory is there; ended when the load goes no further.
    pub(super) go: mpsc::Receiver<()>,
}

impl Load {
    /// Finds out what is needed, waits for the memory, loads.
    pub(super) fn run(self) {
        let ended = Ended(&self);
        let known = self.template().and_then(|template| Ok((template, self.estimate()?)));
        let template = match known {
            Ok((template, memory)) => {
                self.tell_needs(&memory);
                template
            }
            Err(error) => return ended.badly(error),
        };
        while self.go.recv().is_ok() {
            let before = self.held();
            match self.load(template.clone()) {
                Ok(loaded) => return self.tell_loaded(loaded, &before),
                Err(error) => ended.badly(error),
            }
        }
    }

    fn estimate(&self) -> Result<Vec<Memory>> {
        self.recipe.runner.estimate(&self.recipe.request).map_err(|error| self.recipe.within(error))
    }

    /// Tells what is needed, and before that what the devices have.
    fn tell_needs(&self, memory: &[Memory]) {
        let Recipe { device, reported, .. } = &*self.recipe;
        for memory in memory {
            self.models.expect(&memory.device, if memory.device == *device { *reported } else { 0 });
        }
        self.models.report();
        self.models.tell(Event::Estimated { session: self.session, bytes: by_device(memory) });
    }

    fn tell_loaded(&self, loaded: Loaded, before: &Bytes) {
        let now = self.models.gauge.held(before.keys());
        let more = |(device, before): (&String, &u64)| {
            Some((device.clone(), now.get(device)?.saturating_sub(*before)))
        };
        let session = self.session;
        let asleep = turn::asleep(&*loaded.session).map(|bytes| Event::CanSleep { session, bytes });
        let slots = turn::slots(&*loaded.session);
        let slots = slots.map(|(slots, each)| Event::CanResize { session, slots, each });
        let event = Event::Loaded {
            session,
            bytes: by_device(&loaded.session.usage()),
            took: loaded.load_time,
            grew: before.iter().filter_map(more).collect(),
        };
        self.models.loaded_is(loaded, asleep.into_iter().chain(slots).chain([event]));
    }

    /// What the devices hold before. A process of its own gives all of it back, and holds it elsewhere.
    fn held(&self) -> Bytes {
        let here = |device: &&String| !(self.recipe.isolated && device.as_str() == "cpu");
        self.models.gauge.held(Some(&self.recipe.device).filter(here))
    }

    fn template(&self) -> Result<Option<String>> {
        self.recipe.chat_template.as_deref().map(template).transpose()
    }

    fn load(&self, template: Option<String>) -> Result<Loaded> {
        let Recipe { id, backend, device, isolated, .. } = &*self.recipe;
        let started = Instant::now();
        let mut progress = |fraction: f32, message: &str| {
            self.models.progress(id, fraction, message);
            if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let session = self.recipe.runner.load(&self.recipe.request, &mut progress, &self.cancel);
        let session = session.map_err(|error| self.recipe.within(error))?;
        let load_time = started.elapsed();
        tracing::info!(model = id, backend, device, "loaded in {load_time:.0?}");
        let mut signature = session.signature();
        if let (Some(text), Some(template)) = (&mut signature.text, template) {
            text.chat_template = Some(template);
        }
        Ok(Loaded {
            id: id.clone(),
            backend: backend.clone(),
            device: device.clone(),
            signature,
            session,
            isolated: *isolated,
            load_time,
            number: self.session,
            end: End { models: Arc::downgrade(&self.models), session: self.session, before: OnceLock::new() },
        })
    }
}

/// Whatever ends a load, who waits for it hears that.
struct Ended<'l>(&'l Load);

impl Ended<'_> {
    fn badly(&self, error: Error) {
        self.0.models.tell(Event::Failed { session: self.0.session, error });
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.badly(Error::new("internal", format!("loading `{}` panicked", self.0.recipe.id)));
        }
        self.0.models.ended(self.0.session);
    }
}

fn template(file: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(MOST_TEMPLATE + 1).read_to_string(&mut text)?;
        match text.len() as u64 {
            ..=MOST_TEMPLATE => Ok(text),
            _ => {
                Err(io::Error::other(format!("it is no template: those have {MOST_TEMPLATE} bytes at most")))
            }
        }
    };
    read().map_err(|e| Error::io(file, &e))
}
