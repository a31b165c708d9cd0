//! The request log: what became of each request, told to whoever watches.
//!
//! An entry is made when a request begins and told when nothing of it is left: after the last token of a stream, not
//! when its answer began. Watchers are told over a channel of bounded length; who reads slowly loses the oldest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::{Context, KeyValue};
use pajamas_plugin_api::FinishReason;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::telemetry::{self, Telemetry};
use crate::config::Task;
use crate::error::Result;
use crate::pipeline::{Hints, Outcome, Output, Route};

/// Entries that are kept for who begins to watch, and that may wait for a slow watcher.
const KEPT: usize = 100;

tokio::task_local! {
    /// The request that this task answers.
    static CURRENT: Arc<Trace>;
}

/// One entry, as it is told.
pub type Told = Arc<Value>;

/// The name of an event, and what is told.
pub type Event = (&'static str, Told);

/// The latest requests, and those who watch.
#[derive(Debug)]
pub struct RequestLog {
    kept: Mutex<Kept>,
    /// Where spans of requests go, when they go anywhere.
    telemetry: Option<Arc<Telemetry>>,
}

#[derive(Debug)]
struct Kept {
    recent: VecDeque<Told>,
    /// `None` once the server stops: then watchers are let go.
    watchers: Option<broadcast::Sender<Event>>,
}

impl Kept {
    fn send(&self, event: &'static str, data: Told) {
        if let Some(watchers) = &self.watchers {
            // An error says that nobody watches.
            let _ = watchers.send((event, data));
        }
    }
}

impl RequestLog {
    /// No entries yet. Those of the requests go to the collector as well, where there is one.
    pub fn new(telemetry: Option<Arc<Telemetry>>) -> Self {
        let watchers = Some(broadcast::Sender::new(KEPT));
        let kept = Mutex::new(Kept { recent: VecDeque::with_capacity(KEPT), watchers });
        Self { kept, telemetry }
    }

    /// The latest entries, and all events that follow, with their names; none once the server stops.
    pub fn watch(&self) -> (Vec<Told>, Option<broadcast::Receiver<Event>>) {
        let kept = self.kept();
        (kept.recent.iter().cloned().collect(), kept.watchers.as_ref().map(broadcast::Sender::subscribe))
    }

    /// Ends what is told to watchers: a server that stops would wait for them.
    pub fn close(&self) {
        self.kept().watchers = None;
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.kept().watchers.is_none()
    }

    fn add(&self, entry: Value) {
        let entry = Arc::new(entry);
        let mut kept = self.kept();
        if kept.recent.len() == KEPT {
            kept.recent.pop_front();
        }
        kept.recent.push_back(Arc::clone(&entry));
        kept.send("request", entry);
    }

    /// Tells watchers of something else than a request.
    pub fn tell(&self, event: &'static str, data: Value) {
        self.kept().send(event, Arc::new(data));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of one request so far. It is told when the last part of the server lets go of it.
#[derive(Debug)]
pub struct Trace {
    log: Arc<RequestLog>,
    begun: Instant,
    /// The caller's span, when spans are made.
    parent: Option<Context>,
    entry: Mutex<Entry>,
    /// What the choice of a model looks at.
    hints: Mutex<Hints>,
    /// The decision, for a caller who wants it.
    decision: Mutex<Option<Value>>,
}

#[derive(Debug, Default, Serialize)]
struct Entry {
    id: String,
    /// When it began, in milliseconds since 1970.
    time: u64,
    method: String,
    /// The route's pattern, as in the log: paths may hold what is nobody's business.
    path: String,
    /// Missing when the client went away before an answer began.
    status: Option<u16>,
    code: Option<String>,
    caller: Option<String>,
    task: Option<Task>,
    route: Option<Value>,
    ms: f64,
    #[serde(skip)]
    routed: Option<Instant>,
    /// Loading the model, or waiting until it was loaded.
    load_ms: Option<f64>,
    queue_ms: Option<f64>,
    first_token_ms: Option<f64>,
    prompt_ms: Option<f64>,
    decode_ms: Option<f64>,
    prompt_tokens: Option<u32>,
    cached_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    steps: Vec<Value>,
}

impl Entry {
    /// As a span, of a request that began at `begun`.
    fn span(&self, begun: Instant) -> telemetry::Told {
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method.clone()),
            KeyValue::new("http.route", self.path.clone()),
            KeyValue::new("pajamas.request_id", self.id.clone()),
        ];
        let mut add = |name: &'static str, value: Option<opentelemetry::Value>| {
            attributes.extend(value.map(|value| KeyValue::new(name, value)));
        };
        let number = |number: Option<u32>| number.map(|number| i64::from(number).into());
        let of_route = |key| Some(self.route.as_ref()?[key].as_str()?.to_owned().into());
        add("http.response.status_code", number(self.status.map(u32::from)));
        add("error.type", self.code.clone().map(Into::into));
        add("pajamas.task", self.task.map(|task| task.name().into()));
        add("gen_ai.request.model", of_route("model"));
        add("pajamas.backend", of_route("backend"));
        add("pajamas.device", of_route("device"));
        add("gen_ai.usage.input_tokens", number(self.prompt_tokens));
        add("pajamas.cached_tokens", number(self.cached_tokens));
        add("gen_ai.usage.output_tokens", number(self.completion_tokens));
        // One after the other, from the choice of the route on.
        let mut at = self.routed.map(|routed| routed.duration_since(begun)).unwrap_or_default();
        let stages = |step: &Value| Some((step["step"].as_str()?.to_owned(), step["ms"].as_f64()?));
        let text = [("queue", self.queue_ms), ("prompt", self.prompt_ms), ("decode", self.decode_ms)];
        let mut parts: Vec<(String, f64)> =
            self.load_ms.map(|ms| ("load".to_owned(), ms)).into_iter().collect();
        match self.queue_ms {
            Some(_) => parts.extend(text.iter().filter_map(|(name, ms)| Some(((*name).to_owned(), (*ms)?)))),
            None => parts.extend(self.steps.iter().filter_map(stages)),
        }
        let whole = Duration::try_from_secs_f64(self.ms / 1e3).unwrap_or_default();
        let all: f64 = parts.iter().map(|(_, ms)| ms).sum();
        // Waiting for a turn comes before the route is told.
        at = at.min(whole.saturating_sub(Duration::try_from_secs_f64(all / 1e3).unwrap_or_default()));
        let place = |(name, ms): (String, f64)| {
            let took = Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
            at += took;
            (name, at.saturating_sub(took), took)
        };
        telemetry::Told {
            name: format!("{} {}", self.method, self.path),
            begun: UNIX_EPOCH + Duration::from_millis(self.time),
            took: whole,
            attributes,
            fault: self
                .code
                .clone()
                .filter(|_| !self.status.is_some_and(|status| (400..500).contains(&status))),
            parts: parts.into_iter().map(place).collect(),
        }
    }
}

impl Trace {
    /// A request begins.
    pub fn begin(
        log: &Arc<RequestLog>,
        id: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Arc<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let entry = Entry {
            id: id.to_owned(),
            time: u64::try_from(now).unwrap_or(u64::MAX),
            method: method.to_string(),
            path: path.to_owned(),
            ..Entry::default()
        };
        let parent = log.telemetry.as_ref().map(|_| Telemetry::parent(headers));
        Arc::new(Self {
            log: Arc::clone(log),
            begun: Instant::now(),
            parent,
            entry: Mutex::new(entry),
            hints: Mutex::default(),
            decision: Mutex::default(),
        })
    }

    /// What its headers say for the choice of a model; `wanted` are those that rules look at, in lower case.
    pub fn hear(&self, headers: &HeaderMap, wanted: &[String]) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let preferred = text("accept-language").and_then(|all| {
            let first = all.split([',', ';']).next()?.trim();
            let language = first.split('-').next()?.to_ascii_lowercase();
            language.bytes().all(|b| b.is_ascii_lowercase()).then_some(language).filter(|l| !l.is_empty())
        });
        let id = Some(self.entry().id.clone());
        let mut hints = self.hints();
        hints.id = id;
        hints.language = preferred;
        hints.session = text("x-session-id");
        hints.headers = wanted.iter().filter_map(|name| Some((name.clone(), text(name)?))).collect();
    }

    /// It was sent with this key.
    pub fn keyed(&self, name: &str) {
        self.hints().key = Some(name.to_owned());
    }

    /// Adds what its headers and its key say to what its body said.
    pub fn hint(&self, hints: &mut Hints) {
        let Hints { id, key, headers, language, session, .. } = self.hints().clone();
        let session = session.or_else(|| hints.session.take());
        *hints = Hints { id, key, headers, language, session, ..std::mem::take(hints) };
    }

    /// The decision, for a caller who wants it.
    pub fn decision(&self) -> Option<Value> {
        self.decision.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request as the current one, so that what runs for it is written down with it.
    pub async fn within<T>(self: Arc<Self>, answer: impl Future<Output = T>) -> T {
        CURRENT.scope(self, answer).await
    }

    /// The request that this task answers.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Its answer begins.
    pub fn answered(&self, status: StatusCode, code: Option<String>, caller: Option<String>) {
        let mut entry = self.entry();
        entry.status = Some(status.as_u16());
        entry.code = entry.code.take().or(code);
        entry.caller = caller;
    }

    /// Where it goes.
    pub fn routed(&self, task: Task, route: &Route) {
        if route.trace.is_some() {
            self.decision.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&route.trace);
        }
        let mut entry = self.entry();
        entry.task = Some(task);
        entry.routed = Some(Instant::now());
        entry.route = Some(json!(route));
    }

    /// A token was generated.
    pub fn token(&self) {
        let ms = self.ms();
        self.entry().first_token_ms.get_or_insert(ms);
    }

    /// What ran for it ended. Of several answers to one request the tokens are added up.
    pub fn ran(&self, result: &Result<Outcome>) {
        let mut entry = self.entry();
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                entry.code = Some(error.code().to_owned());
                return;
            }
        };
        let step = |step: &crate::pipeline::StepTime| json!({ "step": step.step, "ms": step.time.as_secs_f64() * 1e3 });
        // What comes between the route and the first step.
        let steps: Duration = outcome.steps.iter().map(|step| step.time).sum();
        entry.load_ms = entry.routed.map(|at| at.elapsed().saturating_sub(steps).as_secs_f64() * 1e3);
        entry.steps = outcome.steps.iter().map(step).collect();
        let usage = match &outcome.output {
            Output::Text(summary) => {
                if summary.finish_reason == FinishReason::Cancelled {
                    entry.code = Some("cancelled".into());
                }
                entry.queue_ms = Some(summary.timings.queue_ms);
                entry.prompt_ms = Some(summary.timings.prompt_ms);
                entry.decode_ms = Some(summary.timings.decode_ms);
                summary.usage
            }
            Output::Embeddings(_, usage) | Output::Scores(_, usage) => *usage,
            Output::Transcript(transcript) => transcript.usage(),
            Output::Speech(speech) => speech.usage(),
            Output::Values(_) => return,
        };
        let entry = &mut *entry;
        for (total, count) in [
            (&mut entry.prompt_tokens, usage.prompt_tokens),
            (&mut entry.cached_tokens, usage.cached_tokens),
            (&mut entry.completion_tokens, usage.completion_tokens),
        ] {
            *total = Some(total.unwrap_or_default().saturating_add(count));
        }
    }

    fn ms(&self) -> f64 {
        self.begun.elapsed().as_secs_f64() * 1e3
    }

    fn entry(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let ms = self.ms();
        let mut entry = self.entry();
        entry.ms = ms;
        // Those who only look, at probes, metrics or this log, would fill it with themselves.
        if !matches!(entry.method.as_str(), "GET" | "HEAD") || entry.code.is_some() {
            if let (Some(telemetry), Some(parent)) = (&self.log.telemetry, &self.parent) {
                telemetry.tell(entry.span(self.begun), parent);
            }
            self.log.add(json!(&*entry));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(log: &Arc<RequestLog>, method: &Method) -> Arc<Trace> {
        Trace::begin(log, "7", method, "/v1/models", &HeaderMap::new())
    }

    #[test]
    fn a_request_is_told_when_nothing_of_it_is_left() {
        let log = Arc::new(RequestLog::new(None));
        let (_, watcher) = log.watch();
        let mut watcher = watcher.unwrap();
        let first = trace(&log, &Method::POST);
        let second = Arc::clone(&first);
        first.answered(StatusCode::OK, None, None);
        drop(first);
        assert!(watcher.try_recv().is_err());
        drop(second);
        assert_eq!(watcher.try_recv().unwrap().1["status"], 200);
    }

    #[test]
    fn headers_say_what_the_choice_of_a_model_looks_at() {
        let log = Arc::new(RequestLog::new(None));
        let trace = trace(&log, &Method::POST);
        let pairs = [
            ("accept-language", "de-AT, en;q=0.8"),
            ("x-session-id", "s"),
            ("x-tier", "gold"),
            ("cookie", "c"),
        ];
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        trace.hear(&headers, &["x-tier".to_owned(), "x-team".to_owned()]);
        trace.keyed("app");
        let mut hints = Hints { session: Some("of the body".to_owned()), trace: true, ..Hints::default() };
        trace.hint(&mut hints);
        assert_eq!(
            hints,
            Hints {
                id: Some("7".to_owned()),
                key: Some("app".to_owned()),
                headers: [("x-tier".to_owned(), "gold".to_owned())].into(),
                language: Some("de".to_owned()),
                session: Some("s".to_owned()),
                trace: true,
                ..Hints::default()
            }
        );
    }

    #[test]
    fn looking_leaves_no_entry_and_refusals_do() {
        let log = Arc::new(RequestLog::new(None));
        trace(&log, &Method::GET).answered(StatusCode::OK, None, None);
        assert!(log.watch().0.is_empty());
        trace(&log, &Method::GET).answered(StatusCode::NOT_FOUND, Some("route-not-found".into()), None);
        assert_eq!(log.watch().0[0]["code"], "route-not-found");
    }

    #[test]
    fn only_the_latest_are_kept_and_a_slow_watcher_stops_nobody() {
        let log = Arc::new(RequestLog::new(None));
        let (_, watcher) = log.watch();
        for _ in 0..3 * KEPT {
            drop(trace(&log, &Method::POST));
        }
        assert_eq!(log.watch().0.len(), KEPT);
        let mut watcher = watcher.unwrap();
        assert!(matches!(watcher.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        log.close();
        assert!(log.is_closed() && log.watch().1.is_none());
    }
}
