//! Answers as server-sent events: one way for all families, which differ only in what they write.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use pajamas_plugin_api::GenerateSummary;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt, StreamMap};

use super::openai::summary;
use super::stream::{Happened, Piece, Running, route_header, timed_out};
use crate::chat::Part;
use crate::config::Server;
use crate::error::{Error, Result};
use crate::pipeline::Route;

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

/// How a family writes the answers of one stream, which are numbered from 0 in the order of their requests.
pub trait Protocol: Send + 'static {
    /// What comes first.
    fn begin(&mut self, route: &Route) -> Vec<Line>;
    /// A token.
    fn piece(&mut self, answer: usize, piece: &Piece) -> Vec<Line>;
    /// Parts of the answer to a conversation.
    fn parts(&mut self, answer: usize, parts: &[Part]) -> Vec<Line>;
    /// An answer is complete.
    fn end(&mut self, answer: usize, summary: &GenerateSummary) -> Vec<Line>;
    /// The stream breaks, and says why.
    fn fail(&mut self, error: &Error) -> Vec<Line>;
    /// What comes last, after all answers or the failure of one.
    fn close(&mut self) -> Vec<Line> {
        Vec::new()
    }
}

/// Answers requests of one model with one stream. Waits for the first token before it does, so that a request that is
/// refused (an unknown model, a prompt that is too long) gets its status.
///
/// # Errors
/// Those of the requests, until the first token.
pub async fn answer(
    requests: impl IntoIterator<Item = Running>,
    mut protocol: impl Protocol,
    limit: Duration,
    server: &Server,
) -> Result<Response> {
    let deadline = Instant::now() + limit;
    let mut running: StreamMap<usize, Running> = requests.into_iter().enumerate().collect();
    let unrouted = || Error::new("internal", "the request ended before it was routed");
    let mut route = None;
    let first = loop {
        let next = tokio::time::timeout_at(deadline, running.next()).await;
        match next.map_err(|_| timed_out(limit))?.ok_or_else(unrouted)? {
            (_, Happened::Route(chosen)) => route = Some(chosen),
            (answer, Happened::Done(result)) => break (answer, Happened::Done(Box::new(Ok((*result)?)))),
            first => break first,
        }
    };
    let route = route.ok_or_else(unrouted)?;
    let told = route.trace.as_ref().map(|trace| Line::named("route", json!({ "route_trace": trace })));
    let lines = told.into_iter().chain(protocol.begin(&route)).collect();
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

/// Writes until the end, or until the client has gone or takes nothing: then dropping `running` cancels the requests.
async fn forward(
    mut running: StreamMap<usize, Running>,
    first: (usize, Happened),
    mut protocol: impl Protocol,
    mut lines: Vec<Line>,
    sender: mpsc::Sender<Line>,
    limits: Limits,
) {
    let mut happened = Ok(Some(first));
    loop {
        let mut last = false;
        let added = match happened {
            Ok(Some((answer, happened))) => said(&mut protocol, answer, happened),
            Ok(None) => {
                last = true;
                Ok(protocol.close())
            }
            Err(error) => Err(error),
        };
        lines.extend(added.unwrap_or_else(|error| {
            last = true;
            [protocol.fail(&error), protocol.close()].concat()
        }));
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
            next = running.next() => Ok(next),
            () = sender.closed() => return,
            () = tokio::time::sleep_until(limits.deadline) => Err(timed_out(limits.request)),
        };
    }
}

/// What the family writes of it.
fn said(protocol: &mut impl Protocol, answer: usize, happened: Happened) -> Result<Vec<Line>> {
    Ok(match happened {
        Happened::Route(_) => Vec::new(),
        Happened::Token(piece) => protocol.piece(answer, &piece),
        Happened::Parts(parts) => protocol.parts(answer, &parts),
        Happened::Done(result) => protocol.end(answer, summary(&(*result)?.output)?),
    })
}
