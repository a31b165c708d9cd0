//! A request on a thread of its own, with its events as a stream: the host is synchronous, HTTP is not.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pajamas_plugin_api::Cancel;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;

use super::request_log::Trace;
use crate::chat::Part;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::speak::Chunk;
use crate::pipeline::transcribe::Segment;
use crate::pipeline::{Event, Input, Outcome, Request, Route};

/// What a handler needs of the events, owned.
#[derive(Debug)]
pub enum Happened {
    /// The route was chosen.
    Route(Box<Route>),
    /// A token was generated. Of the answer to a conversation only told to who asked how likely it was.
    Token(Piece),
    /// Parts of the answer to a conversation.
    Parts(Vec<Part>),
    /// A stretch of speech was written down.
    Segment(Box<Segment>),
    /// Some of what is spoken.
    Sound(Chunk),
    /// The end, good or bad: nothing follows.
    Done(Box<Result<Outcome>>),
}

/// A generated token.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The text it adds; may be empty.
    pub text: String,
    /// Its log-probability, when asked for.
    pub logprob: Option<f32>,
    /// JSON with more, when asked for.
    pub extras: String,
}

impl Piece {
    /// The tokens that were likely in its place, with their log-probabilities.
    pub fn alternatives(&self) -> impl Iterator<Item = (String, Value)> + use<> {
        let extras: Value = serde_json::from_str(&self.extras).unwrap_or_default();
        let top = extras["top_logprobs"].as_array().cloned().unwrap_or_default();
        top.into_iter().map(|t| (t["text"].as_str().unwrap_or_default().to_owned(), t["logprob"].clone()))
    }
}

/// A request carried out, with all it said on the way.
#[derive(Debug)]
pub struct Finished {
    /// The tokens.
    pub pieces: Vec<Piece>,
    /// The answer to a conversation.
    pub said: Said,
    /// How it ended.
    pub outcome: Outcome,
}

impl Finished {
    /// The whole text of an answer to a prompt.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }
}

/// An answer to a conversation.
#[derive(Debug, Default)]
pub struct Said {
    /// The words for the user.
    pub content: String,
    /// What the model thought before.
    pub reasoning: String,
    /// What it called: function and arguments, as written.
    pub calls: Vec<(String, String)>,
}

impl Said {
    /// Adds what came.
    pub fn add(&mut self, part: &Part) {
        match part {
            Part::Content(text) => self.content.push_str(text),
            Part::Reasoning(text) => self.reasoning.push_str(text),
            Part::Call { name, .. } => self.calls.push((name.clone(), String::new())),
            Part::Arguments { index, text } => {
                if let Some((_, arguments)) = self.calls.get_mut(*index) {
                    arguments.push_str(text);
                }
            }
        }
    }
}

/// A running request, as the stream of what happens; the last is [`Happened::Done`]. Dropping it, as happens when the
/// client goes away, cancels the request.
pub struct Running {
    events: mpsc::Receiver<Happened>,
    _cancel: CancelOnDrop,
    over: bool,
}

/// Events that may wait for a slow client before the model waits, too.
const BUFFER: usize = 64;

impl Running {
    /// Starts a request.
    pub fn start(host: Arc<Host>, request: Request) -> Self {
        let (sender, events) = mpsc::channel(BUFFER);
        let cancel = CancelOnDrop::default();
        start(host, request, cancel.0.clone(), move |happened| {
            // When nobody listens any more, nobody misses it.
            match sender.blocking_send(happened) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        Self { events, _cancel: cancel, over: false }
    }
}

impl Stream for Running {
    type Item = Happened;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Happened>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.events.poll_recv(context));
        let next = next.unwrap_or_else(|| Happened::Done(Box::new(Err(unanswered()))));
        self.over = matches!(next, Happened::Done(_));
        Poll::Ready(Some(next))
    }
}

/// A running request of which only the end is told: nobody is woken before. Dropping it cancels the request.
pub struct Awaited {
    finished: oneshot::Receiver<Result<Finished>>,
    _cancel: CancelOnDrop,
}

impl Awaited {
    /// Starts a request.
    pub fn start(host: Arc<Host>, request: Request) -> Self {
        let (sender, finished) = oneshot::channel();
        let cancel = CancelOnDrop::default();
        let (mut sender, mut pieces, mut said) = (Some(sender), Vec::new(), Said::default());
        start(host, request, cancel.0.clone(), move |happened| {
            match happened {
                // A transcript has all its segments, and nobody awaits the end of speech.
                Happened::Route(_) | Happened::Segment(_) | Happened::Sound(_) => {}
                Happened::Token(piece) => pieces.push(piece),
                Happened::Parts(parts) => parts.iter().for_each(|part| said.add(part)),
                Happened::Done(result) => {
                    let (pieces, said) = (std::mem::take(&mut pieces), std::mem::take(&mut said));
                    let finished = result.map(|outcome| Finished { pieces, said, outcome });
                    if let Some(sender) = sender.take() {
                        // When nobody waits any more, nobody misses it.
                        let _ = sender.send(finished);
                    }
                }
            }
            ControlFlow::Continue(())
        });
        Self { finished, _cancel: cancel }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The request's; `request-timeout`.
    pub async fn finish(self, limit: Duration) -> Result<Finished> {
        let ended = tokio::time::timeout(limit, self.finished).await.map_err(|_| timed_out(limit))?;
        ended.unwrap_or_else(|_| Err(unanswered()))
    }
}

/// Carries a request out on a thread of its own, and tells what happens there; the last is [`Happened::Done`].
fn start(
    host: Arc<Host>,
    mut request: Request,
    cancel: Cancel,
    mut tell: impl FnMut(Happened) -> ControlFlow<()> + Send + 'static,
) {
    let trace = Trace::current();
    if let Some(trace) = &trace {
        trace.hint(&mut request.params.hints);
    }
    tokio::task::spawn_blocking(move || {
        // A caller from elsewhere names models of the configuration; paths are for whoever sits at the machine.
        let model = request.model.as_deref();
        let known = model.map_or(Ok(()), |name| host.known(name));
        if let Err(error) = known.and_then(|()| host.may_begin(&request)) {
            let _ = tell(Happened::Done(Box::new(Err(error))));
            return;
        }
        let conversation = matches!(request.input, Input::Conversation(_));
        let task = request.task;
        let result = host.run(request, &cancel, &mut |event| {
            match (&trace, &event) {
                (Some(trace), Event::Route(route)) => trace.routed(task, route),
                (Some(trace), Event::Token { .. }) => trace.token(),
                _ => {}
            }
            match event {
                Event::Route(route) => tell(Happened::Route(Box::new(route.clone()))),
                // A token that adds no text matters only to who asked how likely it was.
                Event::Token { text: "", logprob: None, .. } | Event::Loading { .. } => {
                    ControlFlow::Continue(())
                }
                Event::Token { logprob: None, .. } if conversation => ControlFlow::Continue(()),
                Event::Parts(parts) => tell(Happened::Parts(parts.to_vec())),
                Event::Segment(segment) => tell(Happened::Segment(Box::new(segment.clone()))),
                Event::Sound(chunk) => tell(Happened::Sound(chunk.clone())),
                Event::Token { text, logprob, extras, .. } => {
                    tell(Happened::Token(Piece { text: text.to_owned(), logprob, extras: extras.to_owned() }))
                }
            }
        });
        if let Some(trace) = &trace {
            trace.ran(&result);
        }
        let _ = tell(Happened::Done(Box::new(result)));
    });
}

/// Cancels a request of which nobody waits for the end.
#[derive(Default)]
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn unanswered() -> Error {
    Error::new("internal", "the request ended without an answer")
}

/// The request took too long.
pub fn timed_out(limit: Duration) -> Error {
    Error::new("request-timeout", format!("the request took longer than {} s", limit.as_secs_f64()))
        .help("raise the request's `timeout` or `server.request_timeout`, or ask for less")
}

/// Does something that is no request of a pipeline, with a model of the configuration, on a thread that may block.
///
/// # Errors
/// `model-not-found`; those of the work.
pub async fn blocking<T: Send + 'static>(
    host: Arc<Host>,
    model: Option<String>,
    work: impl FnOnce(&Host, Option<&str>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(move || {
        let model = model.as_deref();
        model.map_or(Ok(()), |name| host.known(name))?;
        host.may_begin_text(model)?;
        work(&host, model)
    });
    ended.await.unwrap_or_else(|_| Err(Error::new("internal", "the request's thread ended early")))
}

/// The `x-pajamas-route` header: what the answer came from.
pub fn route_header(route: &Route) -> String {
    let Route { model, backend, device, format, by, .. } = route;
    let mut words = format!("model={model}; backend={backend}; device={device}; format={format}; by={by}");
    let more = [
        ("remote", route.remote.clone().unwrap_or_default()),
        ("rule", route.rule.clone().unwrap_or_default()),
        ("in-place-of", route.degraded_from.clone().unwrap_or_default()),
        ("degraded", route.degraded.join(",")),
        ("breaks", route.breaks.join(",")),
    ];
    for (name, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
        words += &format!("; {name}={value}");
    }
    words.replace(|c: char| !(' '..='~').contains(&c), "?")
}
