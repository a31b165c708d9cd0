//! Errors over HTTP, in the shape that OpenAI's clients read.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::{Class, Error};

/// The HTTP status of an error's class.
pub const fn http_status(class: Class) -> StatusCode {
    match class {
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // The client has gone or asked to stop: nginx's number, since HTTP has none.
        Class::Cancelled => match StatusCode::from_u16(499) {
            Ok(status) => status,
            Err(_) => StatusCode::BAD_REQUEST,
        },
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error object: `code` is ours, `type` is OpenAI's coarse word.
pub fn body(error: &Error) -> Value {
    let kind = match error.class() {
        Class::Invalid | Class::NotFound | Class::TooLarge => "invalid_request_error",
        Class::Unavailable => "overloaded_error",
        Class::Cancelled => "cancelled",
        Class::Internal => "server_error",
    };
    let message = match error.how_to_fix() {
        "" => error.message().to_owned(),
        help => format!("{} ({help})", error.message()),
    };
    json!({ "error": { "message": message, "type": kind, "code": error.code(), "param": null } })
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (http_status(self.class()), Json(body(&self))).into_response()
    }
}

/// For a path that has a handler, but not for this method.
pub async fn no_such_method(method: Method, uri: Uri) -> Response {
    let error = Error::new("method-not-allowed", format!("{method} is not for {}", uri.path()))
        .help("pictures and conversations are sent with POST; /v1/models and /healthz are asked with GET");
    (StatusCode::METHOD_NOT_ALLOWED, Json(body(&error))).into_response()
}

/// For every path without a handler.
pub async fn no_such_route(uri: Uri) -> Error {
    Error::new("route-not-found", format!("there is nothing at {}", uri.path()))
        .help("the paths are /v1/chat/completions, /v1/images/detect, /v1/models and /healthz")
}
