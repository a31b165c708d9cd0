//! Answers as server-sent events: one way for all families, which differ only in what they write.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{AppendHeaders, IntoResponse, Response};
use pajamas_plugin_api::GenerateSummary;
use serde_json::json;
use tokio::time::{Instant, Sleep};
use tokio_stream::{Stream, StreamExt, StreamMap};

use super::openai::summary;
use super::stream::{Happened, Piece, Running, route_header, timed_out};
use crate::chat::Part;
use crate::error::{Error, Result};
use crate::pipeline::speak::Chunk;
use crate::pipeline::transcribe::Segment;
use crate::pipeline::{Output, Route};

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
    fn piece(&mut self, _answer: usize, _piece: &Piece) -> Vec<Line> {
        Vec::new()
    }
    /// Parts of the answer to a conversation.
    fn parts(&mut self, _answer: usize, _parts: &[Part]) -> Vec<Line> {
        Vec::new()
    }
    /// A stretch of speech was written down.
    fn segment(&mut self, _segment: &Segment) -> Vec<Line> {
        Vec::new()
    }
    /// Some of what is spoken.
    fn sound(&mut self, _chunk: &Chunk) -> Vec<Line> {
        Vec::new()
    }
    /// An answer in text is complete.
    fn end(&mut self, _answer: usize, _summary: &GenerateSummary) -> Vec<Line> {
        Vec::new()
    }
    /// An answer is complete.
    ///
    /// # Errors
    /// When it is none of this family.
    fn finish(&mut self, answer: usize, output: &Output) -> Result<Vec<Line>> {
        Ok(self.end(answer, summary(output)?))
    }
    /// The stream breaks, and says why.
    fn fail(&mut self, error: &Error) -> Vec<Line>;
    /// What comes last, after all answers or the failure of one.
    fn close(&mut self) -> Vec<Line> {
        Vec::new()
    }
}

/// How long the head of an answer waits for the first token. A client that waits longer, as for a load, is told that
/// somebody is there: it and all that lies between would take silence for the end of the connection.
const SILENCE: Duration = Duration::from_secs(3);

/// Answers requests of one model with one stream. Waits for the first token before it does, so that a request that is
/// refused (an unknown model, a prompt that is too long) gets its status; but not longer than [`SILENCE`]: what is
/// refused later is an event of the stream.
///
/// # Errors
/// Those of the requests, until the first token.
pub async fn answer(
    requests: impl IntoIterator<Item = Running>,
    protocol: impl Protocol + Unpin,
    limit: Duration,
) -> Result<Response> {
    let begun = Instant::now();
    let (deadline, patience) = (begun + limit, begun + SILENCE.min(limit));
    let mut events = Events {
        running: requests.into_iter().enumerate().collect(),
        protocol,
        route: None,
        begun: false,
        lines: VecDeque::new(),
        deadline: Box::pin(tokio::time::sleep_until(deadline)),
        limit,
        over: false,
    };
    while !events.begun {
        let Ok(next) = tokio::time::timeout_at(patience, events.running.next()).await else {
            if patience == deadline {
                return Err(timed_out(limit));
            }
            events.lines.push_back(Event::default().comment("waiting"));
            break;
        };
        match next.ok_or_else(|| Error::new("internal", "the request ended before it was answered"))? {
            (answer, Happened::Done(result)) => events.add(answer, Happened::Done(Box::new(Ok((*result)?)))),
            (answer, happened) => events.add(answer, happened),
        }
    }
    let route = events.route.as_deref().map(|route| [("x-pajamas-route", route_header(route))]);
    let sse = Sse::new(events).keep_alive(KeepAlive::default());
    Ok((route.map(AppendHeaders), sse).into_response())
}

/// What is written until the end, or until `limit` is over. A connection that ends, as one does whose client takes
/// nothing, drops it, and dropping `running` cancels the requests.
struct Events<P> {
    running: StreamMap<usize, Running>,
    protocol: P,
    /// The latest: it is told when the answer begins, since a model that cannot be had gives way to another.
    route: Option<Box<Route>>,
    begun: bool,
    lines: VecDeque<Event>,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    over: bool,
}

impl<P: Protocol> Events<P> {
    fn add(&mut self, answer: usize, happened: Happened) {
        match happened {
            Happened::Route(route) if !self.begun => self.route = Some(route),
            happened => {
                if !matches!(&happened, Happened::Done(result) if result.is_err()) {
                    self.begin();
                }
                match said(&mut self.protocol, answer, happened) {
                    Ok(lines) => self.write(lines),
                    Err(error) => self.fail(&error),
                }
            }
        }
    }

    /// Writes what comes before the first token.
    fn begin(&mut self) {
        if let Some(route) = self.route.as_deref().filter(|_| !self.begun) {
            let told =
                route.trace.as_ref().map(|trace| Line::named("route", json!({ "route_trace": trace })));
            let lines: Vec<Line> = told.into_iter().chain(self.protocol.begin(route)).collect();
            self.write(lines);
        }
        self.begun = true;
    }

    fn write(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines.into_iter().map(Event::from));
    }

    fn fail(&mut self, error: &Error) {
        let lines = self.protocol.fail(error);
        self.write(lines);
        self.close();
    }

    fn close(&mut self) {
        let lines = self.protocol.close();
        self.write(lines);
        self.over = true;
        self.running.clear();
    }
}

impl<P: Protocol + Unpin> Stream for Events<P> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Poll::Ready(Some(Ok(line)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some((answer, happened))) => self.add(answer, happened),
                Poll::Ready(None) => self.close(),
                Poll::Pending => {
                    ready!(self.deadline.as_mut().poll(context));
                    let error = timed_out(self.limit);
                    self.fail(&error);
                }
            }
        }
    }
}

/// What the family writes of it.
fn said(protocol: &mut impl Protocol, answer: usize, happened: Happened) -> Result<Vec<Line>> {
    Ok(match happened {
        Happened::Route(_) => Vec::new(),
        Happened::Token(piece) => protocol.piece(answer, &piece),
        Happened::Parts(parts) => protocol.parts(answer, &parts),
        Happened::Segment(segment) => protocol.segment(&segment),
        Happened::Sound(chunk) => protocol.sound(&chunk),
        Happened::Done(result) => protocol.finish(answer, &(*result)?.output)?,
    })
}
