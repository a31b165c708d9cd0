//! Connections: accepted up to a limit, not held open by clients that send nothing, and drained at the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::error::{Error, Result};
use crate::host::Host;

/// After a failure to accept, for want of file handles for example, nothing better happens at once.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Takes the address, for so many connections at the same time.
///
/// # Errors
/// `listen-failed`.
pub async fn bind(address: SocketAddr, connections: u32) -> Result<TcpListener> {
    #[cfg(unix)]
    reserve_files(connections.into());
    TcpListener::bind(address).await.map_err(|e| {
        Error::new("listen-failed", format!("{address}: {e}"))
            .help("choose another address with --listen, or stop what uses this one")
    })
}

/// File handles for all that is no connection: models, libraries, the log.
#[cfg(unix)]
const OTHER_FILES: u64 = 256;

/// Sees to it that so many connections have file handles: many systems give a program 1,024 and more when it asks.
#[cfg(unix)]
fn reserve_files(connections: u64) {
    let wanted = connections.saturating_add(OTHER_FILES) as libc::rlim_t;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the structure that it is given, which lives on this stack.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    if !known || limit.rlim_cur >= wanted {
        return;
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: the call reads the structure that it is given.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    if !raised || limit.rlim_cur < wanted {
        tracing::warn!(
            "`server.max_connections` needs {wanted} file handles, and this program may have {}: `ulimit -Hn` raises that",
            limit.rlim_cur
        );
    }
}

/// Whether a write waited longer than a client may take.
fn is_stalled(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

/// Serves connections until `stop` is done, then lets the requests under way end. Says whether all did in time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    host: &Host,
    stop: impl Future<Output = ()>,
) -> bool {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let places = Arc::new(Semaphore::new(host.config().server.max_connections as usize));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let place = tokio::select! {
            // The semaphore is never closed.
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            () = &mut stop => break,
        };
        let stream: TcpStream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // Tokens are small and should not wait for more.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let patience = host.config().server.client_timeout.duration();
        http.header_read_timeout(patience);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(patience));
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            match connection.await {
                Ok(()) => {}
                Err(error) if is_stalled(&error) => {
                    tracing::warn!(code = "client-too-slow", "a client took nothing of its answer: it is cut")
                }
                Err(error) => tracing::debug!("a connection ended: {error}"),
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(host.config().server.drain_timeout.duration(), graceful.shutdown()).await.is_ok()
}
