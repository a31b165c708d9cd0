//! `/admin/jobs`: long work that is asked for, watched and stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::admin::{WATCH_POLL, blocking};
use super::body;
use super::sse::Line;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::jobs::Quantize;
use crate::quantize::usual_formats;

/// The largest body: it is kept as long as the job waits.
const LARGEST: usize = 1 << 20;
/// Events that a slow client may be behind.
const BEHIND: usize = 16;

/// What is read of a model to make an artifact of.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizeBody {
    /// A Hugging Face model's folder, a model file or an artifact, relative to `jobs.folder`.
    model: String,
    /// The formats to make.
    #[serde(default = "usual_formats")]
    formats: Vec<String>,
    /// One list of precisions for each format, with colons between; several of one format with commas:
    /// `Q4_K_M,Q8_0:4bit`.
    precision: String,
    /// The artifact's folder, relative to `jobs.folder`; forms that it has already stay.
    output: String,
    /// Options after the quantizers' schemas; files are named relative to `jobs.folder`.
    #[serde(default)]
    options: Map<String, Value>,
}

/// `POST /admin/jobs/quantize`: 202 with the job, which waits for its turn.
pub async fn quantize(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    if bytes.len() > LARGEST {
        let message = format!("the request body: {} bytes, more than {LARGEST}", bytes.len());
        return Err(Error::new("body-too-large", message).help("a job is described in less"));
    }
    let QuantizeBody { model, formats, precision, output, options } = body::json(&bytes)?;
    let wanted = Quantize { model, formats, precision, output, options };
    let status = blocking(move || host.quantize(wanted)).await?;
    Ok((StatusCode::ACCEPTED, Json(status)).into_response())
}

/// `GET /admin/jobs`
pub async fn all(State(host): State<Arc<Host>>) -> Json<Value> {
    Json(json!({ "jobs": host.jobs().all() }))
}

/// A job in a path, which may be no text.
type Id = Result<Path<String>, PathRejection>;

fn text(id: Id) -> Result<String> {
    let wrong =
        |error: PathRejection| Error::new("invalid-input", format!("the path: {}", error.body_text()));
    id.map(|Path(id)| id).map_err(wrong)
}

/// `GET /admin/jobs/{id}`
pub async fn one(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    Ok(Json(json!(host.jobs().status(&text(id)?)?)))
}

/// `DELETE /admin/jobs/{id}`: one that runs ends a little later.
pub async fn cancel(State(host): State<Arc<Host>>, id: Id) -> Result<Json<Value>> {
    Ok(Json(json!(host.jobs().cancel(&text(id)?)?)))
}

/// `GET /admin/jobs/{id}/events`: the job as it is, then whenever there is something new to tell (`progress`), and when it
/// ended (`end`), which is the last.
pub async fn events(State(host): State<Arc<Host>>, id: Id) -> Result<Response> {
    let id = text(id)?;
    let mut next = host.jobs().wait(&id, 0, Duration::ZERO)?;
    let (sender, receiver) = mpsc::channel(BEHIND);
    tokio::task::spawn_blocking(move || {
        loop {
            let (status, seen) = next;
            let ended = status.state.is_end();
            let line = Line::named(if ended { "end" } else { "progress" }, json!(status));
            if sender.blocking_send(line).is_err() || ended {
                return;
            }
            // Of a client that went away nobody tells: it is looked for now and then.
            next = loop {
                match host.jobs().wait(&id, seen, WATCH_POLL) {
                    Ok(next) if next.1 > seen => break next,
                    Ok(_) if !sender.is_closed() => {}
                    // Or it ended so long ago that it is forgotten: others took its place meanwhile.
                    Ok(_) | Err(_) => return,
                }
            };
        }
    });
    let events = ReceiverStream::new(receiver).map(|line| Ok::<_, Infallible>(Event::from(line)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
