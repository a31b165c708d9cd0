//! HTTP: one file per API family. A handler decodes, calls `Host::run`, and encodes; it decides nothing.

mod access;
mod admin;
mod audio;
mod body;
mod chat;
mod completions;
mod embeddings;
mod error;
mod health;
mod images;
mod jobs;
mod keep_alive;
mod listen;
mod messages;
mod observe;
mod openai;
mod openapi;
mod page;
mod params;
mod reload;
mod request_log;
mod responses;
mod route_trace;
mod routes;
mod speech;
mod sse;
mod stream;
mod telemetry;
mod tokens;
mod tools;
mod upload;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::Next;
use axum::{Extension, Router, middleware};
use pajamas_plugin_api::Cancel;

pub use chat::request as chat_request;
pub use error::http_status;
use request_log::RequestLog;
pub use routes::{Route, table};
use telemetry::Telemetry;

use crate::error::{Error, Result};
use crate::host::Host;

/// How often the server looks whether it was told to stop.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Serves until `stop` is set, then finishes the requests under way.
///
/// # Errors
/// `listen-failed` when the address cannot be taken.
pub fn serve(host: Arc<Host>, stop: &Cancel) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new("internal", format!("no runtime: {e}")))?;
    runtime.block_on(listen(host, stop.clone()))
}

async fn listen(host: Arc<Host>, stop: Cancel) -> Result<()> {
    let address = host.config().server.listen.0;
    let listener = listen::bind(address, host.config().server.max_connections).await?;
    let actual = listener.local_addr().unwrap_or(address);
    let telemetry = host.config().telemetry.otlp.as_ref().map(Telemetry::start).transpose()?.map(Arc::new);
    let log = Arc::new(RequestLog::new(telemetry.clone()));
    #[cfg(unix)]
    reload::on_hangup(Arc::clone(&host), Arc::clone(&log), stop.clone());
    tokio::spawn(reload::watch(Arc::clone(&host), Arc::clone(&log)));
    // Scripts wait for this line: it says that requests are answered from now on, and where.
    eprintln!("pajamas listens on http://{actual}");
    let preload = Arc::clone(&host);
    tokio::task::spawn_blocking(move || preload.preload(&Cancel::new()));
    let (watched, working) = (Arc::clone(&log), Arc::clone(&host));
    let stopped = async move {
        while !stop.is_cancelled() {
            tokio::time::sleep(STOP_POLL).await;
        }
        watched.close();
        // Who watches a job is told how it ended, and is a request under way.
        working.jobs().close();
        // A terminal that was closed takes no words.
        let _ = writeln!(std::io::stderr(), "stopping: no new requests; Ctrl-C again ends at once");
    };
    let drained = listen::serve(listener, router(Arc::clone(&host), log), &host, stopped).await;
    if let Some(telemetry) = telemetry {
        // What was not sent in a while is lost, and the thread that fails to is nobody's concern any more.
        let _ = tokio::task::spawn_blocking(move || telemetry.stop()).await;
    }
    let limit = host.config().server.drain_timeout;
    let working = Arc::clone(&host);
    // Requests had that time, and a job was told to stop before them.
    let idle = tokio::task::spawn_blocking(move || working.jobs().is_idle_within(limit.duration()));
    if !idle.await.unwrap_or(false) {
        return Err(Error::new("shutting-down", format!("a job did not stop within {limit}")));
    }
    if !drained {
        return Err(Error::new(
            "shutting-down",
            format!("requests were still under way after {limit}, and are lost"),
        ));
    }
    Ok(())
}

/// All routes over a host.
fn router(host: Arc<Host>, log: Arc<RequestLog>) -> Router {
    routes::router()
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(middleware::from_fn(route_trace::add))
        .layer(middleware::from_fn_with_state(Arc::clone(&host), body::within_time))
        // The layer before has read the body already, within the limit that held then.
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(Arc::clone(&log)))
        .layer(middleware::from_fn_with_state(Arc::clone(&host), access::check))
        .layer(middleware::from_fn(|request, next: Next| observe::unpanicked(next.run(request))))
        .layer(middleware::from_fn(messages::refusals))
        .layer(middleware::from_fn_with_state((Arc::clone(&host), log), observe::request))
        .with_state(host)
}
