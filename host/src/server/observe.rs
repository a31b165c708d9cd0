//! One line in the log for each request, its id in the answer, and its refusal in the metrics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::Caller;
use super::request_log::{RequestLog, Trace};
use crate::error::Error;
use crate::host::Host;

/// The header with the request's id: the client's own when it sent one.
const REQUEST_ID: &str = "x-request-id";
/// Longer ids are replaced.
const LONGEST_ID: usize = 128;

/// Marks a response as an error of ours.
#[derive(Debug, Clone)]
pub struct Refusal(pub Error);

/// Measures a request until its answer begins; what follows of a stream is in the metrics and in the request log.
pub async fn request(
    State((host, log)): State<(Arc<Host>, Arc<RequestLog>)>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = request.headers().get(REQUEST_ID).filter(|id| is_plain(id)).cloned().unwrap_or_else(new_id);
    let method = request.method().clone();
    // The route and never the path: paths may hold what is nobody's business.
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let trace = Trace::begin(&log, id.to_str().unwrap_or_default(), &method, &route, request.headers());
    trace.hear(request.headers(), &host.wanted_headers());
    let mut response = Arc::clone(&trace).within(next.run(request)).await;
    let refusal = response.extensions().get::<Refusal>().map(|refusal| refusal.0.code().to_owned());
    if let Some(code) = &refusal {
        host.metrics().refused(code);
    }
    let caller = response.extensions().get::<Caller>().map(|caller| caller.0.clone());
    trace.answered(response.status(), refusal.clone(), caller.clone());
    tracing::info!(
        id = id.to_str().unwrap_or_default(),
        %method,
        route,
        status = response.status().as_u16(),
        code = refusal.as_deref().unwrap_or("ok"),
        caller,
        ms = begun.elapsed().as_secs_f64() * 1e3,
        "request"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A fault of ours is an answer with a code like every other, and not a connection that breaks.
pub async fn unpanicked(answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    let whole = poll_fn(|context| {
        // Nothing of the request is used again after a panic.
        match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Error::new("internal", "the request's handler panicked"))),
        }
    });
    whole.await.unwrap_or_else(IntoResponse::into_response)
}

fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=LONGEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// Unique among the processes of one machine, and in order of time.
fn new_id() -> HeaderValue {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let id = format!("{now:x}-{:x}-{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    // Hexadecimal digits are always a header's value.
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let response = unpanicked(async { panic!("on purpose") }).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.extensions().get::<Refusal>().unwrap().0.code(), "internal");
    }

    #[test]
    fn an_id_of_the_client_is_kept_when_it_is_plain() {
        let long = "x".repeat(200);
        for (id, plain) in [("abc-123", true), ("", false), ("two words", false), (long.as_str(), false)] {
            assert_eq!(is_plain(&HeaderValue::from_str(id).unwrap()), plain, "{id}");
        }
        assert_ne!(new_id(), new_id());
        assert!(is_plain(&new_id()));
    }
}
