//! Who may ask: keys with scopes, and, on a server without keys, no web pages of other origins.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::page;
use super::request_log::Trace;
use crate::admission::Allowance;
use crate::config::{Key, Scope};
use crate::error::{Error, Result};
use crate::host::Host;

/// Whose key it was: the log says it.
#[derive(Debug, Clone)]
pub struct Caller(pub String);

/// Lets a request through, or refuses it.
pub async fn check(State(host): State<Arc<Host>>, mut request: Request, next: Next) -> Response {
    let config = host.config();
    let keys = &config.server.keys;
    let caller = match scope(request.uri().path()) {
        None => Ok(None),
        Some(_) if keys.is_empty() => same_machine(request.headers()).map(|()| None),
        Some(scope) => keyed(keys, request.headers(), scope).map(Some),
    };
    match caller {
        Ok(caller) => {
            let mut extensions = axum::http::Extensions::new();
            if let Some(caller) = caller {
                if let Some(trace) = Trace::current() {
                    trace.keyed(&caller.0);
                }
                extensions.insert(caller);
            }
            request.extensions_mut().extend(extensions.clone());
            let caller = extensions.get::<Caller>().cloned();
            let mut response = next.run(request).await;
            response.extensions_mut().extend(extensions);
            if let Some(Caller(name)) = caller {
                tell(response.headers_mut(), host.allowance(&name));
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

/// Tells a caller what is left to it, in the headers that OpenAI's clients read.
fn tell(headers: &mut HeaderMap, allowance: Allowance) {
    let both = [("requests", allowance.requests), ("tokens", allowance.tokens)];
    for (what, left) in both.into_iter().filter_map(|(what, left)| Some((what, left?))) {
        let values = [
            ("limit", left.limit.to_string()),
            ("remaining", left.left.to_string()),
            ("reset", format!("{}s", left.full_in.as_secs_f64())),
        ];
        for (name, value) in values {
            // Digits and letters are always a header's name and value.
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(format!("x-ratelimit-{name}-{what}")), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        }
    }
}

/// What a path asks for; `None` is open to everybody.
pub fn scope(path: &str) -> Option<Scope> {
    match path {
        "/healthz" | "/readyz" | "/openapi.json" => None,
        _ if page::PATHS.contains(&path) => None,
        "/metrics" => Some(Scope::Metrics),
        _ if path == "/admin" || path.starts_with("/admin/") => Some(Scope::Admin),
        _ => Some(Scope::Infer),
    }
}

/// The key that was sent, as `Authorization: Bearer KEY` or, as Anthropic's clients do, `x-api-key: KEY`.
fn sent(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}

/// Compares hashes, and looks at every key whichever fits: the time tells nothing.
fn keyed(keys: &[Key], headers: &HeaderMap, scope: Scope) -> Result<Caller> {
    let key = sent(headers).ok_or_else(|| {
        Error::new("key-missing", "this server asks for a key").help("send `Authorization: Bearer KEY`")
    })?;
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let mut found = None;
    for known in keys {
        if bool::from(known.sha256.0.ct_eq(&hash)) {
            found = Some(known);
        }
    }
    let known = found.ok_or_else(|| {
        Error::new("key-unknown", "the key is none of this server's").help("ask its operator for one")
    })?;
    if known.scopes.contains(&scope) {
        return Ok(Caller(known.name.to_string()));
    }
    let message =
        format!("the key `{}` is not for this path: it lacks the scope `{}`", known.name, scope.name());
    Err(Error::new("key-scope", message).help("ask the operator for a key with this scope"))
}

/// Without keys, whoever is on this machine may ask. A browser is, but the pages in it come from elsewhere: they send
/// their origin, or, when a name of theirs was made to point here, their own host.
fn same_machine(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text(ORIGIN)
        .map(|origin| (origin, origin.parse::<Uri>().ok().and_then(|uri| uri.into_parts().authority)));
    let host = text(HOST).map(|host| (host, host.parse::<Authority>().ok()));
    for (said, authority) in [origin, host].into_iter().flatten() {
        if !authority.is_some_and(|authority| is_local(authority.host())) {
            return Err(Error::new(
                "origin-refused",
                format!("`{said}` is not this machine, and the server has no keys"),
            )
            .help("give the server keys (`pajamas keys new`), or ask it as localhost"));
        }
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn key(name: &str, secret: &str, scopes: &[Scope]) -> Key {
        let sha256 = crate::config::Sha256(Sha256::digest(secret.as_bytes()).into());
        let mut key: Key =
            serde_json::from_value(serde_json::json!({ "name": name, "sha256": sha256 })).unwrap();
        key.scopes = scopes.to_vec();
        key
    }

    #[test]
    fn a_key_opens_its_scopes_and_no_more() {
        let keys = [key("app", "one", &[Scope::Infer]), key("ops", "two", &[Scope::Admin, Scope::Metrics])];
        let ask = |pairs: &[(&'static str, &str)], scope| {
            keyed(&keys, &headers(pairs), scope).map(|caller| caller.0).map_err(|e| e.code().to_owned())
        };
        assert_eq!(ask(&[("authorization", "Bearer one")], Scope::Infer), Ok("app".into()));
        assert_eq!(ask(&[("authorization", "bearer  two")], Scope::Admin), Ok("ops".into()));
        assert_eq!(ask(&[("x-api-key", "one")], Scope::Infer), Ok("app".into()));
        assert_eq!(ask(&[("x-api-key", "one")], Scope::Metrics), Err("key-scope".into()));
        assert_eq!(ask(&[("x-api-key", "three")], Scope::Infer), Err("key-unknown".into()));
        assert_eq!(ask(&[("authorization", "Basic one")], Scope::Infer), Err("key-missing".into()));
        assert_eq!(ask(&[], Scope::Infer), Err("key-missing".into()));
    }

    #[test]
    fn without_keys_pages_from_elsewhere_are_refused() {
        for good in [
            &[][..],
            &[("host", "localhost:8797")],
            &[("host", "127.0.0.1:8797"), ("origin", "http://127.0.0.1:8797")],
            &[("host", "[::1]:8797"), ("origin", "http://localhost:3000")],
        ] {
            assert!(same_machine(&headers(good)).is_ok(), "{good:?}");
        }
        for bad in [
            &[("host", "evil.example")][..],
            &[("host", "localhost.evil.example:8797")],
            &[("host", "127.0.0.1:8797"), ("origin", "https://evil.example")],
            &[("host", "127.0.0.1:8797"), ("origin", "null")],
            &[("host", "127.0.0.1.evil.example")],
        ] {
            assert_eq!(same_machine(&headers(bad)).unwrap_err().code(), "origin-refused", "{bad:?}");
        }
    }

    #[test]
    fn every_path_but_those_of_probes_the_document_and_the_page_has_a_scope() {
        assert_eq!(scope("/healthz"), None);
        assert_eq!(scope("/openapi.json"), None);
        assert_eq!(scope("/"), None);
        assert_eq!(scope("/page/app.js"), None);
        assert_eq!(scope("/page/else"), Some(Scope::Infer));
        assert_eq!(scope("/metrics"), Some(Scope::Metrics));
        assert_eq!(scope("/admin/models"), Some(Scope::Admin));
        assert_eq!(scope("/administrator"), Some(Scope::Infer));
        assert_eq!(scope("/v1/models"), Some(Scope::Infer));
    }
}
