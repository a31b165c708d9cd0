//! HTTP: one file per API family. A handler decodes, calls `Host::run`, and encodes; it decides nothing.

mod body;
mod chat;
mod error;
mod health;
mod images;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use pajamas_plugin_api::Cancel;

pub use error::http_status;

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
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|e| {
        Error::new("listen-failed", format!("{address}: {e}"))
            .help("choose another address with --listen, or stop what uses this one")
    })?;
    let actual = listener.local_addr().unwrap_or(address);
    // Scripts wait for this line: it says that requests are answered from now on, and where.
    eprintln!("pajamas listens on http://{actual}");
    let preload = Arc::clone(&host);
    tokio::task::spawn_blocking(move || preload.preload(&Cancel::new()));
    axum::serve(listener, router(host))
        .with_graceful_shutdown(async move {
            while !stop.is_cancelled() {
                tokio::time::sleep(STOP_POLL).await;
            }
            eprintln!("stopping: no new requests; Ctrl-C again ends at once");
        })
        .await
        .map_err(|e| Error::new("listen-failed", e.to_string()))
}

/// All routes over a host.
pub fn router(host: Arc<Host>) -> Router {
    let max_body = host.config().server.max_body.as_usize();
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/v1/models", get(health::models))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/images/detect", post(images::detect))
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(host)
}
