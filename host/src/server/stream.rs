//! A request on a thread of its own, with its events as a stream: the host is synchronous, HTTP is not.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use pajamas_plugin_api::Cancel;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Event, Outcome, Request, Route};

/// What a handler needs of the events, owned.
#[derive(Debug)]
pub enum Happened {
    /// The route was chosen.
    Route(Box<Route>),
    /// Text was generated.
    Text(String),
    /// The end, good or bad: nothing follows.
    Done(Box<Result<Outcome>>),
}

/// A running request. Dropping it, as happens when the client goes away, cancels it.
pub struct Running {
    events: mpsc::Receiver<Happened>,
    cancel: Cancel,
}

/// Events that may wait for a slow client before the model waits, too.
const BUFFER: usize = 64;

impl Running {
    /// Starts a request.
    pub fn start(host: Arc<Host>, request: Request) -> Self {
        let (sender, events) = mpsc::channel(BUFFER);
        let cancel = Cancel::new();
        let flag = cancel.clone();
        tokio::task::spawn_blocking(move || {
            let tell = |happened| match sender.blocking_send(happened) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            // A caller from elsewhere names models of the configuration; paths are for whoever sits at the machine.
            if let Some(Err(error)) = request.model.as_deref().map(|id| host.configured(id)) {
                let _ = tell(Happened::Done(Box::new(Err(error))));
                return;
            }
            let result = host.run(request, &flag, &mut |event| match event {
                Event::Route(route) => tell(Happened::Route(Box::new(route.clone()))),
                Event::Token { text, .. } if !text.is_empty() => tell(Happened::Text(text.to_owned())),
                Event::Token { .. } | Event::Loading { .. } => ControlFlow::Continue(()),
            });
            // When nobody listens any more, nobody misses the end.
            let _ = tell(Happened::Done(Box::new(result)));
        });
        Self { events, cancel }
    }

    /// The next event; the last one is [`Happened::Done`].
    pub async fn next(&mut self) -> Happened {
        self.events.recv().await.unwrap_or_else(|| {
            Happened::Done(Box::new(Err(Error::new("internal", "the request ended without an answer"))))
        })
    }

    /// Waits for the end and gives the text, if any, with the outcome.
    ///
    /// # Errors
    /// The request's; `request-timeout`.
    pub async fn finish(mut self, limit: Duration) -> Result<(String, Outcome)> {
        let whole = async {
            let mut text = String::new();
            loop {
                match self.next().await {
                    Happened::Route(_) => {}
                    Happened::Text(piece) => text.push_str(&piece),
                    Happened::Done(result) => return result.map(|outcome| (text, outcome)),
                }
            }
        };
        tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| {
            Err(Error::new("request-timeout", format!("the request took longer than {} s", limit.as_secs()))
                .help("raise `server.request_timeout`, or ask for less"))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The `x-pajamas-route` header: what the answer came from.
pub fn route_header(route: &Route) -> String {
    format!(
        "model={}; backend={}; device={}; format={}",
        route.model, route.backend, route.device, route.format
    )
    .replace(|c: char| !(' '..='~').contains(&c), "?")
}
