//! Connections: accepted up to a limit, not held open by clients that send nothing, and drained at the end.

use std::future::Future;
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

use crate::error::{Error, Result};
use crate::host::Host;

/// After a failure to accept, for want of file handles for example, nothing better happens at once.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Takes the address.
///
/// # Errors
/// `listen-failed`.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        Error::new("listen-failed", format!("{address}: {e}"))
            .help("choose another address with --listen, or stop what uses this one")
    })
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
        http.header_read_timeout(host.config().server.client_timeout.duration());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(host.config().server.drain_timeout.duration(), graceful.shutdown()).await.is_ok()
}
