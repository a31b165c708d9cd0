//! `/admin`: what an operator sees and does. `/readyz` and `/metrics` are here, too: they tell the same things.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use pajamas_plugin_api::Cancel;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::request_log::{self, RequestLog, Told};
use crate::error::{Error, Result};
use crate::host::Host;

/// How often a stream of events looks whether its client is still there and the server goes on.
pub const WATCH_POLL: Duration = Duration::from_millis(500);

/// `GET /readyz`: 503 until the models that are loaded at the start are in memory. One that was, and went for want of
/// requests or room, comes back with the next request.
pub async fn readyz(State(host): State<Arc<Host>>) -> Response {
    let config = host.config();
    let wanted: Vec<&str> = config.models.iter().filter(|m| m.preload).map(|m| &*m.id).collect();
    let missing: Vec<Value> = host
        .models()
        .status(wanted.iter().copied())
        .into_iter()
        .filter(|status| wanted.contains(&status.id.as_str()) && !status.is_at_hand())
        .map(|status| json!({ "model": status.id, "state": status.state, "failure": status.failure }))
        .collect();
    let (status, word) = match missing.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, Json(json!({ "status": word, "waiting_for": missing }))).into_response()
}

/// `GET /metrics`
pub async fn metrics(State(host): State<Arc<Host>>) -> Result<Response> {
    // Plugins are asked for their memory: not on a thread of the runtime.
    let text = blocking(move || host.metrics_text()).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// `GET /admin/models`
pub async fn models(State(host): State<Arc<Host>>) -> Result<Json<Value>> {
    blocking(move || {
        Ok(Json(json!({
            "models": host.models_status(),
            "devices": host.models().devices(),
            "remotes": host.remotes(),
            "queues": host.waiting(),
        })))
    })
    .await
}

/// A model in a path, which may be no text.
type Id = Result<Path<String>, PathRejection>;

/// The id of the configured model that a path names; of several that a name stands for the best.
fn named(host: &Host, id: Id) -> Result<String> {
    let wrong =
        |error: PathRejection| Error::new("invalid-input", format!("the path: {}", error.body_text()));
    let Path(id) = id.map_err(wrong)?;
    Ok(host.configured(&id)?.id.to_string())
}

/// `POST /admin/models/{id}/load`: answers when the model is in memory.
pub async fn load(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    let id = named(&host, id)?;
    blocking(move || {
        host.load(&id, &Cancel::new())?;
        one(&host, &id)
    })
    .await
}

/// `POST /admin/models/{id}/unload`: requests under way end first, each keeps the model as long as it needs it.
pub async fn unload(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    let id = named(&host, id)?;
    blocking(move || {
        host.models().unload(&id);
        one(&host, &id)
    })
    .await
}

/// `POST /admin/models/{id}/pin`: the model stays in memory when others need room.
pub async fn pin(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    let id = named(&host, id)?;
    host.models().pin(&id, true);
    blocking(move || one(&host, &id)).await
}

/// `POST /admin/models/{id}/unpin`
pub async fn unpin(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    let id = named(&host, id)?;
    host.models().pin(&id, false);
    blocking(move || one(&host, &id)).await
}

/// `GET /admin/plugins`: every plugin that was found, with each step of opening it, and what its backends can do here.
pub async fn plugins(State(host): State<Arc<Host>>) -> Json<Value> {
    let backends: Vec<Value> = host
        .plugins()
        .backends()
        .iter()
        .map(|b| json!({ "plugin": b.plugin, "backend": b.info, "probe": b.probe }))
        .collect();
    Json(json!({ "plugins": host.plugins().reports(), "backends": backends }))
}

/// `GET /admin/routes`: the latest decisions of the router, and what one would be made of now.
pub async fn routes(State(host): State<Arc<Host>>) -> Result<Json<Value>> {
    // Backends may be asked how large their models are.
    blocking(move || Ok(Json(host.decisions()))).await
}

/// `GET /admin/config`: every value in force, and where it comes from; what became of reading it again
/// the last time. Keys are only there as hashes.
pub async fn config(State(host): State<Arc<Host>>) -> Json<Value> {
    let config = host.config();
    Json(json!({ "settings": config.explain().0, "file": config.file, "reload": host.last_reload() }))
}

/// `GET /admin/events`: the state of every model, then each change (`model`); the latest requests, then each that ends
/// (`request`) and each reload (`config`), as server-sent events.
pub async fn events(State(host): State<Arc<Host>>, Extension(log): Extension<Arc<RequestLog>>) -> Response {
    let (sender, receiver) = mpsc::channel(64);
    let (recent, requests) = log.watch();
    tokio::spawn(tell_requests(recent, requests, sender.clone()));
    tokio::task::spawn_blocking(move || {
        // Watching begins before the states are read, so that no change falls between.
        let changes = host.models().watch();
        for status in host.models_status() {
            let first = json!({ "id": status.id, "state": status.state });
            if sender.blocking_send(event("model", &first)).is_err() {
                return;
            }
        }
        while !sender.is_closed() && !log.is_closed() {
            match changes.recv_timeout(WATCH_POLL) {
                Ok(change) if sender.blocking_send(event("model", &json!(change))).is_err() => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    let events = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

async fn tell_requests(
    recent: Vec<Told>,
    requests: Option<broadcast::Receiver<request_log::Event>>,
    sender: mpsc::Sender<Event>,
) {
    for entry in recent {
        if sender.send(event("request", &entry)).await.is_err() {
            return;
        }
    }
    let Some(mut requests) = requests else { return };
    loop {
        let entry = tokio::select! {
            entry = requests.recv() => entry,
            () = sender.closed() => return,
        };
        match entry {
            Ok((name, data)) if sender.send(event(name, &data)).await.is_err() => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn one(host: &Host, id: &str) -> Result<Json<Value>> {
    Ok(Json(json!(host.models().status([id]).into_iter().find(|status| status.id == id))))
}

/// Work that may take a while, on a thread of its own.
///
/// # Errors
/// Those of the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err(Error::new("internal", "the request's thread ended early")))
}
