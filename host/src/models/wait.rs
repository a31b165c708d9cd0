//! Requests that wait for their turn: each on a bell of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pajamas_plugin_api::{Cancel, ProgressSink};

use super::Lease;
use super::fleet::Event;
use super::load::Recipe;
use super::loaded::Loaded;
use super::store::Models;
use crate::error::{Error, Result};

/// What a waiting request is told in the end.
pub(super) enum Answer {
    /// Its session.
    Session(Arc<Loaded>),
    /// The model became another one.
    Again,
    /// Why not.
    Refused(Error),
}

/// A waiting request, as the store knows it.
pub(super) struct Waiter {
    pub(super) model: String,
    /// How the model is loaded, should that be for this request.
    pub(super) recipe: Arc<Recipe>,
    pub(super) cancel: Cancel,
    news: Mutex<News>,
    bell: Condvar,
}

#[derive(Default)]
struct News {
    /// The latest; what nobody took is replaced.
    progress: Option<(f32, String)>,
    answer: Option<Answer>,
}

impl Waiter {
    pub(super) fn new(model: &str, recipe: Arc<Recipe>, cancel: &Cancel) -> Self {
        Self {
            model: model.to_owned(),
            recipe,
            cancel: cancel.clone(),
            news: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.news().answer = Some(answer);
        self.bell.notify_one();
    }

    pub(super) fn progress(&self, fraction: f32, message: &str) {
        self.news().progress = Some((fraction, message.to_owned()));
        self.bell.notify_one();
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to know next.
    fn next(&self) -> News {
        let mut news = self.news();
        loop {
            if news.answer.is_some() || news.progress.is_some() {
                return std::mem::take(&mut *news);
            }
            news = self.bell.wait(news).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A request's wait. However it ends, nothing of it stays in line.
pub(super) struct Wait<'m> {
    pub(super) models: &'m Arc<Models>,
    pub(super) ticket: u64,
    pub(super) waiter: Arc<Waiter>,
    pub(super) over: bool,
}

impl Wait<'_> {
    /// Waits for the answer, and passes on meanwhile how far the load is.
    pub(super) fn finish(mut self, progress: &mut dyn ProgressSink) -> Result<Option<Lease>> {
        loop {
            let news = self.waiter.next();
            if let Some(answer) = news.answer {
                self.over = true;
                return match answer {
                    Answer::Session(model) => Ok(Some(Lease { model, models: Arc::clone(self.models) })),
                    Answer::Again => Ok(None),
                    Answer::Refused(error) => Err(error),
                };
            }
            if let Some((fraction, message)) = news.progress
                && progress.progress(fraction, &message).is_break()
            {
                // The answer that comes now is the refusal, or a session that came first.
                self.models.tell(Event::Cancelled { ticket: self.ticket });
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Whoever waited is unwinding. Told once more is told for nothing; a session that came is given back.
        self.models.tell(Event::Cancelled { ticket: self.ticket });
        if let Some(Answer::Session(model)) = self.waiter.news().answer.take() {
            drop(Lease { model, models: Arc::clone(self.models) });
        }
    }
}
