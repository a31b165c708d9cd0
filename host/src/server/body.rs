//! Reading the body of a request: its size, its JSON, and an error that says where it is wrong.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tokio_stream::StreamExt;

use crate::error::{Error, Result};
use crate::host::Host;

/// Reads the whole body before a handler begins, so that a client that sends nothing, or a byte at a time, holds no
/// more than its connection: each part within `server.client_timeout`, all of them within `server.request_timeout`.
pub async fn within_time(State(host): State<Arc<Host>>, request: Request, next: Next) -> Response {
    let config = host.config();
    let server = &config.server;
    let (head, body) = request.into_parts();
    let part = server.client_timeout.duration();
    let read = collect(body.into_data_stream(), server.max_body.as_usize(), part);
    let error = match tokio::time::timeout(server.request_timeout.duration(), read).await {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(error)) => error,
        Err(_) => too_slow(),
    };
    // What the client goes on sending is not read: the connection cannot be used again.
    let mut response = error.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn collect(mut parts: BodyDataStream, most: usize, wait: Duration) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let Some(part) = tokio::time::timeout(wait, parts.next()).await.map_err(|_| too_slow())? else {
            return Ok(bytes);
        };
        let part = part.map_err(|error| Error::new("invalid-input", format!("the request body: {error}")))?;
        if bytes.len() + part.len() > most {
            return Err(unreadable(format!("more than {most} bytes"), StatusCode::PAYLOAD_TOO_LARGE));
        }
        bytes.extend_from_slice(&part);
    }
}

fn too_slow() -> Error {
    Error::new("client-too-slow", "the request body did not arrive in time")
        .help("send it faster, or raise `server.client_timeout`")
}

/// A body that could not be read, from axum's text and status.
pub fn unreadable(text: impl Display, status: StatusCode) -> Error {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Error::new("body-too-large", format!("the request body: {text}"))
            .help("send less, or raise `server.max_body`"),
        _ => Error::new("invalid-input", format!("the request body: {text}")),
    }
}

/// The object in a body.
///
/// # Errors
/// `invalid-input` with the path of the field that is wrong.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let invalid = |words: String| Error::new("invalid-input", format!("the request body: {words}"));
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // The path of the whole is a dot.
        invalid(if path == "." { error.inner().to_string() } else { format!("`{path}`: {}", error.inner()) })
    })?;
    json.end().map_err(|error| invalid(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Body {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        items: Vec<u32>,
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (body, words) in [
            (r#"{"items": [1, "two"]}"#, "`items[1]`: invalid type: string"),
            (r#"{"items": 7}"#, "`items`: invalid type"),
            ("{}", "the request body: missing field `items`"),
            (r#"{"items": []} x"#, "trailing characters"),
            ("{", "line 1 column 1"),
        ] {
            let error = json::<Body>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "invalid-input");
            assert!(error.message().contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn a_body_that_is_too_large_has_its_own_code() {
        assert_eq!(
            unreadable("length limit exceeded", StatusCode::PAYLOAD_TOO_LARGE).code(),
            "body-too-large"
        );
        assert_eq!(unreadable("cut off", StatusCode::BAD_REQUEST).code(), "invalid-input");
    }
}
