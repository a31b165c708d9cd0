//! What a host counts and times, as Prometheus reads it.
//!
//! Labels name models, tasks, stages, devices and codes: things of the configuration, never of a request.

mod moment;
mod observed;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::config::Task;
use crate::error::Error;
use crate::pipeline::{Outcome, Output, Route};
use moment::Moment;
pub use moment::Now;
pub use observed::{Observations, Took};

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;
type Histograms = Family<Labels, Histogram, Buckets>;

/// Seconds that requests take: vLLM's buckets, so that dashboards compare.
const REQUEST: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// Seconds between two tokens, or of one step of a pipeline.
const STEP: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Makes histograms with one list of buckets.
#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

/// The metrics of one host. Every method may be called from any thread.
pub struct Metrics {
    registry: Registry,
    requests: Counters,
    in_flight: Gauges,
    duration: Histograms,
    queue_wait: Histograms,
    first_token: Histograms,
    between_tokens: Histograms,
    steps: Histograms,
    tokens: Counters,
    routes: Counters,
    degraded: Counters,
    not_compared: Counters,
    refusals: Counters,
    cancelled: Counters,
    reloads: Counters,
    /// Set anew for each look.
    moment: Mutex<Moment>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("pajamas");
        let requests = counter(
            &mut registry,
            "requests",
            "Requests that ended, by task, model and code; `ok` for success",
        );
        let in_flight = gauge(&mut registry, "requests_in_flight", "Requests that run or wait");
        let duration =
            histogram(&mut registry, "request_duration_seconds", "Requests from beginning to end", REQUEST);
        let queue_wait =
            histogram(&mut registry, "queue_wait_seconds", "Waiting for the model's engine", REQUEST);
        let first_token = histogram(
            &mut registry,
            "time_to_first_token_seconds",
            "From the beginning of a request to its first token",
            REQUEST,
        );
        let between_tokens =
            histogram(&mut registry, "inter_token_latency_seconds", "Between two tokens of one answer", STEP);
        let steps = histogram(
            &mut registry,
            "stage_duration_seconds",
            "Steps of pipelines; kind is wasm or backend",
            STEP,
        );
        let tokens = counter(
            &mut registry,
            "tokens",
            "Tokens by direction: prompt, cached (of the prompt, not computed again), completion",
        );
        let routes = counter(
            &mut registry,
            "route_decisions",
            "Requests by the model that they went to, what led there (a rule's id, or asked, default, only, path, similar), and \
             whether that was a degradation",
        );
        let degraded = counter(
            &mut registry,
            "route_degraded",
            "Requests that went to another model than the first of their ladder",
        );
        let not_compared = counter(
            &mut registry,
            "route_not_compared",
            "Comparisons with the examples of rules whose model could not be asked, by the code: the rules were passed over",
        );
        let refusals = counter(
            &mut registry,
            "refusals",
            "Answers that were errors, by code, also those that reached no model",
        );
        let cancelled = counter(&mut registry, "cancelled", "Requests that were stopped before their end");
        let reloads = counter(
            &mut registry,
            "config_reloads",
            "Reloads of the configuration, by result: ok, or failed when the one before it stayed",
        );
        for result in ["ok", "failed"] {
            // There from the start, so that the first one is seen to be an increase.
            drop(reloads.get_or_create(&vec![("result", result.to_owned())]));
        }
        let moment = Moment::new(&mut registry);
        Self {
            registry,
            requests,
            in_flight,
            duration,
            queue_wait,
            first_token,
            between_tokens,
            steps,
            tokens,
            routes,
            degraded,
            not_compared,
            refusals,
            cancelled,
            reloads,
            moment: Mutex::new(moment),
        }
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let family = Seconds::default();
    registry.register(name, help, family.clone());
    family
}

fn histogram(registry: &mut Registry, name: &str, help: &str, buckets: &'static [f64]) -> Histograms {
    let family = Histograms::new_with_constructor(Buckets(buckets));
    registry.register(name, help, family.clone());
    family
}

impl Metrics {
    /// A request begins, for a model of the configuration or the word `path`.
    pub fn begin(&self, task: Task, route: &Route) -> Meter<'_> {
        let labels = vec![("task", task.to_string()), ("model", route.model.clone())];
        self.in_flight.get_or_create(&labels).inc();
        let rule = route.rule.as_deref().unwrap_or(route.by);
        let decision = [
            ("target", route.model.as_str()),
            ("rule", rule),
            ("degraded", if route.degraded_from.is_some() { "true" } else { "false" }),
        ];
        self.routes.get_or_create(&decision.map(|(name, value)| (name, value.to_owned())).to_vec()).inc();
        if let Some(from) = &route.degraded_from {
            let labels = vec![("from", from.clone()), ("to", route.model.clone())];
            self.degraded.get_or_create(&labels).inc();
        }
        let model = vec![("model", route.model.clone())];
        // Looked up once: a token should cost no more than reading the clock.
        let first_token = self.first_token.get_or_create(&model).clone();
        let between_tokens = self.between_tokens.get_or_create(&model).clone();
        Meter { metrics: self, labels, begun: Instant::now(), token: None, first_token, between_tokens }
    }

    /// A model could not say how near a request is to the examples of a rule.
    pub fn not_compared(&self, model: &str, code: &str) {
        let labels = vec![("model", model.to_owned()), ("code", code.to_owned())];
        self.not_compared.get_or_create(&labels).inc();
    }

    /// An answer is an error.
    pub fn refused(&self, code: &str) {
        self.refusals.get_or_create(&vec![("code", code.to_owned())]).inc();
    }

    /// The configuration was read again.
    pub fn reloaded(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.reloads.get_or_create(&vec![("result", result.to_owned())]).inc();
    }

    /// All metrics in OpenMetrics text.
    ///
    /// # Errors
    /// Only when formatting fails.
    pub fn encode(&self, now: &Now) -> Result<String, fmt::Error> {
        let moment = self.moment.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        moment.set(now);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One request being measured. Dropped without [`end`](Self::end), it counts as an internal error.
pub struct Meter<'m> {
    metrics: &'m Metrics,
    labels: Labels,
    begun: Instant,
    /// When the last token came.
    token: Option<Instant>,
    first_token: Histogram,
    between_tokens: Histogram,
}

impl Meter<'_> {
    /// A token came.
    pub fn token(&mut self) {
        let now = Instant::now();
        let (histogram, since) = match self.token.replace(now) {
            None => (&self.first_token, self.begun),
            Some(last) => (&self.between_tokens, last),
        };
        histogram.observe((now - since).as_secs_f64());
    }

    /// The request ended.
    pub fn end(self, result: &Result<Outcome, Error>) {
        let metrics = self.metrics;
        match result {
            Ok(outcome) => {
                for step in &outcome.steps {
                    let kind = if step.step == "model" { "backend" } else { "wasm" };
                    let labels = vec![("stage", step.step.clone()), ("kind", kind.to_owned())];
                    metrics.steps.get_or_create(&labels).observe(step.time.as_secs_f64());
                }
                self.used(&outcome.output);
                self.close("ok");
            }
            Err(error) => {
                if error.code() == "cancelled" {
                    metrics.cancelled.get_or_create(&self.model()).inc();
                }
                self.close(error.code());
            }
        }
    }

    fn used(&self, output: &Output) {
        let usage = match output {
            Output::Text(summary) => {
                let wait = summary.timings.queue_ms / 1e3;
                self.metrics.queue_wait.get_or_create(&self.model()).observe(wait);
                summary.usage
            }
            Output::Embeddings(_, usage) | Output::Scores(_, usage) => *usage,
            Output::Transcript(transcript) => transcript.usage(),
            Output::Speech(speech) => speech.usage(),
            Output::Values(_) => return,
        };
        for (direction, count) in [
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("completion", usage.completion_tokens),
        ] {
            let mut labels = self.model();
            labels.push(("direction", direction.to_owned()));
            self.metrics.tokens.get_or_create(&labels).inc_by(count.into());
        }
    }

    fn close(&self, code: &str) {
        let mut labels = self.labels.clone();
        self.metrics.duration.get_or_create(&labels).observe(self.begun.elapsed().as_secs_f64());
        labels.push(("code", code.to_owned()));
        self.metrics.requests.get_or_create(&labels).inc();
    }

    fn model(&self) -> Labels {
        self.labels.iter().filter(|(name, _)| *name == "model").cloned().collect()
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.get_or_create(&self.labels).dec();
    }
}
