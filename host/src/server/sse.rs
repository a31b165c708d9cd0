//! Answers as server-sent events: one way for all families, which differ only in what they write.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::stream::{Happened, Piece, Running, route_header, timed_out};
use crate::chat::Part;
use crate::config::Server;
use crate::error::{Error, Result};
use crate::pipeline::{Outcome, Route};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    event: Option<&'static str>,
    data: String,
}

impl Line {
    /// An event without a name, as OpenAI's older families write them.
    pub fn data(data: impl ToString) -> Self {
        Self { event: None, data: data.to_string() }
    }

    /// An event with a name.
    pub fn named(event: &'static str, data: impl ToString) -> Self {
        Self { event: Some(event), data: data.to_string() }
    }
}

impl From<Line> for Event {
    fn from(line: Line) -> Self {
        let event = Self::default().data(line.data);
        match line.event {
            Some(name) => event.event(name),
            None => event,
        }
    }
}

/// How a family writes an answer.
pub trait Protocol: Send + 'static {
    /// What comes first.
    fn begin(&mut self, route: &Route) -> Vec<Line>;
    /// A token.
    fn piece(&mut self, piece: &Piece) -> Vec<Line>;
    /// Parts of the answer to a conversation.
    fn parts(&mut self, parts: &[Part]) -> Vec<Line>;
    /// What comes last. A stream that breaks says why.
    fn end(&mut self, result: Result<Outcome>) -> Vec<Line>;
}

/// Answers with a stream. Waits for the first token before it does, so that a request that is refused (an unknown model,
/// a prompt that is too long) gets its status.
///
/// # Errors
/// Those of the request, until its first token.
pub async fn answer(
    mut running: Running,
    mut protocol: impl Protocol,
    limit: Duration,
    server: &Server,
) -> Result<Response> {
    let deadline = Instant::now() + limit;
    let mut route = None;
    let first = loop {
        let next = tokio::time::timeout_at(deadline, running.next()).await;
        match next.map_err(|_| timed_out(limit))? {
            Happened::Route(chosen) => route = Some(chosen),
            Happened::Done(result) => break Happened::Done(Box::new(Ok((*result)?))),
            first @ (Happened::Token(_) | Happened::Parts(_)) => break first,
        }
    };
    let route = route.ok_or_else(|| Error::new("internal", "the request ended before it was routed"))?;
    let lines = protocol.begin(&route);
    let (sender, receiver) = mpsc::channel(1);
    let limits = Limits { deadline, request: limit, client: server.client_timeout.duration() };
    tokio::spawn(forward(running, first, protocol, lines, sender, limits));
    let events = ReceiverStream::new(receiver).map(|line| Ok::<_, Infallible>(Event::from(line)));
    let sse = Sse::new(events).keep_alive(KeepAlive::default());
    Ok(([("x-pajamas-route", route_header(&route))], sse).into_response())
}

#[derive(Clone, Copy)]
struct Limits {
    deadline: Instant,
    request: Duration,
    client: Duration,
}

/// Writes until the end, or until the client has gone or takes nothing: then dropping `running` cancels the request.
async fn forward(
    mut running: Running,
    mut happened: Happened,
    mut protocol: impl Protocol,
    mut lines: Vec<Line>,
    sender: mpsc::Sender<Line>,
    limits: Limits,
) {
    loop {
        let last = matches!(happened, Happened::Done(_));
        match happened {
            Happened::Route(_) => {}
            Happened::Token(piece) => lines.extend(protocol.piece(&piece)),
            Happened::Parts(parts) => lines.extend(protocol.parts(&parts)),
            Happened::Done(result) => lines.extend(protocol.end(*result)),
        }
        for line in lines.drain(..) {
            match tokio::time::timeout(limits.client, sender.send(line)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!(
                        code = "client-too-slow",
                        "a client took nothing of its stream: it is cut"
                    );
                    return;
                }
            }
        }
        if last {
            return;
        }
        happened = tokio::select! {
            next = running.next() => next,
            () = sender.closed() => return,
            () = tokio::time::sleep_until(limits.deadline) => {
                Happened::Done(Box::new(Err(timed_out(limits.request))))
            }
        };
    }
}
