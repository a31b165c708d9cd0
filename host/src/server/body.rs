//! Reading the body of a request: its size, its JSON, and an error that says where it is wrong.

use std::fmt::Display;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

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
