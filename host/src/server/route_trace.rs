//! The whole decision in the answer, for who asked for it with `route_trace`.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::request_log::Trace;
use crate::error::Error;

/// Adds `route_trace` to an answer that is a JSON object. Streams tell it as their first event.
pub async fn add(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let Some(decision) = Trace::current().and_then(|trace| trace.decision()) else { return response };
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
    // A refusal has the shape that all refusals have.
    if !is_json || !response.status().is_success() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let told = to_bytes(body, usize::MAX).await.ok().and_then(|bytes| {
        let mut answer: Value = serde_json::from_slice(&bytes).ok()?;
        answer.as_object_mut()?.insert("route_trace".to_owned(), decision);
        Some(answer.to_string())
    });
    let Some(told) = told else {
        return Error::new("internal", "the answer is no object that a decision could be added to")
            .into_response();
    };
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(told))
}
