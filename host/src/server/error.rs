//! Errors over HTTP, in the shape that OpenAI's clients read.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::observe::Refusal;
use super::routes;
use crate::error::{Class, Error};

/// The HTTP status of an error's class.
pub const fn http_status(class: Class) -> StatusCode {
    match class {
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Busy => StatusCode::TOO_MANY_REQUESTS,
        Class::Unauthenticated => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        // The client has gone or asked to stop: nginx's number, since HTTP has none.
        Class::Cancelled => match StatusCode::from_u16(499) {
            Ok(status) => status,
            Err(_) => StatusCode::BAD_REQUEST,
        },
        Class::Unmet => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The error object: `code` is ours, `type` is OpenAI's coarse word.
pub fn body(error: &Error) -> Value {
    let kind = match error.class() {
        Class::Invalid | Class::NotFound | Class::TooLarge | Class::Unmet => "invalid_request_error",
        Class::Unavailable => "overloaded_error",
        Class::Busy => "rate_limit_error",
        Class::Unauthenticated => "authentication_error",
        Class::Forbidden => "permission_error",
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
        let mut response = (http_status(self.class()), Json(body(&self))).into_response();
        if let Some(wait) = self.wait() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response.extensions_mut().insert(Refusal(self));
        response
    }
}

/// For a path that has a handler, but not for this method.
pub async fn no_such_method(method: Method, uri: Uri) -> Response {
    let error = Error::new("method-not-allowed", format!("{method} is not for {}", uri.path())).help(
        "conversations, texts and pictures are sent with POST; what is only looked at is asked with GET",
    );
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// For every path without a handler.
pub async fn no_such_route(uri: Uri) -> Error {
    Error::new("route-not-found", format!("there is nothing at {}", uri.path()))
        .help(format!("the paths are {}", routes::paths()))
}
