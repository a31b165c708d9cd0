//! Traces of requests for a collector of OpenTelemetry: a span for each, and below it what it waited for and what ran.

use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

use crate::config::Collector;
use crate::error::{Error, Result};

/// A collector that takes longer gets nothing of this batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes spans, and sends them in batches from a thread of its own. A collector that does not answer costs spans, never a
/// request.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A request that ended.
#[derive(Debug)]
pub struct Told {
    /// Method and route.
    pub name: String,
    /// When it began.
    pub begun: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
    /// The code of what is the server's fault.
    pub fault: Option<String>,
    /// What it went through: a name, when that began, and how long it took.
    pub parts: Vec<(String, Duration, Duration)>,
}

impl Telemetry {
    /// Begins. Must be called on the runtime that sends.
    ///
    /// # Errors
    /// `internal`.
    pub fn start(collector: &Collector) -> Result<Self> {
        let client = HyperClient::with_default_connector(TIMEOUT, None);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(OnRuntime { client, runtime: Handle::current() })
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(collector.traces())
            .build()
            .map_err(|error| Error::new("internal", format!("no traces: {error}")))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("pajamas").with_attribute(version).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer("pajamas");
        Ok(Self { provider, tracer })
    }

    /// The span of the caller that the request belongs to, when it says so (W3C Trace Context).
    pub fn parent(headers: &HeaderMap) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
    }

    /// Tells of a request, below its `parent`.
    pub fn tell(&self, told: Told, parent: &Context) {
        let Told { name, begun, took, attributes, fault, parts } = told;
        let mut span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_start_time(begun)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, parent);
        if let Some(code) = fault {
            span.set_status(Status::error(code));
        }
        let context = parent.with_remote_span_context(span.span_context().clone());
        for (name, from, took) in parts {
            let from = begun + from;
            let part = self.tracer.span_builder(name).with_start_time(from);
            part.start_with_context(&self.tracer, &context).end_with_timestamp(from + took);
        }
        span.end_with_timestamp(begun + took);
    }

    /// Sends what waits to be sent. Blocks.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("traces are lost: {error}");
        }
    }
}

/// A client for a thread that knows no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
