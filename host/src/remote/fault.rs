//! What can go wrong with another server, and whose fault it is.

use pajamas_plugin_api::{PluginError, codes};
use serde_json::Value;

/// The server cannot be reached, or has a fault of its own.
pub const UNAVAILABLE: &str = "remote-unavailable";
/// It has too much to do.
pub const BUSY: &str = "remote-busy";
/// It said nothing for too long.
pub const TIMEOUT: &str = "remote-timeout";
/// It stopped in the middle of its answer.
pub const INTERRUPTED: &str = "remote-interrupted";
/// What it said is not what the API promises.
pub const INVALID: &str = "remote-invalid";
/// It does not take the request.
pub const REFUSED: &str = "remote-refused";
/// It does not take the key, or does not know the model.
pub const DENIED: &str = "remote-denied";
/// The variable that should hold the key does not.
pub const KEY_MISSING: &str = "remote-key-missing";

/// Letters of another server's words that are repeated.
const MOST_WORDS: usize = 300;

/// Whether a code is one of a request that another server did not carry out, so that a third one might.
pub fn is_remote(code: &str) -> bool {
    says_it_fails(code) || [BUSY, DENIED, KEY_MISSING].contains(&code)
}

/// Whether a code says that the server is not well.
pub fn says_it_fails(code: &str) -> bool {
    [UNAVAILABLE, TIMEOUT, INTERRUPTED, INVALID].contains(&code)
}

/// What it sent is not what it should.
pub fn invalid(what: impl std::fmt::Display) -> PluginError {
    PluginError::new(INVALID, format!("the remote's answer is not one of OpenAI's API: {what}"))
        .help("check that `remote.url` is where its API begins, usually at `/v1`")
}

/// An answer with a status that is none of success, and what it says.
pub fn refusal(status: u16, body: &[u8]) -> PluginError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let known_to_be_too_long = is_too_long(error);
    let words = words(error);
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    let code = match status {
        _ if known_to_be_too_long => codes::CONTEXT_LENGTH_EXCEEDED,
        429 => BUSY,
        401 | 403 | 404 | 405 | 300..=399 => DENIED,
        408 | 500.. => UNAVAILABLE,
        400..=499 => REFUSED,
        _ => INVALID,
    };
    let error = PluginError::new(code, format!("the remote answered with status {status}{said}"));
    match code {
        DENIED => error.help(
            "check `remote.url`, `remote.model` and the key in the variable that `remote.key_env` names",
        ),
        BUSY => error.help("try again later, or give the ladder another step"),
        _ => error,
    }
}

/// An error in the middle of a stream, whose status was one of success.
pub fn in_stream(error: &Value) -> PluginError {
    let code = if is_too_long(error) { codes::CONTEXT_LENGTH_EXCEEDED } else { UNAVAILABLE };
    PluginError::new(code, format!("the remote broke its answer off: {}", words(error)))
}

fn is_too_long(error: &Value) -> bool {
    let code = error["code"].as_str().unwrap_or_default();
    ["context-length-exceeded", "context_length_exceeded"].contains(&code)
}

/// What it says, in one line and not too long.
fn words(error: &Value) -> String {
    let words = error["message"].as_str().or_else(|| error["detail"].as_str()).or_else(|| error.as_str());
    let words: String =
        words.unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    words[..words.floor_char_boundary(MOST_WORDS)].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_fault_it_is() {
        let code = |status, body: &str| refusal(status, body.as_bytes()).code;
        for (status, expected) in [
            (302, DENIED),
            (400, REFUSED),
            (401, DENIED),
            (404, DENIED),
            (413, REFUSED),
            (422, REFUSED),
            (429, BUSY),
            (500, UNAVAILABLE),
            (503, UNAVAILABLE),
            (204, INVALID),
        ] {
            assert_eq!(code(status, "<html>"), expected, "{status}");
        }
        let long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
        assert_eq!(code(400, long), "context-length-exceeded");
        let said = refusal(503, br#"{"error":{"message":"no\nmemory"}}"#).message;
        assert_eq!(said, "the remote answered with status 503: no memory");
        assert_eq!(refusal(422, br#"{"detail":"x"}"#).message, "the remote answered with status 422: x");
        let endless = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(10_000));
        assert!(refusal(500, endless.as_bytes()).message.len() < 400);
    }
}
